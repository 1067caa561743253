"""The probabilities of every class for every example, on disk: label errors are found with them.

probabilities.npy is one structured array of `index` (position in the split), `label` and `probabilities` (float16
[classes]), memory-mapped with numpy.load(path, mmap_mode="r"): 2.6 GB for 1.28 million examples of 1000 classes.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from imagenet_jax import durable

Keep = Callable[[Mapping[str, np.ndarray]], None]


@contextlib.contextmanager
def saving(path: str, examples: int, classes: int) -> Iterator[Keep]:
    """Yields what to call with the outputs of each batch; the file appears when all `examples` were kept."""
    dtype = np.dtype([("index", "<i8"), ("label", "<i4"), ("probabilities", "<f2", (classes,))])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with durable.partial(path) as aside:
        rows, done = np.lib.format.open_memmap(aside, mode="w+", dtype=dtype, shape=(examples,)), 0

        def keep(outputs: Mapping[str, np.ndarray]) -> None:
            nonlocal done
            real = np.flatnonzero(np.asarray(outputs["mask"]) > 0)
            for name in dtype.names:
                rows[name][done : done + len(real)] = np.asarray(outputs[name])[real]
            done += len(real)

        yield keep
        if done != examples:
            raise RuntimeError(f"kept the probabilities of {done} examples of {examples}")
        rows.flush()
