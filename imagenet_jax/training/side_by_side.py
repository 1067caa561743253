"""Several runs side by side: curves, metrics with their intervals, what their configs say, and who is better."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from imagenet_jax import config as config_lib
from imagenet_jax import markdown
from imagenet_jax.dataset.places import local_folder
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import significance, stored
from imagenet_jax.markdown import plain
from imagenet_jax.training import curves, workdirs
from imagenet_jax.training.reporting import read_metrics

_PICTURE = "compare.png"
_METHOD = (f"In brackets: the {significance.LEVEL:.0%} bootstrap interval over examples (percentile, "
           f"{significance.RESAMPLES:,} resamples, seed {significance.SEED}). It says what other examples would give, "
           "not what another seed of training would.")
_PAIRS = ("The same examples, one by one: the difference with its interval, the examples that only one of the two has "
          "right, and the p of McNemar's exact test of those, two-sided, not corrected for the number of comparisons.")


class Shown(NamedTuple):
    """A run. config and evaluated are None where the run has none; lines: of metrics.jsonl."""

    name: str
    path: str
    config: config_lib.Config | None
    lines: Sequence[Mapping[str, Any]]
    evaluated: stored.Evaluated | None


def read(paths: Sequence[str]) -> list[Shown]:
    """Opens runs, each a workdir, or a folder that `evaluate` wrote.

    Raises:
        UserError: one is neither, or has a damaged file.
    """
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _read(path: str, name: str) -> Shown:
    config, folder = workdirs.config_path(path), _evaluation(path)
    if not (os.path.exists(config) or folder):
        raise UserError(f"{path} is no run: there is neither a config.json nor an evaluation in it. Name a workdir of "
                        "`train`, or a folder that `evaluate` wrote")
    saved = workdirs.read_config(config) if os.path.exists(config) else None
    return Shown(name, path, saved and config_lib.restored(saved.to_dict()),
                 read_metrics(os.path.join(path, "metrics.jsonl")), folder and stored.read(folder))


def _evaluation(path: str) -> str | None:
    folders = (os.path.join(path, "evaluation"), path)
    return next((folder for folder in folders if os.path.exists(os.path.join(folder, "results.json"))), None)


def _names(paths: Sequence[str]) -> Sequence[str]:
    """The shortest that tell them apart: folders, paths, or numbers before those."""
    folders = [os.path.basename(os.path.abspath(path)) for path in paths]
    numbered = [f"{i}: {path}" for i, path in enumerate(paths, 1)]
    return next(names for names in (folders, paths, numbered) if len(set(names)) == len(names))


def words(runs: Sequence[Shown]) -> str:
    """The comparison as Markdown, all but its picture; the first run is what the others are tested against."""
    settings = {run.name: dict(config_lib.flat(run.config)) if run.config else {} for run in runs}
    protocols = {run.name: run.evaluated.protocol if run.evaluated else {} for run in runs}
    parts = [f"# {len(runs)} runs compared", _scores(runs), _METHOD, _missing(runs),
             f"## Against {plain(runs[0].name)}", _pairs(runs),
             "## What is different in their configs", _differences(settings),
             "## What is different in their evaluations", _differences(protocols)]
    return "\n\n".join(filter(None, parts)) + "\n"


def write(out: str, runs: Sequence[Shown], text: str) -> None:
    """Writes OUT/compare.md, compare.html and compare.png, for what `words` says of the runs."""
    folder = local_folder(out, "out")
    folder.mkdir(parents=True, exist_ok=True)
    draw(str(folder / _PICTURE), runs)
    markdown.write(folder / "compare.md", f"{text}\n## Curves\n\n![training loss and top-1 of evaluations by examples "
                   f"seen]({_PICTURE})\n")


def draw(path: str, runs: Sequence[Shown]) -> None:
    """Draws training loss and evaluations of all runs that have a config, over examples seen."""
    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    for i, run in enumerate(runs):
        if not run.config:
            continue
        color = f"C{i % 10}"
        steps, values = curves.series(run.lines, "train/loss")
        curves.draw_noisy(loss, steps * run.config.global_batch, values, run.name, color)
        for split, style in (("val", "o-"), ("holdout", "s--")):
            steps, values = curves.series(run.lines, f"{split}/top1")
            if len(steps):
                top1.plot(steps * run.config.global_batch, 100 * values, style, color=color, markersize=4,
                          label=f"{run.name}, {split}")
    for axes, title in ((loss, "training loss (nats)"), (top1, "top-1 of evaluations (%)")):
        curves.finish(axes, title, "examples seen")
        if axes.get_legend_handles_labels()[0]:
            for text in axes.legend(frameon=False, fontsize=8).get_texts():
                text.set_parse_math(False)
    figure.savefig(path)


def _scores(runs: Sequence[Shown]) -> str:
    rows = []
    for run in runs:
        found = run.evaluated
        if not found:
            rows.append((plain(run.name), *["-"] * 5))
            continue
        top1, top5, loss = map(significance.interval, (found.hit1, found.hit5, found.loss))
        source = "/".join(str(found.protocol.get(key, "-")) for key in ("dataset", "split"))
        rows.append((plain(run.name), plain(source), f"{len(found.label):,}", _spread(top1, ".2%"),
                     _spread(top5, ".2%"), _spread(loss, ".4f")))
    return markdown.table(("run", "evaluated on", "examples", "top-1", "top-5", "loss"), rows, words=2)


def _spread(found: significance.Interval, form: str) -> str:
    mean, low, high = (format(value, form) for value in found)
    return f"{mean} ({low} to {high})"


def _missing(runs: Sequence[Shown]) -> str:
    return "\n".join(f"- {plain(run.name)} has no evaluation: `python -m imagenet_jax evaluate --workdir={run.path}`"
                     for run in runs if not run.evaluated)


def _pairs(runs: Sequence[Shown]) -> str:
    """The others against the first, and why one is not."""
    first, rows, notes = runs[0], [], []
    if not first.evaluated:
        return f"Nothing is tested: {plain(first.name)} has no evaluation."
    for run in runs[1:]:
        joined = stored.align(first.evaluated, run.evaluated) if run.evaluated else "it has no evaluation"
        if isinstance(joined, str):
            notes.append(f"- {plain(run.name)} is not tested: {plain(joined)}")
            continue
        found = significance.paired(*(each.evaluated.hit1[row] for each, row in zip((first, run), joined, strict=True)))
        rows.append((plain(run.name), _spread(found.difference, "+.2%"), f"{found.only_first:,}",
                     f"{found.only_second:,}", f"{found.p:.3g}"))
    header = ("run", "difference of top-1", "only the first right", "only this right", "p")
    return "\n\n".join(filter(None, [f"{_PAIRS}\n\n{markdown.table(header, rows)}" if rows else "", "\n".join(notes)]))


def _differences(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The keys in which those that have any differ, and what each has."""
    known = [each for each in settings.values() if each]
    keys = dict.fromkeys(key for each in known for key in each)
    rows = [(plain(key), *(plain(str(each.get(key, "-"))) for each in settings.values()))
            for key in keys if any(each.get(key) != known[0].get(key) for each in known)]
    if len(known) < 2:
        return "Fewer than two runs have any."
    return markdown.table(("key", *map(plain, settings)), rows, words=1 + len(settings)) if rows else "Nothing."
