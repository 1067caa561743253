"""Metrics survive kills and resumes, times add up, and a report tells what the run did."""

import json
import math
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imagenet_jax.errors import UserError
from imagenet_jax.training import reporting, run_report


class Clock:
    """Time that passes only when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reporting.time, "monotonic", clock)
    return clock


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> str:
    return str(tmp_path)


def steps(workdir: str, key: str) -> list[int]:
    lines = reporting.read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return [line["step"] for line in lines if key in line]


def test_times_add_up_and_throughput_counts_training_alone(clock: Clock, workdir: str) -> None:
    with reporting.Reporter(workdir, total_steps=9, start_step=0, global_batch=10) as reporter:
        for step in range(1, 10):
            with reporter.timed("input"):
                clock.now += 5.0 if step == 1 else 0.25  # the first wait is of filling the pipeline
            if step == 1:
                with reporter.timed("compile"):
                    clock.now += 60
            else:
                clock.now += 0.75
            if step % 3 == 0:
                reporter.train(step, {"loss": 1.0})
            if step == 6:
                with reporter.timed("evaluation"):
                    clock.now += 7
                with reporter.timed("checkpoint"):
                    clock.now += 2
        summary = reporter.summary()
    assert summary["timings"] == {
        "compile": 60, "input": 7, "step": 6, "evaluation": 7, "checkpoint": 2,
    }  # fmt: skip
    assert summary["img_per_s"] == 10
    assert summary["input_wait"] == 0.25
    for line in reporting.read_metrics(os.path.join(workdir, "metrics.jsonl")):
        assert (line["train/img_per_s"], line["train/input_wait"]) == (10, 0.25)


def test_resume_drops_what_was_told_past_the_checkpoint(workdir: str) -> None:
    def tell(start: int, end: int) -> None:
        with reporting.Reporter(workdir, total_steps=9, start_step=start, evaluated=start, global_batch=1) as told:
            for step in range(start + 1, end + 1):
                told.train(step, {"loss": float(step + start)})
                told.scores(step, "val", {"top1": 0.5, "seen": 3})

    tell(0, 6)
    with open(os.path.join(workdir, "metrics.jsonl"), "a") as file:
        file.write('{"step": 7, "train/lo')  # killed while writing
    tell(4, 9)
    assert steps(workdir, "train/loss") == steps(workdir, "val/seen") == list(range(1, 10))
    events = EventAccumulator(workdir).Reload()
    assert {event.step for event in events.Tensors("train/loss")} >= {7, 8, 9}
    tell(0, 2)
    assert steps(workdir, "train/loss") == [1, 2]


def test_damaged_lines_of_metrics_are_passed_over_and_told(workdir: str, capsys: pytest.CaptureFixture) -> None:
    os.makedirs(workdir, exist_ok=True)
    path = os.path.join(workdir, "metrics.jsonl")
    with open(path, "wb") as file:
        file.write(b'{"step": 1, "train/loss": 2.0}\n\xff\xfe{"step"\n[3]\n{"step": "x"}\n\0\0\n')
        file.write(b'{"step": 4}\n{"step": 5')
    assert reporting.read_metrics(path) == [{"step": 1, "train/loss": 2.0}, {"step": 4}]
    assert f"warning: 4 lines of {path} are damaged" in capsys.readouterr().err


def test_events_that_cannot_be_written_are_one_message(workdir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self) -> None:
        raise RuntimeError("{{function_node Flush}} there/events.1; No space left on device\n\tFailed to flush")

    monkeypatch.setattr(reporting.metric_writers.SummaryWriter, "flush", full)
    message = f"cannot write metrics and events in {workdir}: there/events.1; No space left on device\nMake room"
    with pytest.raises(UserError, match=re.escape(message)), reporting.Reporter(
            workdir, total_steps=2, start_step=0, global_batch=1) as reporter:
        reporter.train(1, {"loss": 1.0})
        reporter.scores(1, "val", {"top1": 0.5})
    with pytest.raises(ZeroDivisionError), reporting.Reporter(workdir, total_steps=2, start_step=0, global_batch=1):
        1 / 0  # noqa: B018


def test_metrics_are_json_even_where_they_are_not_finite(workdir: str) -> None:
    path = os.path.join(workdir, "metrics.jsonl")
    writer = reporting.JsonLinesWriter(path, 0, 0)
    writer.write_scalars(1, {"a": math.nan, "b": np.float32(0.5), "c": np.int64(7), "d": math.inf})
    writer.close()
    with open(path) as file:
        assert file.read() == '{"step": 1, "a": null, "b": 0.5, "c": 7, "d": null}\n'


def test_a_log_file_gets_a_line_now_and_then_and_the_last(
    clock: Clock, workdir: str, capsys: pytest.CaptureFixture
) -> None:
    with reporting.Reporter(workdir, total_steps=100, start_step=0, global_batch=8) as reporter:
        for step in range(1, 101):
            clock.now += 1
            reporter.advance(step)
            reporter.train(step, {"loss": 1.25, "top1": 0.5})
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "\r" not in out + err and len(lines) == 6
    assert lines[1].startswith("step 21/100 (21%) loss 1.250  top-1 50.0%  8.0 img/s")
    assert lines[1].endswith("ETA 1:19")
    assert lines[-1].startswith("step 100/100 (100%)")


@pytest.mark.parametrize(("step_s", "wait_s", "told"), [(0.75, 0.25, True), (0.95, 0.05, False)])
def test_a_run_that_waits_for_input_says_so_once(clock: Clock, workdir: str, capsys: pytest.CaptureFixture,
                                                 step_s: float, wait_s: float, told: bool) -> None:
    with reporting.Reporter(workdir, total_steps=200, start_step=0, global_batch=30) as reporter:
        for step in range(1, 201):
            with reporter.timed("input"):
                clock.now += wait_s
            clock.now += step_s
            reporter.train(step, {"loss": 1.0})
            if step == reporting.WARM_UP - 1:
                assert "warning" not in capsys.readouterr().out
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == told
    if told:
        assert "25%" in warnings[0] and "benchmark input --want=40`" in warnings[0]


def test_report_of_a_run(workdir: str) -> None:
    with open(os.path.join(workdir, "config.json"), "w") as file:
        json.dump({"global_batch": 1234}, file)
    with reporting.Reporter(workdir, total_steps=60, start_step=0, global_batch=8) as reporter:
        for step in range(1, 61):
            reporter.train(step, {"loss": math.nan if step == 9 else 1.0, "top1": 0.5, "lr": 0.1})
        reporter.scores(60, "val", {"top1": 0.875, "loss": 0.5})
        summary = reporter.summary()
    path = run_report.write_report(
        workdir, results={"val": {"top1": 0.875, "seen": 24}}, summary=summary, notes=["Hm."]
    )
    with open(path) as file:
        text = file.read()
    for told in ("# " + os.path.basename(workdir), "60 steps on", "- Hm.", "87.50%", "1234", "jax"):
        assert told in text
    for picture in ("learning.png", "speed.png"):
        assert f"]({picture})" in text
        assert np.array(Image.open(os.path.join(workdir, picture))).std() > 5


def test_report_of_a_run_that_took_no_step(workdir: str) -> None:
    with open(os.path.join(workdir, "config.json"), "w") as file:
        json.dump({}, file)
    with reporting.Reporter(workdir, total_steps=5, start_step=5, global_batch=8) as reporter:
        summary = reporter.summary()
    run_report.write_report(workdir, results={}, summary=summary)
