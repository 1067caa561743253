"""Which example comes when: pure functions of the seed and the position, no shuffle state.

Training reads an endless stream of indices. Position p is in epoch p // n at rank p % n; the epoch's
permutation depends on (seed, epoch) alone. Step s owns positions [s * G, (s + 1) * G) for a global batch
of G, and host h of H the h-th equal slice of them.
"""

import functools
from concurrent import futures

import numpy as np

_DRAWS_KEY = 0xA06_0000_0000_0000  # and those after it; far from any epoch, which is what orders have in its place
_PER_BLOCK = 8  # draws from one value of the Philox counter: 4 numbers of 64 bits
_HOLDOUT_KEY = 0x1A6E  # one holdout for a dataset, whatever the seed of the run
ADDED = 2**32  # on top of a seed, which is below: that of the stream of an added dataset


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """A permutation int64 [n] of 0..n-1: the ranks of raw Philox draws, the same in every NumPy version."""
    return _permutation(seed, epoch, n).result()


@functools.lru_cache(maxsize=4)  # a batch touches one epoch of each stream, or two at its border
def _permutation(seed: int, epoch: int, n: int) -> futures.Future[np.ndarray]:
    """It is drawn by a thread, which takes seconds for tens of millions of examples."""
    return _drawing().submit(_draw, seed, epoch, n)


@functools.cache
def _drawing() -> futures.Executor:
    return futures.ThreadPoolExecutor(1, "order")


def _draw(seed: int, epoch: int, n: int) -> np.ndarray:
    draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    order = np.argsort(draws, kind="stable")
    order.flags.writeable = False  # shared by the cache
    return order


def stream(seed: int, n: int, positions: np.ndarray) -> np.ndarray:
    """Index int64 of each position, for a pool of n examples.

    Once half of an epoch is over the next one is drawn, so that nobody waits for it at the border.
    """
    epochs, ranks = np.divmod(positions, n)
    out = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        out[inside] = permutation(seed, int(epoch), n)[ranks[inside]]
    if len(positions) and ranks[-1] >= n // 2:
        _permutation(seed, int(epochs[-1]) + 1, n)
    return out


def host_positions(step: int, global_batch: int, host: int, hosts: int) -> np.ndarray:
    """The positions int64 [global_batch / hosts] that a host reads for a step."""
    share = global_batch // hosts
    start = step * global_batch + host * share
    return np.arange(start, start + share)


def repeated(positions: np.ndarray, global_batch: int, repeats: int) -> np.ndarray:
    """The positions in the stream whose examples are shown at `positions`, each `repeats` times in a batch.

    Hoffer et al. 2019, augmentation of the same examples in a batch. Copies lie global_batch / repeats apart, so that
    neighbours, which mixing pairs, differ; where that is not whole, the last examples have one copy less.
    """
    steps, places = np.divmod(positions, global_batch)
    different = -(-global_batch // repeats)
    return steps * different + places % different


def parted(positions: np.ndarray, global_batch: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where examples of a second dataset are shown, `count` in every global batch, and how far each dataset is there.

    They are spread evenly over a batch: whatever shares it, devices or BatchNorm's groups, has both.

    Returns:
        Which positions show the second dataset, bool; the position of each in the stream of its own dataset, int64.
    """
    steps, places = np.divmod(positions, global_batch)
    before = places * count // global_batch  # of the second, in the batch
    second = (places + 1) * count // global_batch > before
    return second, np.where(second, steps * count + before, steps * (global_batch - count) + places - before)


def draws(seed: int, start: int, positions: int, count: int, purpose: int = 0) -> np.ndarray:
    """What augmentation draws at positions start, start + 1, ...: uniform in [0, 1), float32 [positions, count].

    A position owns a range of the Philox counter, so that its draws are the same whoever asks and from wherever.

    Args:
        purpose: draws for another one have nothing to do with these.
    """
    blocks = -(-count // _PER_BLOCK)
    philox = np.random.Philox(key=np.array([seed, _DRAWS_KEY + purpose], np.uint64), counter=start * blocks)
    raw = philox.random_raw(positions * blocks * 4)
    halves = np.stack([raw >> 40, raw >> 8 & 0xFFFFFF], axis=-1)  # 24 bits are what a float32 below 1 holds
    return (halves.reshape(positions, -1)[:, :count] * np.float32(2**-24)).astype(np.float32)


def split_holdout(n: int, fraction: float, fold: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cuts 0..n-1 into (training pool, holdout), both sorted.

    Args:
        fraction: of the examples that a holdout has; folds may differ by one example.
        fold: which of the disjoint holdouts, 0..round(1 / fraction)-1; together they are everything where
            1 / fraction is whole.
    """
    start, stop = (min(n, round(n * fraction * i)) for i in (fold, fold + 1))
    order = permutation(_HOLDOUT_KEY, 0, n)
    return np.sort(np.r_[order[:start], order[stop:]]), np.sort(order[start:stop])
