"""Groups of duplicates: against brute force, and within bounds whatever the hashes."""

import itertools

import numpy as np
import pytest

from imagenet_jax.cleaning import duplicates


def planted_hashes(n: int, bits: int, seed: int = 0) -> np.ndarray:
    """Random hashes, two thirds of them copies of others with up to `bits` bits turned."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, np.uint64)
    for i in range(n // 3, n):
        turned = rng.choice(64, rng.integers(0, bits + 1), replace=False)
        hashes[i] = hashes[rng.integers(n // 3)] ^ np.bitwise_or.reduce(np.uint64(1) << turned.astype(np.uint64),
                                                                       initial=np.uint64(0))
    return hashes


def pairs_of(hashes: np.ndarray) -> set[tuple[int, int]]:
    pairs = np.concatenate([np.stack(pair, axis=1) for pair in duplicates.near_pairs(hashes)])
    assert len(np.unique(pairs, axis=0)) == len(pairs), "no pair comes twice"
    return set(map(tuple, pairs.tolist()))


@pytest.mark.parametrize("large", [2, 16, 1024])
@pytest.mark.parametrize("crowded", [False, True])
def test_every_pair_within_three_bits_is_found(monkeypatch, large, crowded) -> None:
    """Large buckets are divided again; crowded hashes share most of their bits, so that all buckets are large."""
    monkeypatch.setattr(duplicates, "_LARGE", large)
    hashes = planted_hashes(900, 5)
    if crowded:
        hashes &= np.uint64(0x00070_0050_0300_0071)
    distance = np.bitwise_count(hashes[:, None] ^ hashes)
    brute = lambda most: {(i, j) for i, j in np.argwhere(distance <= most).tolist() if i < j}
    assert brute(duplicates.DISTANCE) <= pairs_of(hashes) <= brute(duplicates.REACH)


def test_pairs_come_in_bounded_pieces(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK", 100)
    sizes = [len(left) for left, _ in duplicates.near_pairs(np.zeros(300, np.uint64))]
    assert max(sizes) <= 100 and sum(sizes) == 300 * 299 // 2


def test_groups_are_the_connected_ones_that_pass_the_second_look(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK", 50)  # joined again and again on the way
    hashes, rng = planted_hashes(600, 4), np.random.default_rng(1)
    kind, among = rng.integers(0, 2, 600), rng.random(600) < 0.8
    first = duplicates.near_groups(hashes, among, lambda left, right: kind[left] == kind[right])
    expected = np.arange(600)
    linked = [(i, j) for i, j in sorted(pairs_of(hashes)) if kind[i] == kind[j] and among[i] and among[j]]
    for _, (i, j) in itertools.product(range(20), linked):
        expected[i] = expected[j] = min(expected[i], expected[j])
    assert first.tolist() == expected.tolist()


def test_exact_groups_compare_all_of_a_digest() -> None:
    digests = np.zeros((6, 4), np.uint64)
    digests[:, 0] = 7
    digests[[1, 3], 3] = 9
    among = np.array([True, True, True, True, False, True])
    assert duplicates.exact_groups(digests, among).tolist() == [0, 1, 0, 1, 4, 0]


def test_the_second_look_wants_the_same_picture_and_tone() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(60, 190, (16, 16, 3))
    thumbs = np.stack([picture, picture + 20, rng.integers(60, 190, (16, 16, 3)), picture[::-1]]).astype(np.uint8)
    alike = duplicates.look_again(thumbs, np.array([50, 40, 50, 50], np.float32), 0.95)
    zeros = np.zeros(4, np.int64)
    assert alike(zeros, np.arange(4)).tolist() == [True, True, False, False]
    pale = duplicates.look_again(thumbs, np.array([50, 20, 50, 50], np.float32), 0.95)
    assert not pale(zeros[:1], np.array([1]))[0]
