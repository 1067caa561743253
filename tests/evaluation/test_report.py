"""The papers of an evaluation agree with each other and with a plain count."""

import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from reading_html import assert_whole
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import confusion, exact, report

HERE = pathlib.Path(__file__).parent
CLASSES = Classes(("n01", "n02", "n03", "n04"), ("crane", "crane", "tench, Tinca tinca", ""))  # two share a name


def drawn(classes: int, examples: int) -> exact.Predictions:
    """Predictions right about two times in three; the last class has no example."""
    rng = np.random.default_rng(0)
    label = rng.integers(classes - 1, size=examples)
    first = np.where(rng.random(examples) < 0.6, label, rng.integers(classes, size=examples))
    top5 = (first[:, None] + np.arange(min(5, classes))) % classes
    loss, confidence = rng.random((2, examples))
    return exact.Predictions(np.arange(examples) + 10, label, loss, top5, confidence)


def test_results_predictions_and_text_agree(tmp_path: pathlib.Path) -> None:
    predictions = drawn(4, 60)
    results = report.write_evaluation(str(tmp_path), predictions, CLASSES, protocol={"split": "val"},
                                      file_names=[f"{i}.JPEG" for i in predictions.index])
    with open(os.path.join(tmp_path, "results.json")) as file:
        assert json.load(file) == results
    assert results["protocol"] == {"split": "val"}
    assert results["metrics"] == exact.metrics(predictions)

    hit = predictions.top5[:, 0] == predictions.label
    for entry in results["per_class"][:3]:
        mine = predictions.label == entry["label"]
        assert entry["support"] == mine.sum() and entry["recall"] == hit[mine].mean()
    empty = results["per_class"][3]
    assert (empty["class"], empty["support"], empty["recall"]) == ("n04", 0, 0)
    assert results["classes_without_examples"] == 1
    recalls = [entry["recall"] for entry in results["per_class"]]
    assert results["averages"]["micro"]["recall"] == hit.mean()
    np.testing.assert_allclose(results["averages"]["macro"]["recall"], np.mean(recalls))
    np.testing.assert_allclose(results["averages"]["weighted"]["recall"], hit.mean())
    worst = results["most_confused"][0]
    pairs = list(zip(predictions.label[~hit], predictions.top5[~hit, 0], strict=True))
    assert worst["count"] == max(pairs.count(pair) for pair in pairs)

    with open(os.path.join(tmp_path, "predictions.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == predictions.index.tolist()
    assert rows[0]["file_name"] == "10.JPEG"
    assert np.mean([row["label"] == row["predicted"] for row in rows]) == hit.mean()
    assert [row["top5"] for row in rows][7] == " ".join(map(str, predictions.top5[7]))
    with open(os.path.join(tmp_path, "report.txt")) as file:
        text = file.read()
    for told in ("n01 crane", "n02 crane", "n03 tench ", "n04 ", "macro avg", "micro avg"):
        assert told in text


class Drawn:
    """Records of pictures, each of the colour of its index; the first cannot be decoded."""

    def read(self, indices):
        for i in indices:
            file = io.BytesIO()
            Image.new("RGB", (300, 200), (i, 0, 0)).save(file, "PNG")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(file.getvalue() if i > 10 else b"no")
            yield example.SerializeToString()


def test_the_page_leads_to_what_went_wrong(tmp_path: pathlib.Path) -> None:
    predictions = drawn(4, 60)
    predictions.confidence[0], predictions.label[0], predictions.top5[0] = 1, 0, (1, 2, 3, 0)  # surest, and wrong
    results = report.write_evaluation(str(tmp_path), predictions, CLASSES, records=Drawn(), protocol={"split": "val"},
                                      file_names=[f"<{i}>.JPEG" for i in predictions.index])
    wrong = predictions.top5[:, 0] != predictions.label
    found = results["confident_mistakes"]
    assert len(found) == min(24, wrong.sum()) and found[0] == {
        "index": 10, "file_name": "<10>.JPEG", "label": "n01 crane", "predicted": "n02 crane", "confidence": 1.0}
    assert [each["confidence"] for each in found] == sorted(predictions.confidence[wrong], reverse=True)[:24]

    page = assert_whole((tmp_path / "report.html").read_text())
    written = (tmp_path / "report.md").read_text()
    assert len(page.all("img")) == len(re.findall(r"!\[[^]]*\]\(", written)) == len(found) + 1
    assert {link["href"] for link in page.all("a")} >= {
        "#most-confident-mistakes", "#worst-classes", "#most-confused-pairs"}
    for told in ("n01 crane taken for n02 crane at 100.0%", "(<10>.JPEG)", f"{results['metrics']['top1']:.2%}"):
        assert told in page.words
    sizes = {Image.open(tmp_path / f"mistakes/{each['index']}.jpg").size for each in found[1:]}
    assert sizes == {(192, 128)} and Image.open(tmp_path / "mistakes/10.jpg").getpixel((0, 0)) == (128, 128, 128)

    right = predictions._replace(top5=predictions.label[:, None].repeat(4, axis=1))
    report.write_evaluation(str(tmp_path), right, CLASSES, records=Drawn(), protocol={})
    assert not (tmp_path / "mistakes").exists()
    assert len(assert_whole((tmp_path / "report.html").read_text()).all("img")) == 1


@pytest.mark.parametrize("classes", [2, 30, 100, 1000])
def test_confusion_is_drawn_for_few_and_for_many_classes(tmp_path: pathlib.Path, classes: int) -> None:
    names = [f"n{i:08}" for i in range(classes)]
    report.write_evaluation(str(tmp_path), drawn(classes, 2000), Classes(names, names), protocol={})
    picture = Image.open(os.path.join(tmp_path, "confusion.png"))
    assert max(picture.size) < 2000 and np.array(picture).std() > 5


def test_labels_beyond_the_classes_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="label 3 .* 3 classes"):
        report.write_evaluation(str(tmp_path), drawn(4, 20), Classes(*(each[:3] for each in CLASSES)), protocol={})


def test_counts_and_scores_are_those_of_a_full_matrix(tmp_path: pathlib.Path) -> None:
    predictions = drawn(12, 500)
    label, predicted = predictions.label, predictions.top5[:, 0]
    names = [f"n{i:08}" for i in range(12)]
    counts = confusion.count(label, predicted, 12)
    whole = confusion_matrix(label, predicted, labels=range(12))
    assert (np.argwhere(whole) == np.stack([counts.label, counts.predicted], axis=1)).all()
    assert (whole[whole > 0] == counts.count).all() and (whole.sum(axis=1) == counts.examples).all()

    results = report.write_evaluation(str(tmp_path), predictions, Classes(names, names), protocol={})
    wrong = whole - np.diag(np.diag(whole))
    assert [found["count"] for found in results["most_confused"]] == np.sort(wrong, axis=None)[:-21:-1].tolist()
    for found in results["most_confused"]:
        assert wrong[names.index(found["label"]), names.index(found["predicted"])] == found["count"]
    for average in ("micro", "macro", "weighted"):
        expected = precision_recall_fscore_support(label, predicted, labels=range(12), average=average, zero_division=0)
        ours = results["averages"][average]
        assert (ours["precision"], ours["recall"], ours["f1-score"], ours["support"]) == (*expected[:3], 500)


def test_memory_does_not_grow_with_the_square_of_classes(tmp_path: pathlib.Path) -> None:
    """ImageNet-21k, whose full matrix would take 3.8 GB; a process of its own, since the peak of one never falls."""
    code = """
        import resource, sys, test_report
        from imagenet_jax.classes import Classes
        from imagenet_jax.evaluation import report
        predictions, names = test_report.drawn(21841, 100_000), [f"n{i:08}" for i in range(21841)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report.write_evaluation(sys.argv[1], predictions, Classes(names, names), protocol={})
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}:{HERE.parents[1]}"})
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300  # MiB; on Linux


def test_of_many_classes_the_most_confused_are_drawn_by_name(tmp_path: pathlib.Path, monkeypatch) -> None:
    drawings = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawings.append(figure))
    label = np.arange(1000).repeat(3)
    predicted = np.where((label % 50 == 7) & (np.arange(3000) % 3 < 2), label + 3, label)  # twenty pairs, twice each
    predicted[0] = 999  # once
    names = [f"n{i:08}" for i in range(1000)]
    confusion.draw(str(tmp_path), confusion.count(label, predicted, 1000), names, names, "heading")
    confusion.draw(str(tmp_path), confusion.count(label, label, 1000), names, names, "heading")
    mixed, perfect = (figure.axes[0] for figure in drawings)
    shown = [names[i + j] for i in range(7, 1000, 50) for j in (0, 3)]
    assert [tick.get_text() for tick in mixed.get_yticklabels()] == shown
    assert "1,000 classes" in mixed.get_title() and "only the 40 classes" in mixed.get_title()
    cells = {text.get_position(): text.get_text() for text in mixed.texts}
    assert cells[0, 0] == "1" and cells[1, 0] == "2" and cells[1, 1] == "3" and (0, 1) not in cells
    assert "no mistakes" in perfect.get_title() and len(perfect.get_yticklabels()) == confusion.PART


@pytest.mark.filterwarnings("error")  # matplotlib warns of a character that it has no picture of
def test_what_the_font_cannot_draw_is_called_by_its_class(tmp_path: pathlib.Path, monkeypatch) -> None:
    drawings = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawings.append(figure) or savefig(figure, path))
    classes, names = ("n01", "n02", "犬", "n04"), ("鶴", "crâne", "犬", "$x^ $")
    report.write_evaluation(str(tmp_path), drawn(4, 60), Classes(classes, names), protocol={})
    axes = drawings[0].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["n01", "n02 crâne", "class 2", "n04 $x^ $"]
