"""The train step: pure, per device, collectives by axis name. Knows nothing of files or TensorFlow."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from imagenet_jax.models.layers import AXIS, param_dtype
from imagenet_jax.training import mixing
from imagenet_jax.training.losses import Loss
from imagenet_jax.training.state import PyTree, TrainState
from imagenet_jax.transfer import freeze

Batch = Mapping[str, jax.Array]
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count), already summed over devices


class StepOptions(NamedTuple):
    """What the step is made of; ema_* see `average`, aux_weight see `model_loss`, sam_rho see `ascended`."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss: Loss
    seed: int = 0
    freeze: tuple[str, ...] = ()
    ema_decay: float = 0.0
    ema_warmup: bool = True
    aux_weight: float = 0.0
    mix: mixing.Mix = mixing.Mix()
    sam_rho: float = 0.0


def normalize(image: jax.Array, model: nn.Module) -> jax.Array:
    """uint8 RGB [..., 3] -> what `model` takes but for its dtype: its mean is 0, its deviation 1."""
    full = param_dtype(model.dtype)
    return (image.astype(full) - jnp.array(model.mean, full)) / jnp.array(model.std, full)


def train_step(options: StepOptions, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One optimizer step on a global batch, seen from one device.

    Args:
        state: replicated.
        batch: this device's share, cut into micro-batches: image uint8 [K, M, H, W, 3], label int32 [K, M], and where
            they are counted damaged float32 [K, M], 1 for a picture that could not be read or decoded as it was.
            Gradients and BatchNorm statistics of the K micro-batches are averaged before the one update. SAM takes
            its gradients at other weights, but statistics and metrics are of these.

    Returns:
        The new state, and metrics as (sum, count) pairs over the global batch: `loss`, `top1` (against the labels, also
        where examples are mixed), `damaged`, and `finite`, (1, 1) unless a parameter or statistic of the new state is
        not finite.
    """
    trainable, frozen = freeze.split(state.params, options.freeze)
    step_key = jax.random.fold_in(jax.random.key(options.seed), state.step)
    key = jax.random.fold_in(step_key, lax.axis_index(AXIS))
    micro_batches, micro_size = batch["label"].shape
    global_batch = micro_batches * micro_size * lax.axis_size(AXIS)
    batch = mixing.with_partners(options.mix, batch, jax.process_count())

    def loss_fn(trainable: PyTree, micro: Batch, key: jax.Array) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        variables = {"params": freeze.merge(trainable, frozen), "batch_stats": state.batch_stats}
        image, targets = mixing.examples(options.mix, step_key, micro, functools.partial(
            normalize, model=options.model), options.model.num_classes)
        losses, logits, batch_stats = model_loss(options.model, options.loss, variables, image, targets, key,
                                                 options.aux_weight)
        correct = logits.argmax(-1) == micro["label"]
        counts = jnp.asarray(losses.size, losses.dtype)
        metrics = {"loss": (losses.sum(), counts), "top1": (correct.sum().astype(losses.dtype), counts)}
        if "damaged" in micro:
            metrics["damaged"] = (micro["damaged"].sum(), counts)
        moves = jax.tree.map(jnp.subtract, batch_stats, state.batch_stats)
        return losses.sum() / global_batch, (moves, metrics)

    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    summed = lambda trainable: lax.psum(_sum_over(functools.partial(gradient, trainable), batch, key), AXIS)
    (_, (moves, metrics)), grads = summed(trainable)
    if options.sam_rho:
        _, grads = summed(ascended(trainable, grads, options.sam_rho))
    # Every device and micro-batch moved the same running statistics: the mean move is one update by the mean.
    # Moves are averaged, not values, so that what does not move (a frozen BatchNorm) keeps every bit.
    count = micro_batches * lax.axis_size(AXIS)
    batch_stats = jax.tree.map(lambda old, move: old + move / count, state.batch_stats, moves)
    updates, opt_state = options.optimizer.update(grads, state.opt_state, trainable)
    params = freeze.merge(optax.apply_updates(trainable, updates), frozen)
    ema = state.ema
    if ema is not None:
        ema = average(ema, {"params": params, "batch_stats": batch_stats}, state.step, options)
    # A finite loss can still take a step to weights that are not: what is saved must be known to be good.
    finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves((params, batch_stats))]).all()
    metrics["finite"] = (finite.astype(jnp.float32), jnp.ones(()))
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics


def average(ema: PyTree, new: PyTree, step: jax.Array, options: StepOptions) -> PyTree:
    """The exponential moving average of params and batch_stats after one more step, `step` having been done before.

    Its decay is `ema_decay`; with `ema_warmup` min(ema_decay, (1 + step) / (10 + step)), as TensorFlow's
    ExponentialMovingAverage has it with num_updates, so that the initial weights are soon forgotten.
    """
    share = 1 - options.ema_decay  # of the new value
    if options.ema_warmup:
        share = jnp.maximum(share, 9 / (10 + step))
    # Written so that in float32 too the average of a constant is that constant.
    return jax.tree.map(lambda old, value: old + (share * (value - old)).astype(old.dtype), ema, new)


def model_loss(model: nn.Module, loss: Loss, variables: PyTree, image: jax.Array, targets: jax.Array, key: jax.Array,
               aux_weight: float = 0.0) -> tuple[jax.Array, jax.Array, PyTree]:
    """Losses [B], logits [B, K] and new batch_stats of a model in training.

    The loss of each auxiliary head, if the model has any, is added with weight `aux_weight`.
    """
    image = image.astype(model.dtype)
    logits, updated = model.apply(variables, image, train=True, mutable=["batch_stats", "aux"], rngs={"dropout": key})
    losses = loss(logits, targets)
    for aux_logits in updated.get("aux", {}).values():
        losses += aux_weight * loss(aux_logits, targets)
    return losses, logits, updated.get("batch_stats", {})


def ascended(params: PyTree, grads: PyTree, rho: float) -> PyTree:
    """Where SAM takes its gradient: `rho` from params along theirs.

    Foret et al. 2021, https://arxiv.org/abs/2010.01412, equation 2. Both gradients are of the whole global batch, so
    that the hardware changes nothing; the paper's first one was of the examples of a device (section 4.1). Clipping and
    weight decay act on the second alone.
    """
    scale = rho / jnp.maximum(optax.tree.norm(grads), jnp.finfo(jnp.float32).tiny)
    return jax.tree.map(lambda w, g: w + (scale * g).astype(w.dtype), params, grads)


def _sum_over(one: Callable[[Batch, jax.Array], PyTree], batch: Batch, key: jax.Array) -> PyTree:
    """Sum of one(micro-batch, key) over the leading axis, in order, holding one micro-batch in memory."""
    if len(batch["label"]) == 1:
        return one(jax.tree.map(lambda x: x[0], batch), key)
    keys = jax.random.split(key, len(batch["label"]))

    def add(total: PyTree, inputs: tuple[Batch, jax.Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, one(*inputs)), None

    first = jax.eval_shape(one, jax.tree.map(lambda x: x[0], batch), keys[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    return lax.scan(add, zeros, (batch, keys))[0]


def make_apply(model: nn.Module) -> Callable[[PyTree, jax.Array], jax.Array]:
    """(variables, image uint8 [B, H, W, 3]) -> logits [B, K], in evaluation mode."""
    return lambda variables, image: model.apply(variables, normalize(image, model).astype(model.dtype))
