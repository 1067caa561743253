"""Whether a dataset is what was written: every record is read, which compares it with its checksum."""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from imagenet_jax import dataset as dataset_lib
from imagenet_jax.errors import UserError

_READ_AT_ONCE = 64  # records in memory at a time


def damages(directory: str) -> Iterator[tuple[str, int, list[str]]]:
    """Reads all splits of a dataset under a progress bar.

    Yields:
        For each split its name, the number of its examples, and what is wrong with it: one line a damaged range, or
        that shards are missing.

    Raises:
        UserError: no dataset there.
    """
    dataset = dataset_lib.open_dataset(directory)
    with tqdm(total=sum(dataset.splits.values()), desc="check", unit=" images", unit_scale=True, disable=None) as bar:
        for split, count in dataset.splits.items():
            yield split, count, list(_damages(dataset, split, bar))


def _damages(dataset: dataset_lib.Dataset, split: str, bar: tqdm) -> Iterator[str]:
    try:
        records = dataset_lib.open_split(dataset, split)
    except UserError as error:
        yield str(error)
        return
    for start in range(0, len(records), _READ_AT_ONCE):
        stop = min(start + _READ_AT_ONCE, len(records))
        try:
            for record in records.read(np.arange(start, stop)):
                dataset_lib.features(record)["image"]
        except UserError as error:
            yield f"examples {start:,} to {stop - 1:,}: {error}"
        bar.update(stop - start)
