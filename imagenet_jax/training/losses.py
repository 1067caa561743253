"""Losses: one number an example, so that masks, micro-batches and hosts can be summed exactly.

Targets are labels int [B], or shares of the classes [B, K] where examples were mixed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def make(*, name: str, label_smoothing: float, target_threshold: float) -> Loss:
    """(logits [B, K], targets) -> [B], by 'cross_entropy' or 'binary_cross_entropy'."""
    if name == "cross_entropy":
        return functools.partial(cross_entropy, label_smoothing=label_smoothing)
    return functools.partial(binary_cross_entropy, label_smoothing=label_smoothing, target_threshold=target_threshold)


def cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy [B] of logits [B, K].

    Smoothing spreads `label_smoothing` evenly over all K classes (Szegedy et al. 2015, section 7; PyTorch's
    convention): the target keeps 1 - s + s / K.
    """
    return optax.softmax_cross_entropy(logits, _smoothed(logits, targets, label_smoothing))


def binary_cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0,
                         target_threshold: float = 0.0) -> jax.Array:
    """Sigmoid cross-entropy [B] of logits [B, K], the mean over classes: each class is a question of its own.

    As in "ResNet strikes back" (Wightman et al. 2021, section 3.1; timm/loss/binary_cross_entropy.py). With a
    threshold, smoothed and mixed targets above it count as 1 and all others as 0.
    """
    targets = _smoothed(logits, targets, label_smoothing)
    if target_threshold:
        targets = (targets > target_threshold).astype(logits.dtype)
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


def _smoothed(logits: jax.Array, targets: jax.Array, label_smoothing: float) -> jax.Array:
    """Targets [B, K] of the logits' type."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return optax.smooth_labels(targets, label_smoothing)
