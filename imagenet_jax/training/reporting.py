"""What a person sees of a run while it lasts: progress, and metrics on disk."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
from clu import metric_writers
from tqdm import tqdm

from imagenet_jax import durable, hosts
from imagenet_jax.errors import UserError
from imagenet_jax.hosts import watchdog

LONG_WAIT, WARM_UP = 0.1, 30.0  # share of the time spent waiting for input that is told; seconds before it is judged
_OUTSIDE_TRAINING = ("compile", "evaluation", "checkpoint")
_DOING = {"compile": ("compiling", ""), "input": ("waiting for input",), "checkpoint": ("saving", ""),
          "evaluation": ("waiting for the input of an evaluation", "batch")}  # as the watchdog has it


class JsonLinesWriter(metric_writers.LoggingWriter):
    """Appends scalars to a file, one JSON object a line; what JSON cannot hold goes to the log.

    Lines past what the last checkpoint knows of are dropped first: those of training past `start_step`, those of
    evaluations past `evaluated`, and a last line that was cut short. A value that is not finite is written as null.
    """

    def __init__(self, path: str, start_step: int, evaluated: int) -> None:
        super().__init__()
        kept = [line for line in read_metrics(path)
                if line["step"] <= (start_step if any(key.startswith("train/") for key in line) else evaluated)]
        with durable.create(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends one line, on disk when this returns; arrays of one element are numbers."""
        values = {name: np.asarray(value).item() for name, value in scalars.items()}
        values = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: str) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl, in order; none if there is no such file.

    Lines that are damaged are passed over, and counted on stderr; a last line that was cut short is none of them.
    """
    lines, damaged = parse_metrics(path)
    if damaged:
        print(f"warning: {damaged} lines of {path} are damaged and are passed over", file=sys.stderr)
    return lines


def parse_metrics(path: str) -> tuple[list[dict[str, Any]], int]:
    """The same, and how many lines are damaged."""
    lines, damaged = [], 0
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
                lines.append({"step": int(line["step"]), **line})
            except (ValueError, KeyError, TypeError):
                damaged += text.endswith("\n")
    return lines, damaged


class Reporter:
    """Times a training loop and tells about it; on hosts other than the first it only times.

    Use as a context manager. A window is the training between two calls of `train`; compiling, evaluating and saving
    inside `timed` are not part of it. Steps run asynchronously, so the loop waits for the step's metrics before it
    calls `train` or enters a `timed` part other than 'input'; the time a window spent neither waiting for input nor in
    such a part is 'step'.
    """

    def __init__(
        self,
        workdir: str,
        *,
        total_steps: int,
        start_step: int,
        evaluated: int = -1,
        global_batch: int,
        seconds_between_lines: float = 20.0,
    ) -> None:
        """Opens the writers of `workdir`; `start_step` is the step resumed from, `evaluated` the last judged, or -1.

        `seconds_between_lines` is how often, at most, a log file gets a line of progress.
        """
        self.timings = dict.fromkeys(("compile", "input", "step", "evaluation", "checkpoint"), 0.0)
        self._start_step, self._total_steps = start_step, total_steps
        self._global_batch = global_batch
        self._seconds_between_lines = seconds_between_lines
        self._last_line = -math.inf
        self._windows = np.zeros(3)  # steps, seconds, seconds of them spent waiting for input
        self._told_of_input = False
        self._open_window(start_step)
        self._since = self._window
        self._workdir, self._visible = workdir, hosts.is_first()
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            disable=not (self._visible and sys.stderr.isatty()),
            bar_format="{percentage:3.0f}%|{bar:20}| {n}/{total} {desc}",
            dynamic_ncols=True,
        )
        self._writer = metric_writers.MultiWriter([])
        if self._visible:
            os.makedirs(workdir, exist_ok=True)
            metrics = JsonLinesWriter(os.path.join(workdir, "metrics.jsonl"), start_step, evaluated)
            events = metric_writers.SummaryWriter(workdir)
            self._writer = metric_writers.MultiWriter([metrics, events])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._bar.close()
        with contextlib.suppress(Exception) if kind else self._writing():  # of two errors the first is told
            self._writer.flush()
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever the writers raise, TensorFlow's own kinds among it, into one message."""
        try:
            yield
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].split("}} ")[-1]
            raise UserError(f"cannot write metrics and events in {self._workdir}: {reason}\nMake room or permission "
                            "there and run the same command again.") from error

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds spent inside to `timings[part]`.

        'compile' is for all before the second step, the first one awaited; training is timed from its end.
        """
        if part == "compile":
            self._bar.set_description_str("compiling")
        begun = time.monotonic()
        try:
            with watchdog.doing(*_DOING[part]):
                yield
        finally:
            self.timings[part] += time.monotonic() - begun
        if part == "compile":
            self._open_window(self._start_step + 1)
            self._since = self._window

    def advance(self, step: int) -> None:
        """Moves the bar to `step` steps done; cheap enough for every step."""
        self._bar.update(step - self._bar.n)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Tells of the window that ends with `step` steps done, and opens the next.

        Writes `values` (`loss`, `top1`, `lr`, ...) under `train/`, with `img_per_s` and `input_wait`, the share (0..1)
        of the window spent waiting for input. Call it after the last step too.
        """
        (begun, first, before), now = self._window, time.monotonic()
        spent = {part: seconds - before[part] for part, seconds in self.timings.items()}
        training = max(now - begun - sum(spent[part] for part in _OUTSIDE_TRAINING), 1e-9)
        self.timings["step"] += training - spent["input"]
        self._windows += (step - first, training, spent["input"])
        values = dict(values)
        if step > first:
            values["img_per_s"] = (step - first) * self._global_batch / training
            values["input_wait"] = spent["input"] / training
        self._open_window(step)
        with self._writing():
            self._writer.write_scalars(step, {f"train/{name}": v for name, v in values.items()})
        progress = self._progress(step, values)
        self.advance(step)
        self._bar.set_description_str(progress)
        due = now - self._last_line >= self._seconds_between_lines or step >= self._total_steps
        if self._bar.disable and due:
            self._last_line = now
            self.say(f"step {step}/{self._total_steps} ({step / self._total_steps:.0%}) {progress}")
        warning = input_warning(*self._windows.tolist(), batch=self._global_batch / jax.process_count())
        if warning and not self._told_of_input:
            self._told_of_input = True
            self.say(warning)

    def scores(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes the metrics of `split` under `SPLIT/` and says them."""
        with self._writing():
            self._writer.write_scalars(step, {f"{split}/{name}": v for name, v in values.items()})
            self._writer.flush()
        self.say(f"step {step}: {split} {_in_words(values)}")

    def say(self, message: str) -> None:
        """Prints a line to stdout without tearing the bar."""
        if self._visible:
            tqdm.write(message)
            sys.stdout.flush()

    def summary(self) -> dict[str, Any]:
        """`start_step`, `timings` in seconds, and `img_per_s` and `input_wait` of all windows."""
        steps, seconds, waited = self._windows.tolist()
        return {
            "start_step": self._start_step,
            "timings": dict(self.timings),
            "img_per_s": steps * self._global_batch / max(seconds, 1e-9),
            "input_wait": waited / max(seconds, 1e-9),
        }

    def _open_window(self, step: int) -> None:
        self._window = (time.monotonic(), step, dict(self.timings))

    def _progress(self, step: int, values: Mapping[str, float]) -> str:
        """One line for a bar or a log; the time left counts evaluation and saving as well."""
        begun, first, _ = self._since
        left = (time.monotonic() - begun) / max(step - first, 1) * (self._total_steps - step)
        eta = f"  ETA {_clock(left)}" if step > first else ""
        return _in_words(values) + eta


def input_warning(steps: float, seconds: float, waited: float, *, batch: float) -> str:
    """What is said of a run that spent `waited` of its seconds waiting for input; nothing where that is little.

    Args:
        batch: examples of a step that a host makes.
    """
    if seconds < WARM_UP or waited <= LONG_WAIT * seconds:
        return ""
    rate = steps * batch / max(seconds - waited, 1e-9)
    return (f"warning: {waited / seconds:.0%} of the time goes by waiting for input; the devices of a host could take "
            f"{rate:,.0f} img/s. `python -m imagenet_jax benchmark input --want={rate:.0f}` with this --config says "
            "which stage binds, and how many cores that takes.")


def _in_words(values: Mapping[str, float]) -> str:
    forms = {
        "loss": "loss {:.3f}",
        "top1": "top-1 {:.1%}",
        "top5": "top-5 {:.1%}",
        "img_per_s": "{:.1f} img/s",
        "input_wait": "input wait {:.0%}",
    }
    return "  ".join(form.format(values[key]) for key, form in forms.items() if key in values)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
