"""Likely label errors, by confident learning (Northcutt, Jiang and Chuang, JAIR 2021), pruned by noise rate.

From probabilities that a model gives to examples it was not trained on: an example counts for class j where its
probability of j is at least the mean that examples labelled j have. So it is estimated how many of those labelled k
are of class j, and that many with the largest margin p(j) - p(k) are flagged, unless k is still the likeliest.
Classes are taken one by one, so that memory holds the probabilities of one class.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from imagenet_jax.errors import UserError

Read = Callable[[np.ndarray], np.ndarray]
_TIE = 1e-6  # probabilities as close as this are equal


class Probabilities(NamedTuple):
    """Out-of-fold probabilities of n examples.

    index: int64 [n], ascending, position in the split. label: int64 [n]. read: positions [m] in these n to
    probabilities float32 [m, classes].
    """

    index: np.ndarray
    label: np.ndarray
    read: Read


class LabelErrors(NamedTuple):
    """m suspects: where in the n examples, int64 [m]; the likeliest class; the probabilities of it and of the label.

    agreement: share of the n examples whose label is the likeliest class.
    """

    position: np.ndarray
    suggested: np.ndarray
    probability: np.ndarray
    given: np.ndarray
    agreement: float


def open_probabilities(paths: Sequence[str], labels: np.ndarray, classes: int) -> Probabilities:
    """Opens what `evaluate --probabilities` wrote for several folds; files stay on disk.

    Args:
        labels: int [N], of every example of the split.

    Raises:
        UserError: a file is of another kind, number of classes, or dataset, or two cover the same example.
    """
    files = [_open(path, labels, classes) for path in paths]
    lengths = [len(file) for file in files]
    index = np.concatenate([file["index"] for file in files])
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        a, b = (paths[int(np.searchsorted(np.cumsum(lengths), i, "right"))] for i in order[twice[0] : twice[0] + 2])
        raise UserError(f"{a} and {b} both have probabilities of example {index[order][twice[0]]}: give one file of "
                        "each fold (dataset.fold=0, 1, ...), of runs with the same dataset.holdout")
    starts = np.cumsum([0, *lengths])

    def read(positions: np.ndarray) -> np.ndarray:
        rows = order[positions]
        out = np.empty((len(rows), classes), np.float32)
        for file, start in zip(files, starts, strict=False):
            here = (rows >= start) & (rows < start + len(file))
            out[here] = file["probabilities"][rows[here] - start]
        return out

    return Probabilities(index[order], labels[index[order]].astype(np.int64), read)


def find(probabilities: Probabilities, classes: int) -> LabelErrors:
    """The likely label errors among the examples, by position."""
    label, read = probabilities.label, probabilities.read
    thresholds = np.full(classes, np.inf)  # what a class has none of, nothing is confidently
    for k, members in _by_class(label):
        thresholds[k] = max(read(members)[:, k].astype(np.float64).mean(), 2 * _TIE)
    suspects, right = [], 0
    for k, members in _by_class(label):
        p = read(members)
        flagged = _prune(p, k, _noise_counts(p, k, thresholds))
        best = p.argmax(axis=1)
        right += (best == k).sum()
        rows = np.flatnonzero(flagged & (p[np.arange(len(p)), best] > p[:, k] + np.float32(_TIE)))
        suspects.append((members[rows], best[rows], p[rows, best[rows]], p[rows, k]))
    columns = [np.concatenate(column) for column in zip(*suspects, strict=True)]
    order = np.argsort(columns[0])
    return LabelErrors(*(column[order] for column in columns), agreement=float(right / len(label)))


def _by_class(label: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    order = np.argsort(label, kind="stable")
    present, starts = np.unique(label[order], return_index=True)
    yield from zip(present.tolist(), np.split(order, starts[1:]), strict=True)


def _noise_counts(p: np.ndarray, k: int, thresholds: np.ndarray) -> np.ndarray:
    """How many of the examples p [n, classes], all labelled k, are of each class: int64 [classes], at least 1 of k."""
    confident = p >= thresholds - _TIE
    several = confident.sum(axis=1) > 1
    guess = np.where(several, p.argmax(axis=1), confident.argmax(axis=1))[confident.any(axis=1)]
    counts = np.bincount(guess, minlength=p.shape[1])
    counts[k] = max(counts[k], 1)
    counts = _round_to_sum(counts / counts.sum() * len(p))
    lacking = max(1 - counts[k], 0)
    shared = counts - lacking / max(np.count_nonzero(counts) - 1, 1)
    shared[k] = counts[k] + lacking
    return np.maximum(shared, 0).astype(np.int64)


def _round_to_sum(values: np.ndarray) -> np.ndarray:
    """Rounds to integers of the same sum, against the grain where that costs least; ties as cleanlab leaves them."""
    whole = values.round().astype(np.int64)
    missing = round(values.sum()) - int(whole.sum())
    order = np.argsort(values - whole)  # unstable on purpose: another order of ties would flag other examples
    if missing > 0:
        whole[order[::-1][:missing]] += 1
    elif missing < 0:
        whole[order[:-missing]] -= 1
    return whole


def _prune(p: np.ndarray, k: int, counts: np.ndarray) -> np.ndarray:
    flagged = np.zeros(len(p), bool)
    if len(p) > 1:
        for j in np.flatnonzero(counts):
            if j != k:
                flagged[np.argsort(p[:, k] - p[:, j], kind="stable")[: counts[j]]] = True
    return flagged


def _open(path: str, labels: np.ndarray, classes: int) -> np.ndarray:
    try:
        file = np.load(path, mmap_mode="r")
        shape = file.dtype["probabilities"].shape
        index, label = file["index"], file["label"]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path} holds no probabilities ({error}); `evaluate --split=holdout --probabilities` writes "
                        "them as probabilities.npy") from error
    if shape != (classes,):
        raise UserError(f"{path} has probabilities of {shape[0]} classes, the dataset has {classes}")
    if len(index) and (index.min() < 0 or index.max() >= len(labels) or (labels[index] != label).any()):
        raise UserError(f"{path} is of another dataset: its examples have other labels there. Give probabilities of "
                        "runs that were trained on the dataset being cleaned.")
    return file
