"""A run from config to report: what it leaves, how it goes on, how it ends badly."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from imagenet_jax import checkpoint, trees
from imagenet_jax.cleaning import manifest
from imagenet_jax.errors import UserError
from imagenet_jax.training import loop, reporting
from imagenet_jax.training.run import build

RECIPE = """
import json
from imagenet_jax import config as config_lib
def get_config():
    return config_lib.restored(json.loads({values!r}))
"""


def state_at(path):
    """Every array of a checkpoint, by path, and its meta."""
    items, meta = checkpoint.read(str(path), checkpoint.ITEMS)
    return trees.flatten(items), meta


def assert_identical(path, other):
    (ours, meta), (theirs, other_meta) = state_at(path), state_at(other)
    assert meta["step"] == other_meta["step"] and ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.tobytes() == theirs[name].tobytes(), name


@pytest.fixture
def finished(small_config, tmp_path):
    loop.train(small_config, str(tmp_path / "run"))
    return tmp_path / "run"


def test_a_run_leaves_what_its_reader_needs(finished, small_config):
    assert {"config.json", "metrics.jsonl", "report.md", "report.html", "learning.png", "speed.png", "checkpoints",
            "evaluation"} <= {path.name for path in finished.iterdir()}
    assert list(finished.glob("events.out.tfevents*"))
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [2, 3, 4, 6]
    assert [line["step"] for line in lines if "val/top1" in line] == [3, 6]
    results = json.loads((finished / "evaluation/results.json").read_text())
    assert results["metrics"]["seen"] == 53
    assert results["metrics"]["top1"] == pytest.approx(lines[-1]["val/top1"])
    assert results["protocol"]["checkpoint"] == "checkpoints/6" and results["protocol"]["crop"] == 32
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["4", "6"]  # keep = 2
    _, meta = state_at(finished)
    assert meta["examples_seen"] == 6 * 16 and meta["config"]["global_batch"] == small_config.global_batch


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_once_it_is_under_way_nothing_is_copied_unasked(small_config, tmp_path, monkeypatch, parallel):
    """Only by device_put and device_get: what is copied on the way would hold up the steps behind it."""
    advance, seen = reporting.Reporter.advance, []

    def advanced(self, step):
        advance(self, step)
        seen.append(step)
        jax.config.update("jax_transfer_guard", "disallow")

    monkeypatch.setattr(reporting.Reporter, "advance", advanced)
    small_config.parallel = parallel
    try:
        loop.train(small_config, str(tmp_path / "run"))  # logs, evaluates and saves on its way
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    assert set(seen) == {1, 2, 3, 4, 5, 6}


def test_a_finished_run_is_not_trained_again(small_config, tmp_path, monkeypatch):
    finished, made, train_batches = tmp_path / "run", [], loop.loader.train_batches

    def counted(*args, **asked):
        for batch in train_batches(*args, **asked):
            made.append(batch)
            yield batch

    monkeypatch.setattr(loop.loader, "train_batches", counted)
    loop.train(small_config, str(finished))
    assert len(made) == 6  # and none beyond the last step
    before, _ = state_at(finished)
    loop.train(small_config, str(finished))
    assert len(made) == 6
    after, meta = state_at(finished)
    assert meta["step"] == 6 and after.keys() == before.keys()
    assert all(after[path].tobytes() == before[path].tobytes() for path in before)


def test_kill_and_terminate_change_nothing(small_config, tmp_path):
    """kill -9 at random moments and SIGTERM: the run that goes on ends bit-identical."""
    small_config.duration = "40 steps"
    small_config.model.name, small_config.model.width = "resnet18", 4
    small_config.checkpoint.every = "1 steps"
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(values=json.dumps(small_config.to_dict())))

    def launch(workdir):
        command = [sys.executable, "-m", "imagenet_jax", "train", f"--config={recipe}",
                   f"--workdir={tmp_path / workdir}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=os.environ | {"XLA_FLAGS": ""}, cwd=pathlib.Path(__file__).parents[2])

    def wait_for_step(workdir, beyond):
        """Waits until a checkpoint newer than `beyond` is complete."""
        while (checkpoint.latest_step(str(tmp_path / workdir / "checkpoints")) or 0) <= beyond:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        return checkpoint.latest_step(str(tmp_path / workdir / "checkpoints"))

    process = launch("whole")
    assert process.wait() == 0, process.communicate()[0]
    rng = random.Random(0)
    for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        before = checkpoint.latest_step(str(tmp_path / "killed/checkpoints")) or 0  # saved until the last one died
        process = launch("killed")
        reached = wait_for_step("killed", before)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signum)
        output = process.communicate()[0]
        if signum == signal.SIGTERM:
            assert process.returncode == 143, output
            saved = int(re.search(r"step (\d+) is saved", output)[1])
            assert checkpoint.latest_step(str(tmp_path / "killed/checkpoints")) == saved >= reached
    process = launch("killed")
    output = process.communicate()[0]
    assert process.returncode == 0 and "Resumed from step" in output
    assert_identical(tmp_path / "whole", tmp_path / "killed")
    steps = [[json.loads(line)["step"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
             for run in ("whole", "killed")]
    assert sorted(set(steps[0])) == sorted(set(steps[1])) and steps[1] == sorted(steps[1])


def test_a_loss_that_is_not_finite_stops_the_run(small_config, tmp_path):
    small_config.schedule.peak = 1e30
    small_config.log_every = "1 steps"
    message = r"step [1-6], or the weights after it, is not finite[\s\S]*Likely causes[\s\S]*schedule.peak=1e\+30"
    with pytest.raises(UserError, match=message):
        loop.train(small_config, str(tmp_path / "run"))
    last = checkpoint.latest_step(str(tmp_path / "run/checkpoints"))
    if last is not None:  # what was saved before is finite
        assert all(np.isfinite(value).all() for value in state_at(tmp_path / "run")[0].values())


def test_a_workdir_never_mixes_two_configs(finished, small_config):
    small_config.schedule.peak = 0.05
    with pytest.raises(UserError, match="another config:\n  schedule.peak: 0.1 there, 0.05 now"):
        loop.train(small_config, str(finished))
    small_config.schedule.peak = 0.1
    small_config.parallel = "shard_map"  # hardware may change
    small_config.max_per_device_batch = 1
    loop.train(small_config, str(finished))


def test_a_bucket_is_no_workdir(small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs://bucket/run is no folder of this machine"):
        loop.train(small_config, "gs://bucket/run")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"seed": 0', b"\xff\xfe"])
def test_a_damaged_config_is_told(small_config, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="config.json is damaged"):
        loop.train(small_config, str(tmp_path))


def test_a_checkpoint_of_another_model_is_refused_with_a_diff(finished, small_config):
    (finished / "config.json").unlink()
    small_config.model.name = "resnet18"
    with pytest.raises(UserError, match="layer1_0/.*missing in the checkpoint"):
        loop.train(small_config, str(finished))
    assert checkpoint.latest_step(str(finished / "checkpoints")) == 6


def test_other_data_under_a_run_is_refused(finished, small_config, six_classes_dir, tmp_path):
    small_config.dataset.dir = six_classes_dir
    small_config.duration = "12 steps"
    with pytest.raises(UserError):
        loop.train(small_config, str(finished))


def test_finetuning_loads_all_but_a_head_of_another_size_and_freezes(finished, small_config, six_classes_dir, tmp_path,
                                                                    capsys):
    small_config.dataset.dir = six_classes_dir
    small_config.init_from = str(finished)
    small_config.freeze = ("!^head/",)
    loop.train(small_config, str(tmp_path / "finetune"))
    output = capsys.readouterr().out
    assert "not loaded, freshly initialised: params/head/kernel, [8, 4] there, [8, 6] here" in output
    (before, _), (after, _) = state_at(finished), state_at(tmp_path / "finetune")
    frozen = [path for path in after if path.startswith(("params/", "batch_stats/")) and "/head/" not in path]
    assert len(frozen) == 10 and all(before[path].tobytes() == after[path].tobytes() for path in frozen)
    slots = [path for path in after if path.startswith("opt_state/") and after[path].ndim]
    assert slots and all("head/" in path for path in slots)


def test_early_stopping_keeps_the_best(small_config, tmp_path):
    small_config.duration = "200 steps"
    small_config.schedule.peak = 0.0  # nothing is learned: the first evaluation stays the best
    small_config.model.bn_momentum = 0.0
    small_config.dataset.holdout = 0.25
    small_config.early_stopping = "6 steps"
    loop.train(small_config, str(tmp_path / "run"))
    last, best = (state_at(tmp_path / "run" / kind)[1] for kind in ("checkpoints", "best"))
    assert last["step"] - best["step"] == 6 == last["step"] - last["progress"]["best_step"]
    assert "Stopped early" in (tmp_path / "run/report.md").read_text()


def write_manifest(path, flagged):
    header = {"dataset": "small", "splits": {"train": 96, "validation": 53}, "flags": ["grey", "leak"]}
    manifest.write(str(path), header, [{"split": split, "index": i, "flags": {flag: 1}} for split, i, flag in flagged])


def test_flagged_examples_are_left_out_and_told(small_config, tmp_path, capsys):
    write_manifest(tmp_path / "manifest.jsonl", [
        ("train", 3, "grey"), ("train", 4, "leak"), ("train", 90, "leak"), ("validation", 5, "leak")])
    small_config.dataset.exclude = str(tmp_path / "manifest.jsonl")
    run = build(small_config, "")
    assert sorted(set(range(96)) - set(run.train_part.pool)) == [3, 4, 90] and len(run.judged["val"].pool) == 53
    small_config.dataset.exclude_flags = ("leak",)
    loop.train(small_config, str(tmp_path / "run"))
    note = f"Left out 2 of 96 training examples that {tmp_path}/manifest.jsonl flags as leak."
    assert note in capsys.readouterr().out and note in (tmp_path / "run/report.md").read_text()
    write_manifest(tmp_path / "manifest.jsonl", [("train", 7, "leak")])
    small_config.duration = "12 steps"
    (tmp_path / "run/config.json").unlink()
    with pytest.raises(UserError, match="was trained on other data"):
        loop.train(small_config, str(tmp_path / "run"))
    write_manifest(tmp_path / "manifest.jsonl", [("train", i, "leak") for i in range(96)])
    with pytest.raises(UserError, match="flags every training example"):
        build(small_config, "")


def test_no_dataset_is_told(small_config, tmp_path, monkeypatch):
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    small_config.dataset.dir = ""
    with pytest.raises(UserError, match="IMAGENET_DIR"):
        loop.train(small_config, str(tmp_path / "run"))
    assert not os.path.exists(tmp_path / "run")


def test_evaluation_averages_weights_when_asked(small_config, tmp_path):
    small_config.ema_decay = 0.5
    loop.train(small_config, str(tmp_path / "run"))
    arrays, _ = state_at(tmp_path / "run")
    for path in ("params/conv0/kernel", "batch_stats/bn0/mean"):
        assert not np.array_equal(arrays[f"ema/{path}"], arrays[path])
