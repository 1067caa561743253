"""Labels that `predict --annotate` proposes, looked through, are what `prepare` reads."""

import csv

import numpy as np
import pytest

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.inference import images as images_lib
from imagenet_jax.inference import predict, writing
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.examples import Options
from imagenet_jax.prepare.sources import layouts
from imagenet_jax.training import evaluating

HEADING = ["path", "label", "confidence", "name", "second", "second_name", "error"]


def annotate(path, names, out, chosen=""):
    trained = evaluating.open_trained(path)
    images, _ = images_lib.pointed_at(list(map(str, names)))
    classes, columns = predict.counting(str(chosen), trained.classes)
    with writing.proposals(str(out), classes) as write:
        for each in predict.predict(trained, images, predict.Asked(2, columns=columns)):
            write(each)
    return read(out)


def read(out):
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == HEADING
    return rows


def prepared(table, out, classes=None):
    source = layouts.open_source(layouts.IMAGES, str(table), "ours", Options(classes))
    writer.write_dataset(out, source)
    dataset = dataset_lib.open_dataset(out)
    records = dataset_lib.open_split(dataset, "train")
    rows = [dataset_lib.row(record) for record in records.read(range(len(records)))]
    return source, {row.file_name.decode(): dataset.classes[row.label] for row in rows}


def test_what_a_person_corrects_is_prepared(weigh, photos, tmp_path):
    """Odd pictures are read as they lie, from a folder beside the table's."""
    table = tmp_path / "tables" / "labels.csv"
    rows = annotate(weigh(), [photos], table)
    assert len(rows) == 18 and [bool(row["error"]) for row in rows] == [True] * 4 + [False] * 14
    assert all(not row["label"] for row in rows[:4]) and {row["label"] for row in rows[4:]} <= {"n0", "n1", "n2", "n3"}
    confidence = [float(row["confidence"]) for row in rows[4:]]
    assert confidence == sorted(confidence) and all(row["second"] != row["label"] for row in rows[4:])
    rows[4]["label"], rows[5]["label"], rows[6]["label"] = "", "none of the network's", "n3"
    with open(table, "w", newline="") as file:
        writer_ = csv.DictWriter(file, HEADING)
        writer_.writeheader()
        writer_.writerows(rows)
    source, found = prepared(table, tmp_path / "data")
    assert found == {row["path"]: row["label"] for row in rows[5:]}
    assert all(path.startswith("../photos/") for path in found)
    assert {reason: count for reason, (count, _) in source.left_out.items()} == {"unlabelled": 5}


def test_only_the_classes_of_a_file_count(weigh, photos, tmp_path):
    path, chosen = weigh(), tmp_path / "classes.txt"
    chosen.write_text("four\tof our own\nn0\n")
    trained = evaluating.open_trained(path)
    classes, columns = predict.counting(str(chosen), trained.classes)
    assert classes == Classes(("four", "n0"), ("of our own", "one, first")) and columns.tolist() == [3, 0]
    images, _ = images_lib.pointed_at([str(photos / "deeper")])
    every = predict.predict(trained, images, predict.Asked(4))
    for each, ours in zip(every, predict.predict(trained, images, predict.Asked(9, columns=columns)), strict=True):
        shares = each.probabilities[np.argsort(each.labels)][[3, 0]]
        np.testing.assert_allclose(ours.probabilities[np.argsort(ours.labels)], shares / shares.sum(), rtol=1e-5)
    rows = annotate(path, [photos / "deeper"], tmp_path / "labels.csv", chosen)
    assert all({row["label"], row["second"]} == {"four", "n0"} for row in rows)
    source, found = prepared(tmp_path / "labels.csv", tmp_path / "data", str(chosen))
    assert found == {row["path"]: row["label"] for row in rows} and set(source.classes) <= {"four", "n0"}


def test_one_class_has_no_second(weigh, photos, tmp_path):
    (tmp_path / "one.txt").write_text("n2\n")
    rows = annotate(weigh(), [photos / "deeper"], tmp_path / "labels.csv", tmp_path / "one.txt")
    assert {(row["label"], row["confidence"], row["second"]) for row in rows} == {("n2", "1.000000", "")}


def test_a_table_is_not_written_over_and_half_of_it_not_at_all(weigh, photos, tmp_path):
    rows = annotate(weigh(), [photos / "deeper", photos / "gone.jpg"], tmp_path / "labels.csv")
    assert (rows[0]["path"], rows[0]["error"]) == ("photos/gone.jpg", "No such file or directory")
    with pytest.raises(UserError, match="perhaps corrected by hand"):
        annotate(weigh(), [photos / "deeper"], tmp_path / "labels.csv")
    with pytest.raises(KeyboardInterrupt), writing.proposals(str(tmp_path / "half.csv"), Classes((), ())):
        raise KeyboardInterrupt
    assert not (tmp_path / "half.csv").exists()


def test_a_file_with_a_class_that_the_network_lacks_is_refused(weigh, tmp_path):
    (tmp_path / "classes.txt").write_text("n1\nunicorn\n")
    with pytest.raises(UserError, match="the model has no class unicorn"):
        predict.counting(str(tmp_path / "classes.txt"), evaluating.open_trained(weigh()).classes)
