"""What a run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from imagenet_jax.transfer import freeze

PyTree = Any


class TrainState(NamedTuple):
    """Everything float32 (float64 in double precision), replicated over devices.

    step: int32 scalar, optimizer steps done. params, batch_stats: nested dicts. opt_state: of the parameters
    that train only. ema: moving averages {"params", "batch_stats"}, or None.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema: PyTree | None


def init_variables(model: nn.Module, size: int, seed: int) -> tuple[PyTree, PyTree]:
    """Fresh (params, batch_stats) for square images of `size` px."""
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, size, size, 3)))
    return variables["params"], variables.get("batch_stats", {})


def make_state(params: PyTree, batch_stats: PyTree, optimizer: optax.GradientTransformation,
               frozen_patterns: tuple[str, ...] = (), with_ema: bool = False) -> TrainState:
    """The state at step 0; optimizer slots exist only for parameters that `frozen_patterns` leave to train."""
    trainable, _ = freeze.split(params, frozen_patterns)
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, jax.jit(optimizer.init)(trainable),
                      {"params": params, "batch_stats": batch_stats} if with_ema else None)


def variables_of(state: TrainState) -> PyTree:
    """What a state is judged by: the averages of params and batch_stats where it has them."""
    return {"params": state.params, "batch_stats": state.batch_stats} if state.ema is None else state.ema
