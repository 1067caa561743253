"""The dataset that `prepare` writes: ArrayRecord shards that TFDS opens, written once and read by index.

A dataset directory holds

    NAME-SPLIT.array_record-00000 ...        serialized tf.train.Example, one record a group
    dataset_info.json features.json label.labels.txt      TFDS's own files (builder_from_directory)
    imagenet_jax.json                        what this package reads: format, classes, shard lengths
    quarantine.jsonl repairs.jsonl corrupt.jsonl    {"split", "file_name", "reason"}, one image a line
    report.md report.html counts.png SPLIT_samples.jpg corrupt.jpg      the card

A record has the features of TFDS's imagenet2012 plus boxes: `image` (a JPEG, or a PNG as it came), `label` (int64),
`file_name` (bytes) and `boxes` (floats, [M, 4] flattened).
"""

import json
import os
from typing import Any

from etils import epath

from imagenet_jax import durable
from imagenet_jax.dataset.records import Dataset, Records, described_by
from imagenet_jax.errors import UserError

FORMAT = 1
INDEX = "imagenet_jax.json"
SHARD_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"


def shard_name(name: str, split: str, shard: int) -> str:
    """The file name of one shard, as TFDS spells SHARD_TEMPLATE."""
    return f"{name}-{split}.array_record-{shard:05d}"


def is_prepared(directory: str | os.PathLike[str]) -> bool:
    """Whether `prepare` wrote the directory.

    Raises:
        UserError: it cannot be reached.
    """
    try:
        return (epath.Path(directory) / INDEX).is_file()
    except Exception as error:  # of TensorFlow or fsspec, whichever etils asks for a bucket
        reason = str(error).partition("\n")[0]
        raise UserError(f"The dataset directory {directory} cannot be reached: {reason}. A bucket of Google's (gs://) "
                        "asks for credentials, `gcloud auth application-default login`; any can be mounted as a folder "
                        "or copied to a disk, and the folder given instead.") from error


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Opens the description of the dataset.

    Raises:
        UserError: the directory cannot be reached, is missing, is no prepared dataset, or is of a newer format.
    """
    index, path = _read_index(epath.Path(directory)), epath.Path(directory) / INDEX
    with described_by(path):
        found = Dataset(
            directory=os.fspath(directory),
            name=index["name"],
            classes=tuple(index["classes"]),
            class_names=tuple(index["class_names"]),
            splits={split: entry["examples"] for split, entry in index["splits"].items()},
            variant=index.get("variant", "original"),
        )
    return found


def open_split(dataset: Dataset, split: str) -> Records:
    """Opens the records of one split that the dataset has.

    Raises:
        UserError: one of its shards is missing.
    """
    directory = epath.Path(dataset.directory)
    lengths = _read_index(directory)["splits"][split]["shard_lengths"]
    names = [shard_name(dataset.name, split, i) for i in range(len(lengths))]
    there = {path.name for path in directory.iterdir()}  # one question, where each may take long: a bucket, NFS
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(f"{directory}: {len(missing)} of {len(names)} shards of '{split}' are missing, the first is "
                        f"{missing[0]}. Copy the dataset again, whole, or prepare it anew.")
    return Records([os.fspath(directory / name) for name in names], lengths)


def _read_index(directory: epath.Path) -> dict[str, Any]:
    path = directory / INDEX
    if not is_prepared(directory):
        what = "is not a prepared dataset" if directory.is_dir() else "does not exist"
        raise UserError(f"The dataset directory {directory} {what} (no {INDEX}). Write one with "
                        "`python -m imagenet_jax prepare --archives=DIR --out=DIR`.")
    with described_by(path):
        index = json.loads(path.read_text())
        version = int(index["format"])
    if version > FORMAT:
        raise UserError(f"{directory} has dataset format {version}; this version reads up to {FORMAT}. Update "
                        "imagenet_jax, or prepare the dataset again with this version.")
    with described_by(path):
        if index.pop("seal", None) not in (None, durable.seal(index)):  # older releases wrote none
            raise ValueError("it is not what was written")
    return index
