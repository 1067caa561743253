"""Confident learning: cleanlab's flags on the same input, and errors that were planted."""

import pathlib

import numpy as np
import pytest

from imagenet_jax.cleaning import label_errors

REFERENCE = np.load(pathlib.Path(__file__).with_name("cleanlab.npz"))


def find(label: np.ndarray, p: np.ndarray) -> label_errors.LabelErrors:
    return label_errors.find(label_errors.Probabilities(np.arange(len(label)), label, lambda rows: p[rows]), p.shape[1])


@pytest.mark.parametrize("i", range(len(REFERENCE.files) // 3))
def test_flags_are_those_of_cleanlab(i) -> None:
    label, p = REFERENCE[f"label_{i}"].astype(np.int64), REFERENCE[f"probabilities_{i}"]
    found = find(label, p)
    assert found.position.tolist() == np.flatnonzero(REFERENCE[f"flagged_{i}"]).tolist()
    assert (found.suggested == p[found.position].argmax(axis=1)).all()
    assert (found.given == p[found.position, label[found.position]]).all()
    assert (found.probability > found.given).all()


def test_planted_errors_are_found_in_any_order() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 4000)
    wrong = rng.random(4000) < 0.05
    label = np.where(wrong, (true + rng.integers(1, 10, 4000)) % 10, true)
    logits = rng.normal(size=(4000, 10))
    logits[np.arange(4000), true] += 6
    p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    found = find(label, p).position
    assert find(label, p).agreement == pytest.approx(0.95, abs=0.02)
    assert wrong[found].mean() > 0.85 and len(set(found) & set(np.flatnonzero(wrong))) > 0.9 * wrong.sum()
    order = rng.permutation(4000)
    assert sorted(order[find(label[order], p[order]).position]) == found.tolist()


def test_right_predictions_flag_nothing() -> None:
    label = np.arange(30) % 3
    assert not len(find(label, np.eye(3, dtype=np.float32)[label]).position)
    assert not len(find(np.zeros(1, np.int64), np.array([[0.1, 0.9]], np.float32)).position)  # one must stay
