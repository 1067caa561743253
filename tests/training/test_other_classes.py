"""Data whose classes, splits or order are not those a run began with: joined by name, or refused."""

import json

import numpy as np
import pytest
from small_data import draw
from test_loop import state_at

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.writer import Source, write_dataset
from imagenet_jax.training import evaluating, loop

pytestmark = pytest.mark.usefixtures("without_pictures")
NAMES = tuple(f"n{i:08d}" for i in range(4))  # of the small dataset


def dataset(directory, classes, kept=NAMES, **splits):
    """The small dataset's images of the classes `kept`, under labels that `classes` has in another order or name."""
    splits = splits or {"train": (96, 0), "validation": (53, 1)}
    label = {NAMES.index(word): i for i, word in enumerate(kept)}
    write_dataset(directory, Source("small", tuple(classes), tuple(classes), {
        split: (example._replace(label=label[example.label]) for example in draw(count, 4, seed)
                if example.label in label) for split, (count, seed) in splits.items()}))
    return str(directory)


@pytest.fixture(scope="module")
def reordered(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data") / "small", NAMES[::-1], NAMES[::-1])


@pytest.fixture(scope="module")
def renamed(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data") / "small", ("apple", "bee", "cat", "dog"))


@pytest.fixture
def finished(small_config, tmp_path):
    results = loop.train(small_config, str(tmp_path / "run"))
    return tmp_path / "run", results["val"]


def test_the_same_classes_in_another_order_are_joined_by_name(finished, small_config, reordered, tmp_path, capsys):
    run, metrics = finished
    again = evaluating.evaluate_checkpoint(str(run), dataset_dir=reordered, out=str(tmp_path / "out"))
    assert again["metrics"]["correct1"] == metrics["correct1"]
    assert again["protocol"]["classes"] == "4 of the model's 4, found by name"
    small_config.dataset.dir = reordered
    with pytest.raises(UserError, match="its label 0 is 'n00000000', that of .* is 'n00000003'"):
        loop.train(small_config, str(run))
    small_config.init_from, small_config.schedule.peak = str(run), 0.0
    results = loop.train(small_config, str(tmp_path / "on"))
    assert "the same classes in another order: its head was taken over by their names" in capsys.readouterr().out
    (before, _), (after, _) = state_at(run), state_at(tmp_path / "on")
    np.testing.assert_array_equal(after["params/head/kernel"], before["params/head/kernel"][:, ::-1])
    assert results["val"]["seen"] == 53


def test_as_many_other_classes_are_never_taken_for_these(finished, small_config, renamed, tmp_path, capsys):
    run, _ = finished
    with pytest.raises(UserError, match="the model has no class apple, bee, cat, dog of the dataset"):
        evaluating.evaluate_checkpoint(str(run), dataset_dir=renamed)
    small_config.dataset.dir = renamed
    with pytest.raises(UserError, match="its label 0 is 'n00000000', that of .* is 'apple'"):
        loop.train(small_config, str(run))
    small_config.init_from = str(run)
    loop.train(small_config, str(tmp_path / "on"))
    assert "the source tells other classes apart, so nothing of its head was taken over" in capsys.readouterr().out


def test_some_of_the_classes_are_told_apart_from_each_other_alone(finished, tmp_path):
    run, _ = finished
    some = dataset(tmp_path / "some", ("n00000003", "n00000001"), ("n00000003", "n00000001"), validation=(40, 1))
    every = evaluating.evaluate_checkpoint(str(run), probabilities=True, out=str(tmp_path / "every"))
    masked = evaluating.evaluate_checkpoint(str(run), dataset_dir=some, probabilities=True, out=str(tmp_path / "out"))
    assert masked["protocol"]["classes"] == (
        "2 of the model's 4, found by name; the logits of the others do not count")
    assert (masked["metrics"]["seen"], every["metrics"]["seen"]) == (20, 53)
    kept = np.load(tmp_path / "out/probabilities.npy")
    assert kept["probabilities"].shape == (20, 2) and [row["class"] for row in masked["per_class"]] == [
        "n00000003", "n00000001"]
    np.testing.assert_allclose(kept["probabilities"].astype(np.float32).sum(axis=1), 1, atol=2e-3)
    whole = np.load(tmp_path / "every/probabilities.npy")
    whole = whole[np.isin(whole["label"], [1, 3])][:20]["probabilities"][:, [3, 1]].astype(np.float32)
    np.testing.assert_allclose(kept["probabilities"], whole / whole.sum(axis=1, keepdims=True), atol=3e-3)


def test_numbered_folders_are_labels_of_the_model(finished, tmp_path, capsys):
    run, metrics = finished
    numbered = dataset(tmp_path / "numbered", "0123")
    again = evaluating.evaluate_checkpoint(str(run), dataset_dir=numbered, out=str(tmp_path / "out"))
    assert again["metrics"]["correct1"] == metrics["correct1"] and "found by number" in again["protocol"]["classes"]
    assert "are numbers, taken for labels of the model: 0 for n00000000" in capsys.readouterr().err
    assert again["per_class"][2]["class"] == "n00000002"


def test_data_without_a_split_to_evaluate(small_config, tmp_path):
    small_config.dataset.dir = dataset(tmp_path / "alone", NAMES, train=(64, 0))
    with pytest.raises(UserError, match="no split 'validation' to evaluate on; it has 'train'. Without any, set"):
        loop.train(small_config, str(tmp_path / "run"))
    small_config.dataset.eval_split = ""
    assert loop.train(small_config, str(tmp_path / "run")) == {}
    assert "Nothing was evaluated" in (tmp_path / "run/report.md").read_text()
    with pytest.raises(UserError, match="the run kept no holdout.* or name the --split to evaluate on, train"):
        evaluating.evaluate_checkpoint(str(tmp_path / "run"))
    small_config.dataset.holdout = 0.25
    results = loop.train(small_config, str(tmp_path / "held"))
    written = json.loads((tmp_path / "held/evaluation/results.json").read_text())
    assert results.keys() == {"holdout"} and written["protocol"]["split"] == "holdout"
    assert written["metrics"]["seen"] == 16
    again = evaluating.evaluate_checkpoint(str(tmp_path / "held"), out=str(tmp_path / "out"))
    assert again["metrics"]["correct1"] == results["holdout"]["correct1"]
    small_config.dataset.holdout = 1e-9
    with pytest.raises(UserError, match="dataset.holdout=1e-09 of 64 examples leaves 0 to judge by"):
        loop.train(small_config, str(tmp_path / "none"))
