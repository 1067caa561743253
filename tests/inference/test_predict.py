"""Predictions are those of evaluation, in the order asked for, and a bad file costs its own line only."""

import csv
import json
import os
import tarfile

import numpy as np
import pytest
from small_data import draw

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.errors import UserError
from imagenet_jax.inference import images as images_lib
from imagenet_jax.inference import predict, writing
from imagenet_jax.prepare.writer import Source, write_dataset
from imagenet_jax.training import evaluating

BROKEN = {"cut.jpg", "empty.jpg", "text.jpg", "damaged.png"}
MENDED = {"cmyk.jpg", "palette.gif", "deep.png", "photo.webp"}


@pytest.fixture(scope="session")
def split_dir(tmp_path_factory):
    ids = ("n0", "n1", "n2", "n3")
    directory = tmp_path_factory.mktemp("data") / "four"
    write_dataset(directory, Source("four", ids, ids, {"validation": draw(37, 4, 1)}))
    return str(directory)


def ask(path, names, **asked):
    found, _ = images_lib.pointed_at([os.fspath(name) for name in names])
    return list(predict.predict(evaluating.open_trained(path), found, predict.Asked(**asked)))


@pytest.mark.parametrize("view", [
    '{"size": 32, "resize": 36, "library": "tf"}', '{"size": 32, "resize": 36, "library": "pil"}',
    '{"size": 32, "resize": 40, "crops": 10, "library": "tf"}'])
@pytest.mark.parametrize("batch", [0, 5])
def test_predictions_are_those_of_evaluate(weigh, split_dir, tmp_path, view, batch):
    path = weigh(view)
    evaluating.evaluate_checkpoint(path, dataset_dir=split_dir, out=str(tmp_path / "out"), probabilities=True)
    kept = np.load(tmp_path / "out" / "probabilities.npy")
    with open(tmp_path / "out" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    records = dataset_lib.open_split(dataset_lib.open_dataset(split_dir), "validation")
    found = list(predict.predict(evaluating.open_trained(path), images_lib.of_split(records), batch=batch))
    assert [each.picture.name for each in found] == [row["file_name"] for row in rows] and len(found) == 37
    for each, row, every in zip(found, rows, kept["probabilities"], strict=True):
        assert " ".join(map(str, each.labels)) == row["top5"]
        assert each.probabilities[0] == pytest.approx(float(row["confidence"]), abs=2e-6)
        np.testing.assert_allclose(every[each.labels], each.probabilities, atol=1e-3)  # float16


def test_the_same_pictures_as_files_give_the_same(weigh, split_dir, tmp_path):
    path, folder = weigh(), tmp_path / "files"
    folder.mkdir()
    for example in draw(37, 4, 1):
        (folder / example.file_name).write_bytes(example.image)
    records = dataset_lib.open_split(dataset_lib.open_dataset(split_dir), "validation")
    expected = predict.predict(evaluating.open_trained(path), images_lib.of_split(records))
    found = ask(path, [folder / f"image_{i}.JPEG" for i in range(37)])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-6)


def test_broken_files_are_told_odd_ones_mended_and_the_rest_is_as_without_them(weigh, photos):
    found = {each.picture.name.removeprefix(f"{photos}/"): each for each in ask(weigh(), [photos])}
    assert list(found) == sorted(found) and {name for name, each in found.items() if each.picture.fault} == BROKEN
    assert {name for name, each in found.items() if each.picture.mended} == MENDED
    assert "begins with 'not an image'" in found["text.jpg"].picture.fault
    assert "truncated" in found["cut.jpg"].picture.fault and found["empty.jpg"].picture.fault == "an empty file"
    alone = ask(weigh(), [photos / "deeper", photos / "photo.webp"])
    assert len(alone) == 10
    for each in alone:
        other = found[each.picture.name.removeprefix(f"{photos}/")]
        np.testing.assert_array_equal(each.labels, other.labels)
        np.testing.assert_allclose(each.probabilities, other.probabilities, rtol=1e-6)


def test_names_of_every_kind_in_their_order(photos, tmp_path):
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name in ("no_ending", "notes.txt", "cut.jpg", "deeper/3.jpg"):
            tar.add(photos / name, name)
    found, left_out = images_lib.pointed_at([
        str(tmp_path / "some.tar"), str(photos / "deeper" / "[21].jpg"), "nothing*.jpg", str(tmp_path / "gone.jpg"),
        str(photos / "notes.txt")])
    pictures = [found.load(i) for i in range(found.count)]
    names = [picture.name.removeprefix(f"{tmp_path}/") for picture in pictures]
    assert names == ["some.tar/no_ending", "some.tar/cut.jpg", "some.tar/deeper/3.jpg", "photos/deeper/1.jpg",
                     "photos/deeper/2.jpg", "nothing*.jpg", "gone.jpg", "photos/notes.txt"]
    assert left_out == [f"{tmp_path}/some.tar/notes.txt"]
    assert pictures[2].encoded == (photos / "deeper" / "3.jpg").read_bytes()
    assert [bool(picture.fault) for picture in pictures] == [False, True, False, False, False, True, True, True]
    with pytest.raises(UserError, match="is packed"):
        images_lib.pointed_at(["photos.tar.gz"])


def test_lines_table_and_features(weigh, photos, tmp_path):
    found = ask(weigh(), [photos / "cut.jpg", photos / "photo.webp"], topk=2, features=True)
    classes = evaluating.open_trained(weigh()).classes
    for form in ("json", "csv"):
        with writing.lines(str(tmp_path / "out" / form), form, classes, 2) as write, \
                writing.features(str(tmp_path / "features.npy"), 2) as keep:
            for each in found:
                write(each)
                keep(each)
    broken, sound = map(json.loads, (tmp_path / "out" / "json").read_text().splitlines())
    assert broken == {"file": f"{photos}/cut.jpg", "error": found[0].picture.fault}
    assert "WEBP of mode RGB re-encoded as RGB PNG" in sound["mended"] and len(sound["top"]) == 2
    best = sound["top"][0]
    assert best["id"] == f"n{best['label']}" and best["name"] == ("one", "two", "n2", "four")[best["label"]]
    with open(tmp_path / "out" / "csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["error"] == broken["error"] and rows[0]["label_1"] == "" and not rows[1]["error"]
    assert (rows[1]["id_1"], float(rows[1]["probability_1"])) == (best["id"], best["probability"])
    rows = np.load(tmp_path / "features.npy")
    assert rows.shape == (2, 8) and np.isnan(rows[0]).all() and np.isfinite(rows[1]).all()


def test_nothing_to_look_at(weigh, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert ask(weigh(), [tmp_path / "nothing"]) == []
