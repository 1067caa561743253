"""Exact evaluation: the cut into batches changes nothing, and holes are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_jax.evaluation import exact

EXAMPLES, CLASSES = 53, 8


def split() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(EXAMPLES, CLASSES)).astype(np.float32),
        "label": rng.integers(CLASSES, size=EXAMPLES).astype(np.int32),
        "index": np.arange(EXAMPLES)[::-1].astype(np.int64),
        "mask": np.ones(EXAMPLES, np.float32),
    }


def batches(size: int) -> list[dict[str, np.ndarray]]:
    """The split in batches of `size`, the last padded with copies of its first examples."""
    whole, cut = split(), []
    for start in range(0, EXAMPLES, size):
        part = {name: values[start : start + size] for name, values in whole.items()}
        missing = size - len(part["mask"])
        part = {name: np.resize(values, (size, *values.shape[1:])) for name, values in part.items()}
        part["mask"] = np.where(np.arange(size) < size - missing, 1, 0).astype(np.float32)
        cut.append(part)
    return cut


@jax.jit
def step(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return exact.eval_step(lambda _, image: 2 * image, None, batch)


def run(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return jax.device_get(step(batch))


def test_batch_size_changes_no_metric_and_no_prediction() -> None:
    one = exact.collect(map(run, batches(1)), EXAMPLES)
    for size in (7, 53, 500):
        other = exact.collect(map(run, batches(size)), EXAMPLES)
        assert exact.metrics(other) == exact.metrics(one)
        jax.tree.map(np.testing.assert_array_equal, other, one)
    assert one.index.tolist() == list(range(EXAMPLES))


def test_metrics_are_those_of_a_plain_count() -> None:
    whole = split()
    scores = exact.metrics(exact.collect(map(run, batches(7)), EXAMPLES))
    logits = 2 * whole["image"].astype(np.float64)
    order = np.argsort(-logits, axis=1)
    top1 = (order[:, 0] == whole["label"]).sum()
    top5 = (order[:, :5] == whole["label"][:, None]).sum()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert (scores["correct1"], scores["correct5"], scores["seen"]) == (top1, top5, EXAMPLES)
    loss = -log_p[np.arange(EXAMPLES), whole["label"]].mean()
    np.testing.assert_allclose(scores["loss"], loss, rtol=1e-6)


def test_missing_and_repeated_examples_stop_the_evaluation() -> None:
    cut = batches(7)
    with pytest.raises(RuntimeError, match="saw 46 examples, 46 of them different.*has 53"):
        exact.collect(map(run, cut[1:]), EXAMPLES)
    with pytest.raises(RuntimeError, match=r"53 examples, 46 .*more than once: \[46, 47"):
        exact.collect(map(run, [*cut[:6], cut[0], cut[-1]]), EXAMPLES)
    with pytest.raises(RuntimeError, match="no batch"):
        exact.collect(map(run, []), EXAMPLES)


def test_fewer_than_five_classes_and_bfloat16_logits() -> None:
    batch = batches(7)[0] | {"label": np.zeros(7, np.int32)}
    outputs = exact.eval_step(lambda _, image: jnp.asarray(image[:, :3], jnp.bfloat16), None, batch)
    assert outputs["top5"].shape == (7, 3)
    assert outputs["loss"].dtype == outputs["confidence"].dtype == jnp.float32
