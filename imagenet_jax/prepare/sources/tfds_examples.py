"""A dataset that `tfds build` made, as a stream of examples to convert; records are read as training reads them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Example, Source

_READ_AT_ONCE = 50  # records in memory at a time


def open_tfds(directory: str, name: str) -> Source:
    """A directory such as imagenet2012/5.1.0, or the one above its versions; images are not decoded.

    Raises:
        UserError: no TFDS dataset, or one without images and class labels.
    """
    root = Path(directory)
    found = sorted(root.glob("**/dataset_info.json"))
    if len(found) != 1:
        raise UserError(f"{root} holds {len(found)} TFDS datasets (dataset_info.json): give the directory of one, "
                        "such as imagenet2012/5.1.0.")
    dataset = dataset_lib.open_dataset(found[0].parent)
    bytes_of = {split["name"]: int(split["numBytes"]) for split in json.loads(found[0].read_text())["splits"]}
    totals = {split: count for split, count in dataset.splits.items() if count and split != "test"}
    return Source(name, dataset.classes, dataset.class_names, {split: _examples(dataset, split) for split in totals},
                  totals=totals, sizes={split: bytes_of[split] for split in totals}, origin=str(found[0].parent),
                  layout="dataset of TFDS")


def _examples(dataset: dataset_lib.Dataset, split: str) -> Iterator[Example]:
    records = dataset_lib.open_split(dataset, split)
    for start in range(0, len(records), _READ_AT_ONCE):
        indices = np.arange(start, min(start + _READ_AT_ONCE, len(records)))
        for index, record in zip(indices.tolist(), records.read(indices), strict=True):
            row = dataset_lib.features(record)
            names = row["file_name"].bytes_list.value  # most builds other than ImageNet's have none
            yield Example(row["image"].bytes_list.value[0], row["label"].int64_list.value[0],
                          names[0].decode(errors="replace") if names else f"{split}_{index}")
