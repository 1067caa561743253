"""Encoded records kept in memory, for datasets on slow or distant disks."""

import threading
from collections.abc import Sequence

import numpy as np

from imagenet_jax.dataset.records import Records


class Cached:
    """Records that keep what they read until `gigabytes` are full, and then nothing more.

    Every epoch reads every example once, in an order of its own: throwing out an old record for a new one would
    gain nothing. Safe to read from many threads.
    """

    def __init__(self, records: Records, gigabytes: float) -> None:
        self._records, self._free = records, gigabytes * 1e9
        self._kept: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The record at each index, as `Records.read`."""
        indices = [int(index) for index in indices]
        missing = [index for index in dict.fromkeys(indices) if index not in self._kept]
        fresh = dict(zip(missing, self._records.read(missing), strict=True)) if missing else {}
        if self._free > 0:
            with self._lock:
                for index, record in fresh.items():
                    if index not in self._kept and len(record) <= self._free:
                        self._kept[index] = record
                        self._free -= len(record)
        return [fresh[index] if index in fresh else self._kept[index] for index in indices]


def keep(records: Records, gigabytes: float) -> Records | Cached:
    """The records, with a cache of so many GB (10^9 bytes) where it is not 0."""
    return Cached(records, gigabytes) if gigabytes else records
