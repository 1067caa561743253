"""SGD as the recipes mean it, over a flat dict of the parameters that train."""

import re
from collections.abc import Iterable

import jax
import optax

from imagenet_jax.training.schedule import Schedule
from imagenet_jax.transfer import freeze


def make(learning_rate: Schedule, *, momentum: float, nesterov: bool, weight_decay: float, decay: str,
         clip_norm: float) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay, step for step as torch.optim.SGD.

    The gradient is clipped to the global norm `clip_norm` (0 for no clipping), then `weight_decay` times the
    parameter is added where the regular expression `decay` is found in its path, then momentum is applied,
    then the learning rate. It works on a dict from '/'-joined paths to arrays (see `transfer.freeze.split`).
    """

    def decays(params: dict[str, jax.Array]) -> dict[str, bool]:
        return {path: bool(re.search(decay, path)) for path in params}

    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.add_decayed_weights(weight_decay, decays),
        optax.sgd(learning_rate, momentum or None, nesterov))


def decaying(paths: Iterable[str], pattern: str) -> list[str]:
    """The paths of parameters that the regular expression is found in, which are those that weight decay acts on.

    Raises:
        UserError: there are none, so that nothing would decay; names the nearest.
    """
    paths = list(paths)
    freeze.check_pattern("optimizer.decay", pattern, paths)
    return [path for path in paths if re.search(pattern, path)]
