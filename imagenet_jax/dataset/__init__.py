"""Datasets on disk, opened and read by index, whether `prepare` wrote them or `tfds build`."""

import os

from imagenet_jax.dataset import prepared, tfds_build
from imagenet_jax.dataset.records import Dataset, RecordError, Records, features
from imagenet_jax.dataset.wire import Row, row
from imagenet_jax.errors import UserError

__all__ = ["Dataset", "RecordError", "Records", "Row", "features", "is_dataset", "open_dataset", "open_split", "row"]


def is_dataset(directory: str | os.PathLike[str]) -> bool:
    """Whether there is a dataset, as `prepare` or `tfds build` wrote it."""
    return tfds_build.is_build(directory) or prepared.is_prepared(directory)


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Opens the description of a dataset without touching its shards.

    Raises:
        UserError: the directory is missing, is no dataset of images with class labels, or is of a newer format.
    """
    return (tfds_build if tfds_build.is_build(directory) else prepared).open_dataset(directory)


def open_split(dataset: Dataset, split: str) -> Records | tfds_build.TFRecords:
    """Opens the records of one split.

    Raises:
        UserError: there is no such split, or one of its shards is missing.
    """
    if split not in dataset.splits:
        known = ", ".join(f"'{name}'" for name in dataset.splits)
        raise UserError(f"{dataset.directory} has no split '{split}'; it has {known}.")
    return (tfds_build if tfds_build.is_build(dataset.directory) else prepared).open_split(dataset, split)
