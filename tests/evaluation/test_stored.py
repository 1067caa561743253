"""What an evaluation left is read as it was, and joined with another by example, never by position."""

import json

import numpy as np
import pytest
from test_report import CLASSES, drawn

from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import report, stored

PROTOCOL = {"dataset": "drawn", "variant": "original", "split": "validation"}


def written(folder, predictions, protocol=PROTOCOL, names=True):
    names = [f"{i}, \"{i}\".JPEG" for i in predictions.index] if names else None
    report.write_evaluation(str(folder), predictions, CLASSES, file_names=names, protocol=protocol)
    return stored.read(str(folder))


def rows(predictions, chosen):
    return type(predictions)(*(values[chosen] for values in predictions))


def test_what_is_read_is_what_was_written(tmp_path) -> None:
    predictions = drawn(4, 60)
    found = written(tmp_path, predictions)
    assert (found.index == predictions.index).all() and (found.label == predictions.label).all()
    assert (found.hit1 == (predictions.top5[:, 0] == predictions.label)).all() and found.hit5.all()
    np.testing.assert_allclose(found.loss, predictions.loss, atol=1e-6)
    assert found.file_name[3] == '13, "13".JPEG' and found.protocol == PROTOCOL


@pytest.mark.parametrize("names", [True, False])
def test_examples_are_joined_wherever_they_stand(tmp_path, names) -> None:
    predictions, order = drawn(4, 60), np.random.default_rng(0).permutation(60)
    first = written(tmp_path / "first", predictions, names=names)
    second = written(tmp_path / "second", rows(predictions, order), names=names)
    here, there = stored.align(first, second)
    assert (first.index[here] == second.index[there]).all() and (first.hit1[here] == second.hit1[there]).all()
    if names:  # another order in the dataset, too
        other = second._replace(index=np.arange(60))
        here, there = stored.align(first, other)
        assert (first.file_name[here] == other.file_name[there]).all()


def test_what_is_not_the_same_is_said_and_not_joined(tmp_path) -> None:
    predictions = drawn(4, 60)
    first = written(tmp_path / "first", predictions)
    other = written(tmp_path / "other", predictions, PROTOCOL | {"split": "holdout", "fold": 1})
    assert stored.align(first, other) == "it was evaluated on another split: holdout, not validation"
    assert "another fold: 1, not None" in stored.align(first, other._replace(protocol=PROTOCOL | {"fold": 1}))
    assert "another variant" in stored.align(first, other._replace(protocol=PROTOCOL | {"variant": "max_side=64"}))
    fewer = written(tmp_path / "fewer", rows(predictions, slice(50)))
    assert "other examples (50 here, 60 there)" in stored.align(first, fewer)
    relabelled = first._replace(label=np.where(np.arange(60) < 3, first.label + 1, first.label))
    assert "3 of its examples have another label" in stored.align(first, relabelled)
    nameless = [each._replace(file_name=np.where(np.arange(60) < 2, name, each.file_name))
                for each, name in ((first, "a"), (first, "b"))]
    assert "2 of its examples have another file name" in stored.align(*nameless)


def test_what_is_damaged_is_one_message(tmp_path) -> None:
    def damaged(name, text):
        written(tmp_path, drawn(4, 20))
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"cannot be read: .*Run `evaluate` again") as caught:
            stored.read(str(tmp_path))
        return str(caught.value)

    written(tmp_path, drawn(4, 20))
    whole = (tmp_path / "predictions.csv").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert "not the examples that results.json counts" in damaged("predictions.csv", whole[: whole.rindex("\n29,") + 1])
    assert "columns" in damaged("predictions.csv", whole[: len(whole) // 2])
    damaged("predictions.csv", "")
    assert "top5" in damaged("predictions.csv", "index,file_name,label,predicted,loss\n1,,1,1,0.1\n")
    damaged("predictions.csv", whole.replace(",1,", ",one,"))
    damaged("results.json", "{")
    assert "metrics" in damaged("results.json", json.dumps({"protocol": results["protocol"]}))
    damaged("results.json", "[]")
    damaged("results.json", json.dumps(results | {"metrics": results["metrics"] | {"correct1": 3}}))
