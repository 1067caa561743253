"""The papers of an evaluation agree with each other and with a plain count."""

import csv
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact, report

CLASSES = ("n01", "n02", "n03", "n04")
NAMES = ("crane", "crane", "tench, Tinca tinca", "")  # as in ImageNet, two share a name


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
    results = report.write_evaluation(
        str(tmp_path), predictions, CLASSES, class_names=NAMES, protocol={"split": "val"},
        file_names=[f"{i}.JPEG" for i in predictions.index],
    )  # fmt: skip
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


@pytest.mark.parametrize("classes", [2, 30, 1000])
def test_confusion_is_drawn_for_few_and_for_many_classes(
    tmp_path: pathlib.Path, classes: int
) -> None:
    names = [f"n{i:08}" for i in range(classes)]
    report.write_evaluation(str(tmp_path), drawn(classes, 2000), names, protocol={})
    picture = Image.open(os.path.join(tmp_path, "confusion.png"))
    assert max(picture.size) < 2000 and np.array(picture).std() > 5


def test_labels_beyond_the_classes_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="label 3 .* 3 classes"):
        report.write_evaluation(str(tmp_path), drawn(4, 20), CLASSES[:3], protocol={})
