"""Writes cleanlab.npz: what cleanlab flags on small problems, for test_label_errors.py to compare with.

Run by hand where cleanlab is installed (2.9 wrote the file that is here); the tests do not need it:

    python tests/data/cleaning/make_cleanlab_reference.py

The file holds, for each problem i, `label_i` [n], `probabilities_i` [n, classes] float32 and `flagged_i` bool [n].
Problems are left out whose answer depends on the order in which an unstable sort leaves ties.
"""

import pathlib
import warnings

import numpy as np
from cleanlab import filter as cleanlab_filter
from cleanlab.internal import util

PROBLEMS = 16


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels with noise, and probabilities of a classifier that is sometimes good; some classes may be empty."""
    rng = np.random.default_rng(seed)
    classes, n = int(rng.choice([2, 3, 8, 20])), int(rng.choice([40, 200, 400]))
    true = rng.integers(0, classes, n) if seed % 3 else np.minimum(rng.geometric(0.3, n) - 1, classes - 1)
    label = np.where(rng.random(n) < rng.choice([0.02, 0.1, 0.4]), rng.integers(0, classes, n), true)
    logits = rng.normal(size=(n, classes)) * rng.choice([0.5, 1, 2])
    logits[np.arange(n), true] += rng.choice([1, 3, 5])
    p = np.exp(logits)
    return label, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def flagged(label: np.ndarray, p: np.ndarray) -> np.ndarray:
    """cleanlab's answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cleanlab_filter.find_label_issues(label, p, filter_by="prune_by_noise_rate", n_jobs=1)


def main() -> None:
    """Draws problems until enough have one answer whichever way ties are sorted."""
    arrays, seed, sort = {}, 0, np.argsort
    while len(arrays) < 3 * PROBLEMS:
        label, p = draw(seed)
        answers = []
        for order in (sort, lambda x: sort(x, kind="stable"), lambda x: len(x) - 1 - sort(x[::-1], kind="stable")):
            util.np.argsort = order
            answers.append(flagged(label, p))
            util.np.argsort = sort
        if all(np.array_equal(answers[0], other) for other in answers):
            i = len(arrays) // 3
            arrays |= {f"label_{i}": label.astype(np.int16), f"probabilities_{i}": p, f"flagged_{i}": answers[0]}
        seed += 1
    np.savez_compressed(pathlib.Path(__file__).with_name("cleanlab.npz"), **arrays)


if __name__ == "__main__":
    main()
