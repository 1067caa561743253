"""Which examples: some of a split, and perhaps those of a second dataset among them in a stated ratio."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_jax import dataset
from imagenet_jax.dataset import Records
from imagenet_jax.input import order


class Part(NamedTuple):
    """Some examples of a split.

    pool: their indices int64 [n] in the split. origin: its directory and name. labels: int32 [classes], the label that
    the model has for each class of the dataset; None where it is the same. added: what else is trained on.
    """

    records: Records
    pool: np.ndarray
    origin: tuple[str, str] = ("", "")
    labels: np.ndarray | None = None
    added: "Added | None" = None


class Added(NamedTuple):
    """Examples of a second dataset, `count` in every global batch; their indices lie behind those of the first."""

    part: Part
    count: int


class _Both:
    """The records of two splits, those of the second behind those of the first, read by index."""

    def __init__(self, first: Records, second: Records) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The record at each index, as `Records.read`."""
        indices = np.asarray(indices)
        second = indices >= len(self._first)
        own = np.where(second, indices - len(self._first), indices)
        found = [iter(records.read(own[which]) if which.any() else ())
                 for records, which in ((self._first, ~second), (self._second, second))]
        return [next(found[which]) for which in second.astype(int)]


def records(part: Part) -> Records | _Both:
    """All that is read of a part."""
    return _Both(part.records, part.added.part.records) if part.added else part.records


def pool(part: Part) -> np.ndarray:
    """The indices int64 [n] of all examples in these records."""
    return np.r_[part.pool, len(part.records) + part.added.part.pool] if part.added else part.pool


def epoch(part: Part, global_batch: int) -> int:
    """How many examples are shown until all of the first dataset have been: an epoch of a run."""
    added = part.added.count if part.added else 0
    return -(-len(part.pool) * global_batch // (global_batch - added))


def shown(part: Part, positions: np.ndarray, *, seed: int, global_batch: int, repeats: int) -> np.ndarray:
    """The index int64 of the example at each position of training. Each dataset has an order and epochs of its own."""
    if not part.added:
        return part.pool[order.stream(seed, len(part.pool), order.repeated(positions, global_batch, repeats))]
    count, index = part.added.count, np.empty(len(positions), np.int64)
    second, own = order.parted(positions, global_batch, count)
    for which, of, batch, start, key in ((~second, part, global_batch - count, 0, seed),
                                         (second, part.added.part, count, len(part.records), seed + order.ADDED)):
        rank = order.stream(key, len(of.pool), order.repeated(own[which], batch, repeats))
        index[which] = start + of.pool[rank]
    return index


def relabel(part: Part, index: np.ndarray, label: np.ndarray) -> None:
    """Writes the labels that the model has in the place of those of the dataset that is not the model's."""
    labels, start = (part.added.part.labels, len(part.records)) if part.added else (part.labels, 0)
    if labels is not None:
        theirs = index >= start
        label[theirs] = labels[label[theirs]]


def closed(part: Part) -> Part:
    """The part without its records, as another process can be given it."""
    return part._replace(records=None, added=part.added and part.added._replace(part=closed(part.added.part)))


def opened(part: Part) -> Part:
    """The same with its records, opened by its origin."""
    directory, split = part.origin
    return part._replace(records=dataset.open_split(dataset.open_dataset(directory), split),
                         added=part.added and part.added._replace(part=opened(part.added.part)))
