"""An evaluation as it lies on disk, read again, and joined with another of the same examples."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv

from imagenet_jax.errors import UserError

_IDENTITY = ("dataset", "variant", "split", "holdout", "fold")  # keys of a protocol that say which examples
_COLUMNS = {"index": pa.int64(), "file_name": pa.string(), "label": pa.int64(), "predicted": pa.int64(),
            "loss": pa.float64(), "top5": pa.string()}


class Evaluated(NamedTuple):
    """What `report.write_evaluation` left, of N examples.

    metrics, protocol: of results.json. index, label: int64 [N]. file_name: str [N]. hit1, hit5: bool [N], whether the
    label is the best, or one of the five best. loss: float64 [N], nats; exp(-loss) is the label's probability.
    """

    metrics: Mapping[str, Any]
    protocol: Mapping[str, Any]
    index: np.ndarray
    file_name: np.ndarray
    label: np.ndarray
    hit1: np.ndarray
    hit5: np.ndarray
    loss: np.ndarray


def read(folder: str) -> Evaluated:
    """Reads results.json and predictions.csv of a folder.

    Raises:
        UserError: one of them is missing or damaged, or they are not of one evaluation.
    """
    try:
        with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
            results = json.load(file)
        metrics, protocol = dict(results["metrics"]), dict(results["protocol"])
        options = csv.ConvertOptions(include_columns=[*_COLUMNS], column_types=_COLUMNS)
        table = csv.read_csv(os.path.join(folder, "predictions.csv"), convert_options=options)
        label, predicted, index, loss = (table[name].to_numpy() for name in ("label", "predicted", "index", "loss"))
        best = np.array(" ".join(table["top5"].to_pylist()).split(), np.int64).reshape(len(label), -1)
        found = Evaluated(metrics, protocol, index, np.array(table["file_name"].to_pylist(), str), label,
                          predicted == label, (best == label[:, None]).any(axis=1), loss)
        told = [metrics[key] for key in ("seen", "correct1", "correct5")]
        if told != [len(label), found.hit1.sum(), found.hit5.sum()]:
            raise ValueError("predictions.csv has not the examples that results.json counts")
    except (OSError, ValueError, KeyError, TypeError) as error:  # PyArrow's errors are of these, too
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"the evaluation in {folder} cannot be read: {reason}. Run `evaluate` again.") from error
    return found


def align(first: Evaluated, second: Evaluated) -> tuple[np.ndarray, np.ndarray] | str:
    """Which rows of the two are the same examples, int64 [N] each; or why they are not of the same.

    An example is known by its file name, or by its index where names are missing or not all different.
    """
    for key in _IDENTITY:
        here, there = second.protocol.get(key), first.protocol.get(key)
        if here != there:
            return f"it was evaluated on another {key}: {here}, not {there}"
    named = all(len(np.unique(each.file_name)) == len(each.file_name) for each in (first, second))
    keys = [each.file_name if named else each.index for each in (first, second)]
    rows = [np.argsort(key, kind="stable") for key in keys]
    if not np.array_equal(keys[0][rows[0]], keys[1][rows[1]]):
        return f"it was evaluated on other examples ({len(keys[1]):,} here, {len(keys[0]):,} there)"
    for what in ("label", "file_name"):
        one, other = (getattr(each, what)[row] for each, row in zip((first, second), rows, strict=True))
        if different := int((one != other).sum()):
            return f"{different:,} of its examples have another {what.replace('_', ' ')}"
    return rows[0], rows[1]
