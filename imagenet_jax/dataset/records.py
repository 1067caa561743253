"""What an opened dataset is: its description, the records of a split read by index, the features of a record."""

import contextlib
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.errors import UserError


class RecordError(UserError):
    """A record is not what was written; those beside it may be."""


class Dataset(NamedTuple):
    """A dataset on disk. splits: number of examples of each. variant: "original", or what was done to all images."""

    directory: str
    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: dict[str, int]
    variant: str = "original"


class Records:
    """The records of one split in ArrayRecord files, read by index. Safe to read from many threads."""

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        _allow_open_files(len(paths))
        self._directory = os.path.dirname(paths[0])
        self._source = ArrayRecordDataSource(
            [f"{path}[0:{length}]" for path, length in zip(paths, lengths, strict=True)])

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The serialized tf.train.Example at each index, in the order asked for.

        Raises:
            RecordError: a shard is damaged or cut short.
        """
        try:
            if self._directory.startswith("gs://"):  # one thread a shard hides what a bucket takes to answer
                records = list(self._source.__getitems__(indices))
            else:
                records = [self._source[index] for index in indices]  # a third of the processor time of the above
            if not all(records):
                raise RuntimeError("a file is cut short")  # past its end ArrayRecord reads nothing, and is content
            return records
        except RuntimeError as error:
            raise RecordError(f"A shard in {self._directory} is damaged: {error}. Copy the dataset again, whole, or "
                              "prepare it anew.") from error


@contextlib.contextmanager
def described_by(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what reading a dataset's description raises where it is damaged into one message that names its file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is damaged: {reason}. Copy the dataset again, or prepare it anew.") from error


def features(record: bytes) -> Mapping[str, Any]:
    """The features of a serialized tf.train.Example by name."""
    from tensorflow_datasets.proto import tf_example_pb2  # TFDS's own copy: no TensorFlow is imported

    return tf_example_pb2.Example.FromString(record).features.feature


def _allow_open_files(count: int) -> None:
    """All shards are open at once; ImageNet-21k has more of them than a process may open by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count + 512:
        wanted = count + 512 if hard == resource.RLIM_INFINITY else min(count + 512, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
