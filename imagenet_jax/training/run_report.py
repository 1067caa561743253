"""The report of a run that has ended: results, curves, where its time went, config, versions."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
from matplotlib.figure import Figure

from imagenet_jax import markdown
from imagenet_jax.training import curves
from imagenet_jax.training.reporting import read_metrics

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "clu", "numpy", "tensorflow-cpu",
             "tensorflow-datasets", "array_record", "scikit-learn")


def write_report(
    workdir: str,
    *,
    results: Mapping[str, Mapping[str, float]],
    summary: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> str:
    """Writes `workdir`/report.md, report.html and their pictures from metrics.jsonl and config.json.

    Args:
        workdir: of a run that has ended.
        results: the final metrics by split; a split has any of `top1`, `top5`, `loss`, `seen`.
        summary: `Reporter.summary()`.
        notes: sentences for the top of the report (where the weights came from, which checkpoint was best, why the run
            stopped early).

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
        f"# {markdown.plain(os.path.basename(os.path.abspath(workdir)))}",
        f"{last} steps on {where}, written {time.strftime('%Y-%m-%d %H:%M %Z')}.",
        *(["\n".join(bullets)] if notes else []),
        "## Results",
        markdown.table(
            ("split", "top-1", "top-5", "loss", "examples"),
            [(split, *_cells(scores)) for split, scores in results.items()],
        ) if results else "Nothing was evaluated: the run has neither an evaluation split nor a holdout.",
        "![loss and top-1 by step](learning.png)",
        "![learning rate and throughput by step](speed.png)",
        "## Time",
        speed,
        markdown.table(
            ("part", "seconds", "share"),
            [(part, f"{s:.1f}", f"{s / total:.1%}") for part, s in timings.items()],
        ),
        "## Config",
        "```json\n" + json.dumps(config, indent=1) + "\n```",
        "## Versions",
        markdown.table(("package", "version"), versions(), words=2),
    ]
    path = os.path.join(workdir, "report.md")
    markdown.write(path, "\n\n".join(parts) + "\n")
    return path


def _cells(scores: Mapping[str, float]) -> list[str]:
    formats = {"top1": "{:.2%}", "top5": "{:.2%}", "loss": "{:.4f}", "seen": "{}"}
    return [form.format(scores[key]) if key in scores else "" for key, form in formats.items()]


def versions() -> list[tuple[str, str]]:
    """Python and the packages a run depends on, those that are installed."""
    rows = [("python", sys.version.split()[0])]
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            rows.append((package, metadata.version(package)))
    return rows


def _draw_learning(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Loss and top-1 of train and of whatever else was evaluated."""
    keys = {key for line in lines for key in line if key.endswith(("/loss", "/top1"))}
    splits = ["train", *sorted({key.split("/")[0] for key in keys} - {"train"})]
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), ("loss", "top1"), ("loss (nats)", "top-1 (%)"), strict=True
    ):
        for color, split in enumerate(splits):
            steps, values = curves.series(lines, f"{split}/{name}")
            values = values * (100 if name == "top1" else 1)
            if split == "train":
                curves.draw_noisy(axes, steps, values, split, f"C{color}")
            else:
                axes.plot(steps, values, "o-", color=f"C{color}", markersize=4, label=split)
        curves.finish(axes, title)
        axes.legend(frameon=False)
    figure.savefig(path)


def _draw_speed(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Learning rate, throughput, and the share of time spent waiting for input."""
    panels = {
        "train/lr": ("learning rate", 1),
        "train/img_per_s": ("training throughput (img/s)", 1),
        "train/input_wait": ("waiting for input (% of training time)", 100),
    }
    figure = Figure(figsize=(11, 3), dpi=120, layout="constrained")
    for axes, (name, (title, scale)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        steps, values = curves.series(lines, name)
        axes.plot(steps, values * scale, color="C0")
        curves.finish(axes, title)
        axes.set_ylim(bottom=0)
    figure.savefig(path)
