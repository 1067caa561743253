"""Losses: one number an example, so that masks, micro-batches and hosts can be summed exactly."""

import jax
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy [B] of logits [B, K] and labels int [B].

    Smoothing spreads `label_smoothing` evenly over all K classes (Szegedy et al. 2015, section 7; PyTorch's
    convention): the target keeps 1 - s + s / K.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)
