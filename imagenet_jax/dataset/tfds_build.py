"""A dataset that `tfds build` wrote, read by index where it lies.

TFRecord files have no index, but every record begins with its length: walking from length to length finds all of
them without reading the images. That is done once, at the first read, with many files at a time; from then on order,
resuming, holdouts and exact evaluation are those of a prepared dataset, and the checksum of every record is verified.
What is weaker: the walk takes a request to the disk for every record whenever a process starts (minutes for ImageNet
on a spinning disk), and no image was ever checked or repaired. `prepare --tfds=DIR` converts once and for all.
"""

import concurrent.futures
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from tqdm import tqdm

from imagenet_jax.dataset.records import Dataset, RecordError, Records, described_by
from imagenet_jax.errors import UserError

_INFO = "dataset_info.json"
_LENGTH, _CHECKSUM = 8, 4  # bytes: a record is its length and the checksum of that, the record, and its checksum
_READERS = 32  # files walked at a time: the disk is waited for, not the processor


class TFRecords:
    """The records of one split, read by index. Safe to read from many threads."""

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
        self._paths, self._lengths = list(paths), list(lengths)
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._offsets: np.ndarray | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The serialized tf.train.Example at each index, in the order asked for.

        Raises:
            RecordError: one of them is damaged.
            UserError: a file is missing, or does not hold as many whole records as it should.
        """
        with self._lock:
            if self._offsets is None:
                self._offsets = self._walk_all()
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        records = []
        for shard, index in zip(shards.tolist(), indices, strict=True):
            offset, size = self._offsets[index].tolist()
            with open(self._paths[shard], "rb", buffering=0) as file:
                record, stated = (os.pread(file.fileno(), count, place)
                                  for count, place in ((size, offset), (_CHECKSUM, offset + size)))
            if _checksum(record) != stated:
                raise RecordError(f"{self._paths[shard]} is damaged: record {index - self._starts[shard]} is not what "
                                  "was written. Copy it again, or build it anew.")
            records.append(record)
        return records

    def _walk_all(self) -> np.ndarray:
        """Offset and size of every record: int64 [n, 2]."""
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            walks = pool.map(_walk, self._paths, self._lengths)
            bar = tqdm(walks, "finding the records of TFRecord files", len(self._paths), unit="file", disable=None)
            return np.concatenate(list(bar))


def is_build(directory: str | os.PathLike[str]) -> bool:
    """Whether `tfds build` wrote the directory, such as imagenet2012/5.1.0, and `prepare` did not."""
    return (Path(directory) / _INFO).is_file() and not (Path(directory) / "imagenet_jax.json").exists()


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Opens the description of the dataset without touching its records.

    Raises:
        UserError: its examples are no images with class labels.
    """
    info, directory = _info(directory), Path(directory)
    labels = directory / "label.labels.txt"
    with described_by(directory / "features.json"):
        features = json.loads((directory / "features.json").read_text())["featuresDict"]["features"]
    kinds = {name: feature.get("pythonClassName", "").rpartition(".")[2] for name, feature in features.items()}
    if kinds.get("image") != "Image" or kinds.get("label") != "ClassLabel":
        raise UserError(f"{directory} has the features {', '.join(kinds)}: an image and a class label are needed, "
                        "as TFDS's imagenet2012 has them.")
    with described_by(directory / "features.json"):
        count = int(features["label"]["classLabel"]["numClasses"])
    with described_by(labels):
        classes = tuple(labels.read_text().split("\n")[:-1] if labels.is_file() else map(str, range(count)))
        if len(classes) != count:
            raise ValueError(f"it names {len(classes)} classes, and features.json counts {count}")
    with described_by(directory / _INFO):
        splits = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
        name = info["name"]
    return Dataset(directory=str(directory), name=name, classes=classes, class_names=classes, splits=splits)


def open_split(dataset: Dataset, split: str) -> Records | TFRecords:
    """Opens the records of one split that the dataset has.

    Raises:
        UserError: files are missing, or are neither TFRecord nor ArrayRecord.
    """
    info = _info(dataset.directory)
    entry = next(entry for entry in info["splits"] if entry["name"] == split)
    kind = info.get("fileFormat", "tfrecord")
    lengths = [int(length) for length in entry["shardLengths"]]
    template = entry.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    paths = [os.path.join(dataset.directory, template.format(
        DATASET=dataset.name, SPLIT=split, FILEFORMAT=kind, SHARD_INDEX=f"{i:05d}", NUM_SHARDS=f"{len(lengths):05d}",
        SHARD_X_OF_Y=f"{i:05d}-of-{len(lengths):05d}")) for i in range(len(lengths))]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(f"{len(missing)} of {len(paths)} files of '{split}' are missing, the first is {missing[0]}.")
    if kind not in ("tfrecord", "array_record"):
        raise UserError(f"{dataset.directory} has files of the kind {kind!r}: build it as tfrecord or array_record.")
    return (TFRecords if kind == "tfrecord" else Records)(paths, lengths)


def _info(directory: str | os.PathLike[str]) -> dict[str, Any]:
    with described_by(Path(directory) / _INFO):
        return json.loads((Path(directory) / _INFO).read_text())


def _walk(path: str, count: int) -> np.ndarray:
    """Offset and size of each record of a file: int64 [count, 2]."""
    found, position = np.empty((count, 2), np.int64), 0
    with open(path, "rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        for i in range(count):
            header = os.pread(file.fileno(), _LENGTH + _CHECKSUM, position)
            if _checksum(header[:_LENGTH]) != header[_LENGTH:]:
                break
            found[i] = position + len(header), int.from_bytes(header[:_LENGTH], "little")
            position = int(found[i].sum()) + _CHECKSUM
            if position > end:
                break
        else:
            if position == end:
                return found
    raise UserError(f"{path} is damaged: it does not hold {count} whole records. Copy it again, or build it anew.")


def _checksum(data: bytes) -> bytes:
    """The masked CRC32-C of TensorFlow's lib/hash/crc32c.h, as a TFRecord file has it."""
    crc = google_crc32c.value(data)
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
