"""A run that is interrupted, damaged or extended: what it says, and that it ends as if nothing had been."""

import json
import os
import signal
import types

import numpy as np
import pytest
from orbax.checkpoint._src.path import gcs_utils
from test_loop import assert_identical, state_at

from imagenet_jax import checkpoint
from imagenet_jax.errors import UserError
from imagenet_jax.input.parts import Part
from imagenet_jax.training import evaluating, loop, reporting, starting

pytestmark = pytest.mark.usefixtures("without_pictures")
CLOCKS = {"train/img_per_s", "train/input_wait"}


def metrics(run):
    """The lines of metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def steps_in(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def judged_config(small_config):
    """Lines, evaluations and checkpoints that do not meet; nothing is learned, so that patience ends at step 9."""
    small_config.duration = "12 steps"
    small_config.log_every = "4 steps"
    small_config.checkpoint.every = "5 steps"
    small_config.dataset.holdout = 0.25
    small_config.schedule.peak = 0.0
    small_config.model.bn_momentum = 0.0
    small_config.early_stopping = "6 steps"
    return small_config


@pytest.fixture
def whole(judged_config, tmp_path_factory):
    """The run that nothing interrupted, made once."""
    path = tmp_path_factory.getbasetemp() / "uninterrupted"
    if not path.exists():
        loop.train(judged_config, str(path))
    return path


def signal_at_step(patch, number):
    """SIGTERM once step `number` is done."""
    advance = reporting.Reporter.advance

    def advanced(self, step):
        advance(self, step)
        if step == number:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(reporting.Reporter, "advance", advanced)


def signal_at_evaluation(patch, number):
    """SIGTERM at the first batch of the evaluation of a part that is the run's `number`th."""
    collect, calls = evaluating.exact.collect, []

    def collected(*args):
        calls.append(args)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(*args)

    patch.setattr(evaluating.exact, "collect", collected)


@pytest.mark.parametrize("places", [
    [(signal_at_step, 2), (signal_at_step, 5)], [(signal_at_step, 3)], [(signal_at_step, 9)],
    [(signal_at_evaluation, 1), (signal_at_evaluation, 2)], [(signal_at_evaluation, 6)]])
def test_interrupted_is_uninterrupted(judged_config, tmp_path, whole, places):
    for signal_at, number in places:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="143"):
            signal_at(patch, number)
            loop.train(judged_config, str(tmp_path / "cut"))
    loop.train(judged_config, str(tmp_path / "cut"))
    assert_identical(whole / "best", tmp_path / "cut/best")
    assert metrics(whole) == metrics(tmp_path / "cut")
    assert_identical(whole, tmp_path / "cut")
    results = [json.loads((run / "evaluation/results.json").read_text()) for run in (whole, tmp_path / "cut")]
    assert results[0] == results[1]


def test_a_run_that_stopped_early_is_not_trained_on(judged_config, whole):
    before = metrics(whole)
    loop.train(judged_config, str(whole))
    assert steps_in(whole / "checkpoints") == ["5", "9"] and metrics(whole) == before
    assert "Stopped early at step 9" in (whole / "report.md").read_text()


def test_milestones_are_saved_and_kept(small_config, tmp_path):
    small_config.duration = "12 steps"
    small_config.checkpoint.every = "5 steps"
    small_config.checkpoint.keep = 1
    small_config.checkpoint.milestones = "4 steps"
    loop.train(small_config, str(tmp_path / "run"))
    assert set(steps_in(tmp_path / "run/checkpoints")) == {"4", "8", "12"}


def damage(checkpoint_dir):
    for path in checkpoint_dir.rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:20])


def test_a_damaged_last_checkpoint_is_set_aside_and_trained_again(small_config, tmp_path, capsys):
    loop.train(small_config, str(tmp_path / "whole"))
    loop.train(small_config, str(tmp_path / "run"))
    damage(tmp_path / "run/checkpoints/6")
    with pytest.raises(UserError, match=r"checkpoints/6 cannot be read.*Beside it there is 4"):
        evaluating.evaluate_checkpoint(str(tmp_path / "run"))
    loop.train(small_config, str(tmp_path / "run"))
    output = capsys.readouterr().out
    assert "WARNING: the checkpoint" in output and "the run goes on from step 4 instead" in output
    assert set(steps_in(tmp_path / "run/checkpoints")) == {"4", "6", "damaged-6"}
    assert_identical(tmp_path / "whole", tmp_path / "run")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "run")


