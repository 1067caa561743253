"""A second dataset that is trained on among the first: opened, and what the run gained and lost by it, told."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from imagenet_jax import config as config_lib
from imagenet_jax import dataset as dataset_lib
from imagenet_jax import durable
from imagenet_jax.classes import Classes, join
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact, significance
from imagenet_jax.input.parts import Added, Part

_REMEDY = "A run tells apart the classes of dataset.dir: for new ones prepare one dataset of all pictures"
_SURE = 0.05  # a difference that is more probable than this if nothing has changed is called no clear one


class Opened(NamedTuple):
    """added: what is trained on. judged: its evaluation split as 'added', if it has one. notes: for people."""

    added: Added
    judged: dict[str, Part]
    notes: tuple[str, ...]


def open_added(config: config_lib.Config, dataset: dataset_lib.Dataset) -> Opened | None:
    """Opens `dataset.add_dir`, whose classes are found by name among those of `dataset`; None where there is none.

    Raises:
        UserError: no such data, nothing in it to train on, or classes that the first dataset has not.
    """
    if not config.dataset.add_dir:
        return None
    added = dataset_lib.open_dataset(config.dataset.add_dir)
    try:
        labels = join(*(Classes(each.classes, each.class_names) for each in (added, dataset)), remedy=_REMEDY).columns
    except UserError as error:
        raise UserError(f"dataset.add_dir={config.dataset.add_dir}: {error}") from error
    train, split = config.dataset.train_split, config.dataset.eval_split
    count = round(config.global_batch * config.dataset.add_share)
    part = _part(added, train, labels)
    if not len(part.pool):
        raise UserError(f"dataset.add_dir: {added.directory} has no example in its split {train!r}")
    if split in added.splits:
        return Opened(Added(part, count), {"added": _part(added, split, labels)}, ())
    note = (f"{added.directory} has no split {split!r}: what the run gains on it is not measured. `prepare "
            "--holdout=20%` cuts one.",) if split else ()
    return Opened(Added(part, count), {}, note)


def _part(dataset: dataset_lib.Dataset, split: str, labels: np.ndarray) -> Part:
    records = dataset_lib.open_split(dataset, split)
    directory = dataset.directory if "://" in dataset.directory else os.path.abspath(dataset.directory)
    return Part(records, np.arange(len(records)), (directory, split), labels)


def keep_start(workdir: str, judged: Mapping[str, exact.Predictions]) -> None:
    """Writes which examples of each part the starting weights have right to `workdir`/start.npz."""
    with durable.create(_start(workdir), "wb") as file:
        np.savez(file, **{split: _right(predictions) for split, predictions in judged.items()})


def gained_and_lost(workdir: str, judged: Mapping[str, exact.Predictions]) -> list[str]:
    """Of each part what the run has gained or lost since its start, in words; nothing where none was kept for it."""
    if not os.path.exists(_start(workdir)):
        return []
    with np.load(_start(workdir)) as start:
        return [_change(split, start[split], _right(predictions)) for split, predictions in judged.items()
                if split in start and len(start[split]) == len(predictions.label)]


def _change(split: str, before: np.ndarray, after: np.ndarray) -> str:
    found = significance.paired(before, after)
    mean, low, high = (f"{100 * value:+.2f}" for value in found.difference)
    verdict = "no clear change" if found.p > _SURE else "gained" if found.difference.mean > 0 else "lost"
    return (f"{split}: {verdict}, {mean} points of top-1 ({low} to {high}, p = {found.p:.2g} by McNemar's test), from "
            f"{before.mean():.2%} at the start to {after.mean():.2%} of the same {len(after):,} examples.")


def _right(predictions: exact.Predictions) -> np.ndarray:
    return predictions.top5[:, 0] == predictions.label


def _start(workdir: str) -> str:
    return os.path.join(workdir, "start.npz")
