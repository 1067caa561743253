"""Finetuning on two datasets: what a run learns of the new one, and what it tells it has gained and lost."""

import json

import numpy as np
import pytest
from small_data import draw
from test_loop import assert_identical

from imagenet_jax.errors import UserError
from imagenet_jax.evaluation.exact import Predictions
from imagenet_jax.prepare.writer import Source, write_dataset
from imagenet_jax.training import adding, loop, reporting, starting
from imagenet_jax.training.run import build

pytestmark = pytest.mark.usefixtures("without_pictures")
SWAPPED = {1: 0, 3: 1}  # pictures of classes 1 and 3 under the labels of a dataset of the classes 3 and 1


def swapped(directory, classes=("n00000003", "n00000001"), **splits):
    """Pictures of the small dataset's classes 1 and 3, each called what the other is there."""
    splits = splits or {"train": (80, 5), "validation": (80, 6)}
    write_dataset(directory, Source("new", classes, classes, {
        split: (example._replace(label=SWAPPED[example.label]) for example in draw(count, 4, seed)
                if example.label in SWAPPED) for split, (count, seed) in splits.items()}))
    return str(directory)


@pytest.fixture(scope="module")
def new_dir(tmp_path_factory):
    return swapped(tmp_path_factory.mktemp("data") / "new")


@pytest.fixture
def more_config(small_config, new_dir):
    small_config.dataset.add_dir, small_config.dataset.add_share = new_dir, 0.25
    return small_config


def scores(workdir, name):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_the_new_is_learned_and_what_it_cost_is_told(small_config, new_dir, tmp_path, capsys):
    """Two classes are called what the other is in the old dataset: who learns that must forget the old names."""
    small_config.duration, small_config.evaluation.every = "60 steps", "60 steps"
    before = loop.train(small_config, str(tmp_path / "old"))["val"]
    small_config.init_from, small_config.dataset.add_dir = str(tmp_path / "old"), new_dir
    small_config.dataset.add_share = 0.875
    after = loop.train(small_config, str(tmp_path / "more"))
    val, added = (scores(tmp_path / "more", f"{split}/top1") for split in ("val", "added"))
    assert val.keys() == added.keys() == {0, 60} and after["added"]["seen"] == 40
    assert val[0] == pytest.approx(before["top1"]) and val[0] > 0.7 and added[0] < 0.3
    assert added[60] > 0.7 and val[60] < val[0]
    report, said = (tmp_path / "more/report.md").read_text(), capsys.readouterr().out
    for words in (f"added: gained, {100 * (added[60] - added[0]):+.2f} points of top-1", "val: lost, -",
                  f"from {val[0]:.2%} at the start to {val[60]:.2%} of the same 53 examples."):
        assert words in report and words in said
    assert "40 training examples, 14 of every 16: 21.0 epochs of them" in said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_that_was_interrupted_ends_the_same(more_config, tmp_path, monkeypatch):
    loop.train(more_config, str(tmp_path / "old"))
    more_config.init_from = str(tmp_path / "old")
    loop.train(more_config, str(tmp_path / "whole"))
    advance = reporting.Reporter.advance

    def fails(self, step):
        advance(self, step)
        if step == 4:
            raise RuntimeError("the power failed")

    monkeypatch.setattr(reporting.Reporter, "advance", fails)
    with pytest.raises(RuntimeError, match="power"):
        loop.train(more_config, str(tmp_path / "cut"))
    monkeypatch.setattr(reporting.Reporter, "advance", advance)
    loop.train(more_config, str(tmp_path / "cut"))
    assert_identical(tmp_path / "whole/checkpoints/6", tmp_path / "cut/checkpoints/6")
    for split in ("val", "added"):
        assert scores(tmp_path / "whole", f"{split}/loss") == scores(tmp_path / "cut", f"{split}/loss")
    told = [[line for line in (tmp_path / run / "report.md").read_text().splitlines() if "points of top-1" in line]
            for run in ("whole", "cut")]
    assert told[0] == told[1] and len(told[0]) == 2


def test_an_epoch_is_one_of_the_first_dataset(more_config, tmp_path):
    more_config.duration = "2 epochs"
    run = build(more_config, str(tmp_path))
    assert run.total_steps == 16 and run.cadence.judge == 3  # 12 of 16 are of its 96
    more_config.dataset.add_dir = ""
    assert build(more_config, str(tmp_path)).total_steps == 12


def test_other_data_and_another_share_are_refused(more_config, tmp_path):
    loop.train(more_config, str(tmp_path / "run"))
    more_config.dataset.add_dir = swapped(tmp_path / "larger", train=(96, 5), validation=(80, 6))
    with pytest.raises(UserError, match="trained on other data.*'added_examples': 40.*'added_examples': 48"):
        loop.train(more_config, str(tmp_path / "run"))
    more_config.dataset.add_share = 0.5
    with pytest.raises(UserError, match="dataset.add_share: 0.25 there, 0.5 now"):
        loop.train(more_config, str(tmp_path / "run"))


def test_what_cannot_be_added_is_told(more_config, tmp_path):
    more_config.dataset.add_dir = swapped(tmp_path / "unknown", ("zebra", "n00000001"))
    with pytest.raises(UserError, match=r"add_dir=.*no class zebra of the dataset; it has 4: n0.*For new ones|for new"):
        build(more_config, "")
    more_config.dataset.add_dir = swapped(tmp_path / "untested", train=(40, 5))
    run = build(more_config, "")
    assert run.judged.keys() == {"val"} and "has no split 'validation': what the run gains" in run.notes[0]
    assert starting.start(run).progress.evaluated == -1
    more_config.dataset.add_dir = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        build(more_config, "")


def test_no_clear_change_is_called_so(tmp_path):
    def right(count):
        guess = np.zeros((200, 1), np.int32)
        guess[count:] = 1
        return Predictions(np.arange(200), np.zeros(200, np.int32), np.zeros(200), guess, np.zeros(200))

    assert adding.gained_and_lost(str(tmp_path), {"val": right(100)}) == []
    adding.keep_start(str(tmp_path), {"val": right(100), "added": right(20)})
    told = adding.gained_and_lost(str(tmp_path), {"added": right(60), "val": right(97), "holdout": right(5)})
    assert told[0].startswith("added: gained, +20.00 points of top-1 (+14.50 to +25.50, p = 1.8e-12 by McNemar's")
    assert told[1].startswith("val: no clear change, -1.50 points") and len(told) == 2
    other = Predictions(*(value[:150] for value in right(50)))
    assert adding.gained_and_lost(str(tmp_path), {"val": other}) == []
    assert adding.gained_and_lost(str(tmp_path), {"val": right(60)})[0].startswith("val: lost, -20.00")
