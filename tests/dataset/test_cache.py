"""The cache of encoded records: the same bytes, read once, and never more memory than it was given."""

import numpy as np

from imagenet_jax.dataset import cache


class Tens:
    """Ten records of ten bytes that remember what was read."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 10

    def read(self, indices) -> list[bytes]:
        self.asked += list(indices)
        return [bytes([index] * 10) for index in indices]


def test_a_record_is_read_once_and_comes_back_in_the_order_asked() -> None:
    tens = Tens()
    cached = cache.keep(tens, 1)
    assert len(cached) == 10
    for indices in ([3, 1, 3], np.array([1, 2, 3])):
        assert cached.read(indices) == [bytes([index] * 10) for index in indices]
    assert tens.asked == [3, 1, 2]


def test_what_does_not_fit_is_read_again_and_throws_out_nothing() -> None:
    tens = Tens()
    cached = cache.keep(tens, 45e-9)
    for _ in range(3):
        assert cached.read(range(10)) == [bytes([index] * 10) for index in range(10)]
    assert tens.asked == [*range(10), *range(4, 10), *range(4, 10)]


def test_no_cache_is_no_wrapper() -> None:
    tens = Tens()
    assert cache.keep(tens, 0) is tens