def test_damaged_checkpoints_are_never_taken_for_none(small_config, tmp_path):
    loop.train(small_config, str(tmp_path / "run"))
    for step in ("4", "6"):
        damage(tmp_path / "run/checkpoints" / step)
    with pytest.raises(UserError, match=r"checkpoints/6 cannot[\s\S]*checkpoints/4 cannot[\s\S]*No other checkpoint"):
        loop.train(small_config, str(tmp_path / "run"))
    assert steps_in(tmp_path / "run/checkpoints") == ["4", "6"]


def test_checkpoints_that_look_unfinished_are_never_taken_for_none(small_config, tmp_path, monkeypatch):
    loop.train(small_config, str(tmp_path / "run"))
    monkeypatch.setattr(gcs_utils, "is_gcs_path", lambda path: True)  # where a file says that a checkpoint is complete
    assert checkpoint.complete_steps(tmp_path / "run/checkpoints") == [4, 6]
    for step in ("4", "6"):
        (tmp_path / f"run/checkpoints/{step}/commit_success.txt").unlink()
    with pytest.raises(UserError, match="holds 4, 6, which look unfinished"):
        loop.train(small_config, str(tmp_path / "run"))


def test_a_start_that_fails_claims_nothing(small_config, tmp_path):
    small_config.init_from = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere does not exist"):
        loop.train(small_config, str(tmp_path / "run"))
    small_config.init_from, small_config.optimizer.decay = "", "weight$"
    with pytest.raises(UserError, match="optimizer.decay: 'weight[$]' matches no parameter; the nearest are"):
        loop.train(small_config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_extended_run_is_one_that_was_longer_from_the_start(small_config, tmp_path, capsys):
    small_config.schedule.decay = "constant"
    loop.train(small_config, str(tmp_path / "run"))
    small_config.duration = "12 steps"
    loop.train(small_config, str(tmp_path / "whole"))
    with pytest.raises(UserError, match=r"duration: '6 steps' there, '12 steps' now[\s\S]*add --extend"):
        loop.train(small_config, str(tmp_path / "run"))
    loop.train(small_config, str(tmp_path / "run"), extend=True)
    told = "Extended at step 6 from 6 steps (6 steps) to 12 steps (12 steps). From here the learning rate is that of"
    assert told in capsys.readouterr().out
    assert_identical(tmp_path / "whole", tmp_path / "run")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "run")
    stored = [json.loads((tmp_path / "run" / name).read_text()) for name in ("config.until_6.json", "config.json")]
    assert [config["duration"] for config in stored] == ["6 steps", "12 steps"]
    loop.train(small_config, str(tmp_path / "run"))  # the longer run is the workdir's now
    small_config.duration = "7 steps"
    with pytest.raises(UserError, match="has done 12 steps already, and duration='7 steps' is 7"):
        loop.train(small_config, str(tmp_path / "run"), extend=True)
    small_config.duration, small_config.seed = "20 steps", 1
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        loop.train(small_config, str(tmp_path / "run"), extend=True)


def test_a_run_older_than_some_keys_can_be_extended(small_config):
    saved = json.loads(small_config.to_json())
    del saved["stretch"], saved["augment"]["ramp"]
    run = types.SimpleNamespace(config=small_config, total_steps=12, train_part=Part(None, range(60)),
                                learning_rate=lambda step: 0.1, workdir="run")
    assert "from 6 steps (6 steps) to" in starting._extension(run, {"step": 6, "config": saved})


def test_averages_are_judged_selected_and_taken_over(small_config, tmp_path):
    small_config.ema_decay = 0.999
    small_config.evaluation.every = "6 steps"
    loop.train(small_config, str(tmp_path / "run"))
    arrays, _ = state_at(tmp_path / "run")
    again = evaluating.evaluate_checkpoint(str(tmp_path / "run"), out=str(tmp_path / "out"))
    assert again["protocol"]["evaluated"] == "averaged weights"
    small_config.init_from, small_config.ema_decay, small_config.schedule.peak = str(tmp_path / "run"), 0.0, 0.0
    small_config.model.bn_momentum = 0.999999
    loop.train(small_config, str(tmp_path / "on"))
    taken, _ = state_at(tmp_path / "on")
    for path in ("params/conv0/kernel", "params/head/bias"):
        np.testing.assert_array_equal(taken[path], arrays[f"ema/{path}"])
    np.testing.assert_allclose(taken["batch_stats/bn0/mean"], arrays["ema/batch_stats/bn0/mean"], rtol=1e-3)
