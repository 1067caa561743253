"""The dataset on disk: ArrayRecord shards that TFDS opens, written once and read by index.

A dataset directory holds

    NAME-SPLIT.array_record-00000 ...        serialized tf.train.Example, one record a group
    dataset_info.json features.json label.labels.txt      TFDS's own files (builder_from_directory)
    imagenet_jax.json                        what this package reads: format, classes, shard lengths
    quarantine.jsonl repairs.jsonl           {"split", "file_name", "reason"}, one image a line
    report.md counts.png SPLIT_samples.jpg    the card

A record has the features of TFDS's imagenet2012 plus boxes: `image` (a JPEG, or a PNG as
it came), `label` (int64), `file_name` (bytes) and `boxes` (floats, [M, 4] flattened).
"""

import json
import os
import resource
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from imagenet_jax.errors import UserError

FORMAT = 1
INDEX = "imagenet_jax.json"
SHARD_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"


class Dataset(NamedTuple):
    """A prepared dataset. splits: number of examples of each. variant: "original", or what was done to all images."""

    directory: str
    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: dict[str, int]
    variant: str = "original"


class Records:
    """The records of one split, read by index. Safe to read from many threads."""

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        _allow_open_files(len(paths))
        self._directory = os.path.dirname(paths[0])
        self._source = ArrayRecordDataSource(
            [f"{path}[0:{length}]" for path, length in zip(paths, lengths, strict=True)]
        )

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The serialized tf.train.Example at each index, in the order asked for.

        Raises:
            UserError: a shard is damaged or cut short.
        """
        try:
            if self._directory.startswith("gs://"):  # one thread a shard hides what a bucket takes to answer
                return list(self._source.__getitems__(indices))
            return [self._source[index] for index in indices]  # a third of the processor time of the above
        except RuntimeError as error:
            raise UserError(
                f"A shard in {self._directory} is damaged: {error}. "
                "Copy the dataset again, whole, or prepare it anew."
            ) from error


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Opens a prepared dataset, or what `tfds build` wrote, without touching its shards.

    Raises:
        UserError: the directory is missing, is no prepared dataset, or is of a newer format.
    """
    if _tfds_build().is_build(directory):
        return _tfds_build().open_dataset(directory)
    index = _read_index(epath.Path(directory))
    return Dataset(
        directory=os.fspath(directory),
        name=index["name"],
        classes=tuple(index["classes"]),
        class_names=tuple(index["class_names"]),
        splits={split: entry["examples"] for split, entry in index["splits"].items()},
        variant=index.get("variant", "original"),
    )


def open_split(dataset: Dataset, split: str) -> Records:
    """Opens the records of one split.

    Raises:
        UserError: there is no such split, or one of its shards is missing.
    """
    if split not in dataset.splits:
        known = ", ".join(f"'{name}'" for name in dataset.splits)
        raise UserError(f"{dataset.directory} has no split '{split}'; it has {known}.")
    if _tfds_build().is_build(dataset.directory):
        return _tfds_build().open_split(dataset, split)
    directory = epath.Path(dataset.directory)
    lengths = _read_index(directory)["splits"][split]["shard_lengths"]
    paths = [directory / shard_name(dataset.name, split, i) for i in range(len(lengths))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{directory}: {len(missing)} of {len(paths)} shards of '{split}' are missing, the "
            f"first is {missing[0]}. Copy the dataset again, whole, or prepare it anew."
        )
    return Records([os.fspath(path) for path in paths], lengths)


def _tfds_build() -> ModuleType:
    from imagenet_jax.data import tfds_build  # which is made of the classes here

    return tfds_build


def features(record: bytes) -> Mapping[str, Any]:
    """The features of a serialized tf.train.Example by name."""
    from tensorflow_datasets.proto import tf_example_pb2  # TFDS's own copy: no TensorFlow is imported

    return tf_example_pb2.Example.FromString(record).features.feature


def shard_name(name: str, split: str, shard: int) -> str:
    """The file name of one shard, as TFDS spells SHARD_TEMPLATE."""
    return f"{name}-{split}.array_record-{shard:05d}"


def _allow_open_files(count: int) -> None:
    """All shards are open at once; ImageNet-21k has more of them than a process may open by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count + 512:
        wanted = count + 512 if hard == resource.RLIM_INFINITY else min(count + 512, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _read_index(directory: epath.Path) -> dict[str, Any]:
    path = directory / INDEX
    if not path.is_file():
        what = "is not a prepared dataset" if directory.is_dir() else "does not exist"
        raise UserError(
            f"The dataset directory {directory} {what} (no {INDEX}). Write one with "
            "`python -m imagenet_jax prepare --archives=DIR --out=DIR`."
        )
    try:
        index = json.loads(path.read_text())
        version = int(index["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Prepare the dataset again.") from error
    if version > FORMAT:
        raise UserError(
            f"{directory} has dataset format {version}; this version reads up to {FORMAT}. "
            "Update imagenet_jax, or prepare the dataset again with this version."
        )
    return index
