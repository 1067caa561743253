"""Intervals cover what they are said to; tests give what a hand computes."""

import math

import numpy as np
import pytest

from imagenet_jax.evaluation import significance


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [significance.interval(rng.random(200) < 0.7) for _ in range(200)]
    covered = np.mean([low <= 0.7 <= high for _, low, high in found])
    assert 0.90 <= covered <= 0.98  # 0.95 of 200, within three deviations
    assert all(low <= mean <= high for mean, low, high in found)


def test_the_interval_narrows_as_the_theory_has_it() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=4000)
    mean, low, high = significance.interval(values)
    assert mean == values.mean()
    assert (high - low) == pytest.approx(2 * 1.96 / math.sqrt(4000), rel=0.1)


def test_the_same_numbers_give_the_same_interval() -> None:
    values = np.random.default_rng(3).random(50)
    assert significance.interval(values) == significance.interval(values)


@pytest.mark.parametrize("values", [[True] * 9, [False], [0.25]])
def test_what_does_not_vary_has_no_width(values) -> None:
    assert significance.interval(np.array(values)) == (values[0],) * 3


def test_mcnemar_by_hand() -> None:
    """One that only the first has right and five that only the second has: 2 (1 + 6) / 2^6."""
    first = np.array([1, 0, 0, 0, 0, 0, 1, 1, 0], bool)
    second = np.array([0, 1, 1, 1, 1, 1, 1, 1, 0], bool)
    found = significance.paired(first, second)
    assert (found.only_first, found.only_second) == (1, 5)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6) and found.difference.mean == pytest.approx(4 / 9)


def test_a_pair_is_compared_alike_both_ways_and_with_itself() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.random((2, 500)) < [[0.7], [0.8]]
    there, back = significance.paired(first, second), significance.paired(second, first)
    assert there.p == back.p and there.difference.mean == pytest.approx(-back.difference.mean)
    assert (there.difference.low, there.difference.high) == pytest.approx((-back.difference.high, -back.difference.low))
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert significance.paired(first, first) == ((0, 0, 0), 0, 0, 1)


def test_what_is_hard_for_both_cancels() -> None:
    first = np.arange(2000) % 2 == 0
    second = first.copy()
    second[1:40:2] = True
    found = significance.paired(first, second)
    alone = significance.interval(first)
    assert found.difference.low > 0 and found.p < 1e-5
    assert found.difference.high - found.difference.low < (alone.high - alone.low) / 3
