"""What a person sees of a run: progress while it lasts, metrics on disk, and a report at its end."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, Self

import jax
import numpy as np
from clu import metric_writers
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "clu", "numpy")
_PACKAGES += ("tensorflow-cpu", "tensorflow-datasets", "array_record", "scikit-learn")
_OUTSIDE_TRAINING = ("compile", "evaluation", "checkpoint")


class JsonLinesWriter(metric_writers.LoggingWriter):
    """Appends scalars to a file, one JSON object a line; what JSON cannot hold goes to the log.

    Lines past `start_step`, written by a run that died after its last checkpoint, are dropped
    first, and so is a last line that was cut short. A value that is not finite is written as null.
    """

    def __init__(self, path: str, start_step: int) -> None:
        super().__init__()
        kept = [line for line in read_metrics(path) if line["step"] <= start_step > 0]
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        os.replace(path + ".tmp", path)
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
    """The whole lines of a metrics.jsonl, in order; none if there is no such file."""
    lines = []
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        for text in file:
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
    return lines


class Reporter:
    """Times a training loop and tells about it; on hosts other than the first it only times.

    Use as a context manager. A window is the training between two calls of `train`; compiling,
    evaluating and saving inside `timed` are not part of it. Steps run asynchronously, so the loop
    waits for the step's metrics before it calls `train` or enters a `timed` part other than
    'input'; the time a window spent neither waiting for input nor in such a part is 'step'.
    """

    def __init__(
        self,
        workdir: str,
        *,
        total_steps: int,
        start_step: int,
        global_batch: int,
        seconds_between_lines: float = 20.0,
    ) -> None:
        """Opens the writers of `workdir`; `start_step` is the step resumed from, or 0.

        `seconds_between_lines` is how often, at most, a log file gets a line of progress.
        """
        self.timings = dict.fromkeys(("compile", "input", "step", "evaluation", "checkpoint"), 0.0)
        self._start_step, self._total_steps = start_step, total_steps
        self._global_batch = global_batch
        self._seconds_between_lines = seconds_between_lines
        self._last_line = -math.inf
        self._windows = np.zeros(3)  # steps, seconds, seconds of them spent waiting for input
        self._open_window(start_step)
        self._since = self._window
        self._visible = jax.process_index() == 0
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
            metrics = JsonLinesWriter(os.path.join(workdir, "metrics.jsonl"), start_step)
            events = metric_writers.SummaryWriter(workdir)
            self._writer = metric_writers.MultiWriter([metrics, events])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        self._writer.flush()
        self._writer.close()

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds spent inside to `timings[part]`.

        'compile' is for the first step, awaited; training is timed from its end.
        """
        if part == "compile":
            self._bar.set_description_str("compiling")
        begun = time.monotonic()
        try:
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

        Writes `values` (`loss`, `top1`, `lr`, ...) under `train/`, with `img_per_s` and
        `input_wait`, the share (0..1) of the window spent waiting for input. Call it after the
        last step too.
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
        self._writer.write_scalars(step, {f"train/{name}": v for name, v in values.items()})
        progress = self._progress(step, values)
        self.advance(step)
        self._bar.set_description_str(progress)
        due = now - self._last_line >= self._seconds_between_lines or step >= self._total_steps
        if self._bar.disable and due:
            self._last_line = now
            self.say(f"step {step}/{self._total_steps} ({step / self._total_steps:.0%}) {progress}")

    def scores(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes the metrics of `split` under `SPLIT/` and says them."""
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


def write_report(
    workdir: str,
    *,
    results: Mapping[str, Mapping[str, float]],
    summary: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> str:
    """Writes `workdir`/report.md and its pictures from metrics.jsonl and config.json.

    Args:
        workdir: of a run that has ended.
        results: the final metrics by split; a split has any of `top1`, `top5`, `loss`, `seen`.
        summary: `Reporter.summary()`.
        notes: sentences for the top of the report (where the weights came from, which checkpoint
            was best, why the run stopped early).

    Returns:
        The path of the report.
    """
    lines = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    with open(os.path.join(workdir, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    _draw_learning(os.path.join(workdir, "learning.png"), lines)
    _draw_speed(os.path.join(workdir, "speed.png"), lines)
    last = max((line["step"] for line in lines), default=0)
    timings = summary["timings"]
    total = max(sum(timings.values()), 1e-9)
    devices = jax.devices()
    kind = f"{devices[0].device_kind} ({devices[0].platform})"
    where = f"{len(devices)} x {kind}, {jax.process_count()} host(s)"
    speed = (
        f"From step {summary['start_step']} on, training ran at {summary['img_per_s']:.1f} img/s "
        f"and waited for input {summary['input_wait']:.1%} of its time; compiling, evaluating and "
        "saving are not counted in."
    )
    bullets = ["- " + note.replace("\n", "\n  ") for note in notes]
    parts = [
        f"# {os.path.basename(os.path.abspath(workdir))}",
        f"{last} steps on {where}, written {time.strftime('%Y-%m-%d %H:%M %Z')}.",
        *(["\n".join(bullets)] if notes else []),
        "## Results",
        _table(
            ("split", "top-1", "top-5", "loss", "examples"),
            [(split, *_cells(scores)) for split, scores in results.items()],
        ),
        "![loss and top-1 by step](learning.png)",
        "![learning rate and throughput by step](speed.png)",
        "## Time",
        speed,
        _table(
            ("part", "seconds", "share"),
            [(part, f"{s:.1f}", f"{s / total:.1%}") for part, s in timings.items()],
        ),
        "## Config",
        "```json\n" + json.dumps(config, indent=1) + "\n```",
        "## Versions",
        _table(("package", "version"), versions()),
    ]
    path = os.path.join(workdir, "report.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n\n".join(parts) + "\n")
    return path


def _cells(scores: Mapping[str, float]) -> list[str]:
    formats = {"top1": "{:.2%}", "top5": "{:.2%}", "loss": "{:.4f}", "seen": "{}"}
    return [form.format(scores[key]) if key in scores else "" for key, form in formats.items()]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, padded so that it also reads well in a terminal."""
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    text = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def versions() -> list[tuple[str, str]]:
    """Python and the packages a run depends on, those that are installed."""
    rows = [("python", sys.version.split()[0])]
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            rows.append((package, metadata.version(package)))
    return rows


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


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values (nan where they were not finite) of one metric."""
    points = [(line["step"], line[name]) for line in lines if name in line]
    array = np.array(points, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _draw_learning(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Loss and top-1 of train and of whatever else was evaluated."""
    keys = {key for line in lines for key in line if key.endswith(("/loss", "/top1"))}
    splits = ["train", *sorted({key.split("/")[0] for key in keys} - {"train"})]
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), ("loss", "top1"), ("loss (nats)", "top-1 (%)"), strict=True
    ):
        for color, split in enumerate(splits):
            steps, values = _series(lines, f"{split}/{name}")
            _draw_curve(axes, steps, values * (100 if name == "top1" else 1), split, f"C{color}")
        _finish(axes, title)
        axes.legend(frameon=False)
    figure.savefig(path)


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, split: str, color: str) -> None:
    """Evaluations as marked points; the noisy train curve faint, its running mean over it."""
    if split != "train":
        axes.plot(steps, values, "o-", color=color, markersize=4, label=split)
        return
    width = max(1, len(values) // 25)
    axes.plot(steps, values, color=color, alpha=0.3 if width > 1 else 1.0, linewidth=1)
    if width > 1:
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color=color)
    axes.plot([], [], color=color, label=split)


def _draw_speed(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Learning rate, throughput, and the share of time spent waiting for input."""
    panels = {
        "train/lr": ("learning rate", 1),
        "train/img_per_s": ("training throughput (img/s)", 1),
        "train/input_wait": ("waiting for input (% of training time)", 100),
    }
    figure = Figure(figsize=(11, 3), dpi=120, layout="constrained")
    for axes, (name, (title, scale)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        steps, values = _series(lines, name)
        axes.plot(steps, values * scale, color="C0")
        _finish(axes, title)
        axes.set_ylim(bottom=0)
    figure.savefig(path)


def _finish(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
