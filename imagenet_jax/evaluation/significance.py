"""How sure a metric is, and whether two models differ on the same examples."""

from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
_AT_ONCE = 10**7  # numbers drawn at a time: 80 MB


class Interval(NamedTuple):
    """A mean, and the bootstrap interval of LEVEL that it lies in."""

    mean: float
    low: float
    high: float


class Paired(NamedTuple):
    """Two models on the same examples.

    difference: of accuracy (-1..1), the second less the first. only_first, only_second: examples that one alone has
    right. p: of McNemar's exact test, two-sided: how probable so uneven a split of those is if neither is better.
    """

    difference: Interval
    only_first: int
    only_second: int
    p: float


def interval(values: np.ndarray) -> Interval:
    """The percentile interval of the mean of [N] values: RESAMPLES times N of them, drawn with replacement."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:  # SciPy refuses, for there is nothing to draw
        return Interval(*[float(values.mean())] * 3)
    found = stats.bootstrap((values,), np.mean, confidence_level=LEVEL, n_resamples=RESAMPLES, method="percentile",
                            batch=max(1, _AT_ONCE // len(values)), rng=np.random.default_rng(SEED)).confidence_interval
    return Interval(float(values.mean()), float(found.low), float(found.high))


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Compares which examples two models have right, bool [N] each, in the same order.

    The difference is resampled by example, so that what is hard for both cancels (Efron and Tibshirani 1993); the test
    is McNemar's (1947), by the binomial distribution.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    decided = only_first + only_second
    p = stats.binomtest(only_second, decided).pvalue if decided else 1.0
    return Paired(interval(second.astype(np.float64) - first), only_first, only_second, float(p))
