"""The dataset on disk: ArrayRecord shards that TFDS opens, written once and read by index.

A dataset directory holds

    NAME-SPLIT.array_record-00000 ...        serialized tf.train.Example, one record a group
    dataset_info.json features.json label.labels.txt      TFDS's own files (builder_from_directory)
    imagenet_jax.json                        what this package reads: format, classes, shard lengths
    quarantine.jsonl repairs.jsonl           {"split", "file_name", "reason"}, one image a line

A record has the features of TFDS's imagenet2012 plus boxes: `image` (a whole JPEG of one or three
channels), `label` (int64), `file_name` (bytes) and `boxes` (floats, [M, 4] flattened).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import json
import os
from pathlib import Path
import re
import shutil
import sys
import time
from typing import NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from imagenet_jax.errors import UserError

FORMAT = 1
# 560 shards for ImageNet: below the usual limit of 1,024 open files when all are open.
SHARD_BYTES = 256 * 2**20
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
_LOG_SECONDS = 30.0


class Example(NamedTuple):
    """One labelled image.

    image: the encoded file. label: index into the dataset's classes.
    boxes: float32 [M, 4], (ymin, xmin, ymax, xmax) as shares of height and width.
    """

    image: bytes
    label: int
    file_name: str
    boxes: np.ndarray = np.zeros((0, 4), np.float32)


class Checked(NamedTuple):
    """What became of one example: kept (no reason), repaired (both) or refused (no example)."""

    example: Example | None
    reason: str = ""


class Source(NamedTuple):
    """Where examples come from. splits are written in the order given; totals only serve the bar.

    classes: names that sort into label order. class_names: the same for people.
    """

    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Iterable[Example]]
    totals: Mapping[str, int] = {}
    origin: str = ""


class Written(NamedTuple):
    """What one split came to; bytes are of serialized records, seconds of wall time."""

    shard_lengths: tuple[int, ...]
    classes: int
    boxes: int
    dropped_boxes: int
    repaired: int
    quarantined: int
    bytes: int
    seconds: float

    @property
    def examples(self) -> int:
        return sum(self.shard_lengths)


class Dataset(NamedTuple):
    """A prepared dataset. splits: number of examples of each."""

    directory: str
    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: dict[str, int]


class Records:
    """The records of one split, read by index. Safe to read from many threads."""

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._source = ArrayRecordDataSource(
            [f"{path}[0:{length}]" for path, length in zip(paths, lengths, strict=True)]
        )

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """Returns the serialized tf.train.Example at each index, in the order asked for."""
        return list(self._source.__getitems__(indices))


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Opens a prepared dataset without touching its shards.

    Raises:
        UserError: the directory is missing, is no prepared dataset, or is of a newer format.
    """
    index = _read_index(Path(directory))
    return Dataset(
        directory=os.fspath(directory),
        name=index["name"],
        classes=tuple(index["classes"]),
        class_names=tuple(index["class_names"]),
        splits={split: entry["examples"] for split, entry in index["splits"].items()},
    )


def open_split(dataset: Dataset, split: str) -> Records:
    """Opens the records of one split.

    Raises:
        UserError: there is no such split, or one of its shards is missing.
    """
    if split not in dataset.splits:
        known = ", ".join(f"'{name}'" for name in dataset.splits)
        raise UserError(f"{dataset.directory} has no split '{split}'; it has {known}.")
    directory = Path(dataset.directory)
    lengths = _read_index(directory)["splits"][split]["shard_lengths"]
    paths = [directory / _shard_name(dataset.name, split, i) for i in range(len(lengths))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{directory}: {len(missing)} of {len(paths)} shards of '{split}' are missing, the "
            f"first is {missing[0]}. Copy the dataset again, whole, or prepare it anew."
        )
    return Records([os.fspath(path) for path in paths], lengths)


def write_dataset(
    directory: str | os.PathLike[str],
    source: Source,
    check: Callable[[Example], Checked] = Checked,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Written]:
    """Writes a dataset, all or nothing: it takes its name only when it is complete.

    Until then it lies in `DIRECTORY.incomplete`, which is removed when anything goes wrong and
    replaced by the next attempt if the process was killed.

    Args:
        directory: where the dataset will be; must be missing or empty.
        source: the examples; records keep their order.
        check: judges, and may mend, one example; a pure function, applied in order.
        shard_bytes: a shard is closed once it holds this many bytes.

    Raises:
        UserError: the place is taken, the name is unusable, the disk is full, a split has no
            readable image, or a class none to train on.
    """
    target = Path(directory)
    _refuse_taken(target)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", source.name):
        raise UserError(
            f"'{source.name}' cannot name a dataset: use a-z, 0-9 and _, a letter first (--name)."
        )
    partial = target.absolute().with_name(target.absolute().name + ".incomplete")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        written = {}
        with open(partial / "repairs.jsonl", "w") as repairs, open(
            partial / "quarantine.jsonl", "w"
        ) as quarantine:
            for split, examples in source.splits.items():
                bar = _progress(examples, split, source.totals.get(split))
                shards = _Shards(partial, source.name, split, shard_bytes)
                written[split] = _write_split(bar, source, split, check, shards, repairs, quarantine)
        _write_index(partial, source, written)
        _write_tfds_metadata(partial, source, written)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Nothing was left there; "
            "make room or choose another --out."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written
