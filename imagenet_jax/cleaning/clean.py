"""Cleaning a dataset, as a story: measure every image, join, look for flags, write manifest and report.

Nothing is deleted or altered. Training leaves flagged examples out where dataset.exclude names the manifest.
"""

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.cleaning import flags, label_errors, manifest, measure, report
from imagenet_jax.dataset.places import local_folder
from imagenet_jax.errors import UserError

_READ_AT_ONCE = 50  # records in memory at a time


class Cleaned(NamedTuple):
    """counts: by flag, then split. covered: training examples with out-of-fold probabilities; agreement: share of
    them whose label is the likeliest class.
    """

    manifest: str
    report: str
    counts: dict[str, dict[str, int]]
    covered: int
    agreement: float


def clean(directory: str, out: str, probabilities: Sequence[str] = (),
          run: Callable[[Sequence[measure.Task]], None] = measure.run_local) -> Cleaned:
    """Writes OUT/manifest.jsonl and OUT/report.md with pictures; what is measured already is not measured again.

    Args:
        directory: of a dataset, prepared or built by `tfds build`.
        out: a folder of this machine.
        probabilities: files of `evaluate --split=holdout --probabilities`; without any, label errors are not
            looked for.
        run: measures ranges, somewhere.

    Raises:
        UserError: no such dataset, files that do not belong to it, or a measurement that failed.
    """
    local_folder(out, "out")
    try:
        return _clean(dataset_lib.open_dataset(directory), out, probabilities, run)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or out}: {error.strerror or error}. Make room or choose another "
                        "place; the same command goes on from what is measured.") from error


def _clean(dataset: dataset_lib.Dataset, out: str, probabilities: Sequence[str],
           run: Callable[[Sequence[measure.Task]], None]) -> Cleaned:
    records = {split: dataset_lib.open_split(dataset, split) for split in dataset.splits}
    tasks = measure.tasks(dataset, os.path.join(out, "measured"))
    os.makedirs(os.path.join(out, "measured"), exist_ok=True)
    rows, places = measure.places(tasks)
    if todo := measure.load(places):
        run(todo)
    if missing := measure.load({task: places[task] for task in todo}):
        raise UserError(f"{len(missing)} of {len(todo)} ranges were measured, but not into {missing[0].path}: workers "
                        "must see --out under the same path as this process")
    found, covered, agreement = find(dataset, rows, probabilities)
    counts = {flag: _count(dataset, each.rows) for flag, each in found.items()}
    names = _file_names(records, dataset, found)
    header = {"dataset": dataset.name, "splits": dataset.splits, "flags": list(found),
              "thresholds": flags.Thresholds()._asdict(), "label_errors_among": covered,
              "agreement": round(agreement, 4), "counts": counts}
    path = os.path.join(out, "manifest.jsonl")
    manifest.write(path, header, _lines(dataset, found, names))
    pictured = report.write(out, dataset, records, found, names, header)
    return Cleaned(path, pictured, counts, covered, agreement)


def find(dataset: dataset_lib.Dataset, rows: np.ndarray,
         probabilities: Sequence[str] = ()) -> tuple[dict[str, flags.Found], int, float]:
    """All flags of the measured rows [n] of all splits; how many examples have probabilities, and their agreement."""
    starts, at = measure.first_rows(dataset), flags.Thresholds()
    found = flags.of_images(rows, at) | flags.of_pairs(rows, starts, at)
    if not probabilities:
        return found, 0, 0.0
    if flags.TRAIN not in starts:
        raise UserError(f"{dataset.directory} has no split '{flags.TRAIN}' whose labels could be judged")
    start = starts[flags.TRAIN]
    labels = rows["label"][start : start + dataset.splits[flags.TRAIN]]
    opened = label_errors.open_probabilities(probabilities, labels, len(dataset.classes))
    errors = label_errors.find(opened, len(dataset.classes))
    found["label_error"] = flags.of_labels(errors, start + opened.index)
    return found, len(opened.index), errors.agreement


def _count(dataset: dataset_lib.Dataset, rows: np.ndarray) -> dict[str, int]:
    counts = Counter(measure.locate(dataset, row)[0] for row in rows.tolist())
    return {split: counts[split] for split in dataset.splits}


def _file_names(records: Mapping[str, dataset_lib.Records], dataset: dataset_lib.Dataset,
                found: Mapping[str, flags.Found]) -> dict[int, tuple[str, int]]:
    """File name and label of every row that a flag speaks of."""
    spoken = {row for each in found.values() for row in each.rows.tolist()}
    spoken |= {value["row"] for flag in flags.PAIRED if flag in found for value in found[flag].values}
    by_split = defaultdict(list)
    for row in sorted(spoken):
        by_split[measure.locate(dataset, row)[0]].append(row)
    names, starts = {}, measure.first_rows(dataset)
    for split, rows in by_split.items():
        for i in range(0, len(rows), _READ_AT_ONCE):
            part = rows[i : i + _READ_AT_ONCE]
            for row, record in zip(part, records[split].read(np.array(part) - starts[split]), strict=True):
                features = dataset_lib.features(record)
                stored = features["file_name"].bytes_list.value  # most builds of TFDS have none
                name = stored[0].decode(errors="replace") if stored else f"{split}_{row - starts[split]}"
                names[row] = name, features["label"].int64_list.value[0]
    return names


def _lines(dataset: dataset_lib.Dataset, found: Mapping[str, flags.Found],
           names: Mapping[int, tuple[str, int]]) -> Iterator[dict[str, Any]]:
    by_row = defaultdict(dict)
    for flag, each in found.items():
        for row, value in zip(each.rows.tolist(), each.values, strict=True):
            if flag in flags.PAIRED:
                split, index = measure.locate(dataset, value["row"])
                value = {"split": split, "index": index, "file_name": names[value["row"]][0],
                         "distance": value["distance"]}
            by_row[row][flag] = value
    for row in sorted(by_row):
        split, index = measure.locate(dataset, row)
        yield {"split": split, "index": index, "file_name": names[row][0], "label": names[row][1], "flags": by_row[row]}


def expand(patterns: Sequence[str]) -> list[str]:
    """The files that names and patterns with * stand for.

    Raises:
        UserError: one stands for none.
    """
    found = {pattern: sorted(glob.glob(pattern)) for pattern in patterns}
    for pattern, paths in found.items():
        if not paths:
            raise UserError(f"there is no file {pattern}")
    return [path for paths in found.values() for path in paths]
