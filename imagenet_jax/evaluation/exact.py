"""Exact evaluation: every example counted once, whatever the batch size, devices or hosts.

The device only says what it thinks of each example; sums are taken on the host, in float64 and in the order of the
dataset, so that no way of cutting the split into batches can change a metric.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

Batch = Mapping[str, np.ndarray]


class Predictions(NamedTuple):
    """What a model says of each of the N examples of a split, by ascending index, no padding.

    index: int64 [N], position in the dataset. label: int32 [N]. loss: float32 [N], cross entropy in nats without
    smoothing. top5: int32 [N, min(5, classes)], best first. confidence: float32 [N], the probability of the best class.
    """

    index: np.ndarray
    label: np.ndarray
    loss: np.ndarray
    top5: np.ndarray
    confidence: np.ndarray


def eval_step(apply_fn: Callable[[Any, jax.Array], jax.Array], variables: Any, batch: Mapping[str, jax.Array],
              probabilities: bool = False, columns: np.ndarray | None = None,
              mirrored: bool = False) -> dict[str, jax.Array]:
    """Judges each example of a batch by itself; pure, no collectives.

    Args:
        apply_fn: `(variables, image [B, H, W, 3]) -> logits [B, classes]`, in evaluation mode.
        variables: what `apply_fn` takes.
        batch: `image` [B, H, W, 3], or [B, C, H, W, 3] for C crops whose probabilities are averaged; `label` [B],
            `index` [B], `mask` [B] (0 for padding).
        probabilities: return those of every class, too.
        columns: int32 [classes], the logits of the classes that labels are of; the model's others are left out.
        mirrored: average over the mirror image of each crop, too.

    Returns:
        The fields of `Predictions` and `mask`, each with leading axis B; and `probabilities` [B, classes].
    """

    def judge(image: jax.Array) -> jax.Array:
        logits = jnp.asarray(apply_fn(variables, image), jnp.float32)
        return logits if columns is None else logits[:, columns]

    several = batch["image"].ndim == 5
    logits = over_crops(judge, batch["image"], mirrored) if several else judge(batch["image"])
    best = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    every_class = {"probabilities": jax.nn.softmax(logits)} if probabilities else {}
    return every_class | {
        "index": batch["index"],
        "label": batch["label"],
        "mask": batch["mask"],
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]),
        "top5": best,
        "confidence": jax.nn.softmax(logits).max(axis=-1),
    }


def over_crops(judge: Callable[[jax.Array], jax.Array], image: jax.Array, mirrored: bool) -> jax.Array:
    """Logarithms of the probabilities [B, classes] that crops [B, C, H, W, 3] have in the mean.

    judge: [B, H, W, 3] -> logits [B, classes], called for one crop at a time: they take no more memory than one.
    """
    if mirrored:
        image = jnp.concatenate([image, image[..., ::-1, :]], axis=1)
    each = jax.lax.map(lambda crop: jax.nn.log_softmax(judge(crop)), image.swapaxes(0, 1))
    return jax.nn.logsumexp(each, axis=0) - np.log(len(each))


def collect(judged: Iterable[Mapping[str, np.ndarray]], expected: int) -> Predictions:
    """Drops padding, joins the hosts, and proves that nothing is missing.

    Every host calls this with its own share of the split and gets the predictions of all of it.

    Args:
        judged: outputs of `eval_step` for this host's batches, on the host; at least of one, if only of padding.
        expected: examples in the split, over all hosts.

    Raises:
        RuntimeError: the examples seen are not `expected` different ones.
    """
    seen: list[dict[str, np.ndarray]] = []
    for outputs in judged:
        real = np.asarray(outputs["mask"]) > 0
        seen.append({name: np.asarray(outputs[name])[real] for name in Predictions._fields})
    if not seen:
        raise RuntimeError(f"evaluation got no batch at all; the split has {expected} examples")
    local = {name: np.concatenate([part[name] for part in seen]) for name in Predictions._fields}
    merged = join_hosts(local)
    index, counts = np.unique(merged["index"], return_counts=True)
    if len(merged["index"]) != expected or len(index) != expected:
        raise RuntimeError(f"evaluation saw {len(merged['index'])} examples, {len(index)} of them different; the split "
                           f"has {expected}. Seen more than once: {index[counts > 1][:5].tolist()}")
    order = np.argsort(merged["index"])
    merged = {name: values[order] for name, values in merged.items()}
    return Predictions(**merged | {"index": merged["index"].astype(np.int64)})


def metrics(predictions: Predictions) -> dict[str, float | int]:
    """Top-1 and top-5 accuracy (0..1), mean loss (nats), and the counts they come from."""
    hits = predictions.top5 == predictions.label[:, None]
    correct1, correct5 = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
    seen = len(predictions.label)
    return {
        "top1": correct1 / seen,
        "top5": correct5 / seen,
        # To 1e-6: beyond that float32 logits depend on the batch shape XLA compiled for.
        "loss": round(float(predictions.loss.astype(np.float64).mean()), 6),
        "seen": seen,
        "correct1": correct1,
        "correct5": correct5,
    }


def join_names(names: Mapping[int, bytes]) -> dict[int, bytes]:
    """The file names that all hosts have read, by index."""
    if jax.process_count() == 1:
        return dict(names)
    width = int(multihost_utils.process_allgather(np.int32(max(1, *map(len, names.values())))).max())
    padded = np.array([*names.values()], f"S{width}").view(np.uint8).reshape(len(names), width)
    joined = join_hosts({"index": np.array([*names], np.int64), "name": padded})
    return dict(zip(joined["index"].tolist(), np.ascontiguousarray(joined["name"]).view(f"S{width}")[:, 0].tolist(),
                    strict=True))


def join_hosts(local: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Concatenates the examples of all hosts, whose numbers may differ."""
    if jax.process_count() == 1:
        return local
    counts = multihost_utils.process_allgather(np.int32(len(local["index"])))

    def pad(values: np.ndarray) -> np.ndarray:
        missing = int(counts.max()) - len(values)
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))

    stacked = multihost_utils.process_allgather(jax.tree.map(pad, local))
    return {name: np.concatenate([rows[:count] for rows, count in zip(values, counts, strict=True)])
            for name, values in stacked.items()}
