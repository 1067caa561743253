"""Which images are the same: exactly, by their digests, or nearly, by perceptual hashes and a second look.

Groups are given as `first` int64 [n]: the lowest index of the group that each image is in, its own if it is alone.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DISTANCE = 3  # differing bits of 64, up to which every pair is found
REACH = 8  # and up to which those are that share one of the four bands; the second look keeps them honest
_BANDS = DISTANCE + 1
_LARGE = 1024  # a bucket with more is divided by the bits that its members do not share
_CHUNK = 2**18  # candidate pairs looked at together, and pairs remembered before they are joined


def exact_groups(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Groups of equal digests.

    Args:
        digests: uint64 [n, 4].
        among: bool [n], whose digests count; the others stay alone.
    """
    first = np.arange(len(digests))
    members = np.flatnonzero(among)
    order = members[np.lexsort((members, *digests[members].T))]
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    start = np.maximum.accumulate(np.where(np.r_[False, same], 0, np.arange(len(order))))
    first[order] = order[start]
    return first


def near_groups(hashes: np.ndarray, among: np.ndarray,
                alike: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Groups of images linked by pairs with near hashes (see near_pairs) that are alike at a second look.

    A group may hold two images that are less alike than that, where others lead from one to the other.

    Args:
        hashes: uint64 [n].
        among: bool [n], which images take part.
        alike: (index [m], index [m]) -> bool [m], the second look at m pairs.
    """
    members = np.flatnonzero(among)
    first, pairs, count = np.arange(len(hashes)), [], 0
    for left, right in near_pairs(hashes[members]):
        left, right = members[left], members[right]
        unknown = first[left] != first[right]
        left, right = left[unknown], right[unknown]
        found = alike(left, right)
        pairs.append(np.stack([left[found], right[found]]))
        count += found.sum()
        if count > _CHUNK:
            first, pairs, count = join(first, np.concatenate(pairs, axis=1)), [], 0
    return join(first, np.concatenate(pairs, axis=1)) if pairs else first


def near_pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of uint64 hashes [n] that differs in at most DISTANCE bits, and some that differ in up to REACH; once.

    Of four bands of 16 bits a pair that differs in three bits shares one: only within a bucket of equal bands need
    hashes be compared, and within a large one the same holds for the 48 bits left, then for 36.

    Yields:
        (index, index), each [m] with m at most _CHUNK, and the first below the second.
    """
    hashes = np.ascontiguousarray(hashes, np.uint64)
    for low, high in _sharing_a_band(hashes, np.arange(len(hashes)), np.arange(64), ()):
        near = np.bitwise_count(hashes[low] ^ hashes[high]) <= REACH
        low, high = low[near], high[near]
        yield np.minimum(low, high), np.maximum(low, high)


def join(first: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The groups that arise from the groups `first` [n] by linking pairs [2, m]."""
    n = len(first)
    left, right = np.concatenate([np.stack([first, np.arange(n)]), pairs], axis=1)
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]


def look_again(thumbs: np.ndarray, contrast: np.ndarray, least: float) -> Callable[..., np.ndarray]:
    """The second look: how much of two thumbnails is the same picture.

    Args:
        thumbs: uint8 [n, S, S, 3].
        contrast: float32 [n], standard deviation of each image's luminance.
        least: correlation of the thumbnails, over all pixels and channels, from which on they are alike.
    """

    def alike(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        out = np.empty(len(left), bool)
        for start in range(0, len(left), 2**13):
            part = slice(start, start + 2**13)
            a, b = (thumbs[side[part]].reshape(len(side[part]), -1).astype(np.float32) for side in (left, right))
            a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
            scale = np.sqrt((a * a).sum(1) * (b * b).sum(1))
            tone = contrast[left[part]] / np.maximum(contrast[right[part]], 1e-6)
            out[part] = ((a * b).sum(1) >= least * scale) & (tone > 0.5) & (tone < 2)
        return out

    return alike


def _sharing_a_band(hashes: np.ndarray, members: np.ndarray, bits: np.ndarray,
                    differ: tuple[np.uint64, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of members that share one of the four bands that these bits of their hashes are cut into.

    Args:
        differ: masks in which a pair must not be equal, as it has come before if it is.
    """
    for band in np.array_split(bits, _BANDS):
        mask = np.bitwise_or.reduce(np.uint64(1) << band.astype(np.uint64))
        key = hashes[members] & mask
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], members[order]
        starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        sizes = np.diff(np.r_[starts, len(key)])
        large = (sizes > _LARGE) & (len(bits) > 36)
        few = np.repeat(~large, sizes)
        for low, high in _within_buckets(key[few], ordered[few]):
            distinct = hashes[low] ^ hashes[high]
            new = np.all([distinct & other for other in differ], axis=0) if differ else slice(None)
            yield low[new], high[new]
        for start, size in zip(starts[large], sizes[large], strict=True):
            rest = np.setdiff1d(bits, band)
            yield from _sharing_a_band(hashes, ordered[start : start + size], rest, differ)
        differ = (*differ, mask)


def _within_buckets(key: np.ndarray, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of members with equal keys, which are sorted: each with the next, then with the next but one, ..."""
    here, step = np.arange(len(key)), 1
    while len(here):
        here = here[here + step < len(key)]
        here = here[key[here] == key[here + step]]
        for start in range(0, len(here), _CHUNK):
            part = here[start : start + _CHUNK]
            yield members[part], members[part + step]
        step += 1
