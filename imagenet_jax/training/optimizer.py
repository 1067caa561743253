"""Optimizers as the recipes mean them, over a flat dict of the parameters that train.

All are made of optax's parts. Where libraries differ on a detail that moves accuracy, the function says whose it is.
"""

import re
from collections.abc import Callable, Iterable

import jax
import optax

from imagenet_jax.training.schedule import Schedule
from imagenet_jax.transfer import freeze

Params = dict[str, jax.Array]  # from '/'-joined paths to arrays, see `transfer.freeze.split`
Mask = Callable[[Params], dict[str, bool]]


def make(learning_rate: Schedule, *, name: str, momentum: float, nesterov: bool, betas: tuple[float, float], rho: float,
         epsilon: float, trust: float, weight_decay: float, decay: str, clip_norm: float, clip_value: float,
         clip_adaptive: float, rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """An optimizer of the paths of parameters; the gradient is clipped first, in all ways that are asked for.

    Args:
        name: 'sgd' (as torch.optim.SGD), 'lars', 'rmsprop', to whose gradient weight decay is added; or 'adamw',
            'lamb', where the weight itself decays, times the learning rate.
        decay: regular expression over paths; where it is found, weight decay acts, and so does the trust ratio of LARS
            and LAMB.
        clip_norm: the largest norm of the whole gradient. clip_value: of any of its numbers. clip_adaptive: of the
            gradient of a unit over the norm of its weights (Brock et al. 2021, section 4.1). 0 for no clipping.
        rates: (regular expression, factor): the updates of the first one that is found in a path are multiplied.
    """

    def decays(params: Params) -> dict[str, bool]:
        return {path: bool(re.search(decay, path)) for path in params}

    coupled = optax.add_decayed_weights(weight_decay, decays)
    update = {
        "sgd": lambda: optax.chain(coupled, optax.sgd(learning_rate, momentum or None, nesterov)),
        "lars": lambda: optax.lars(learning_rate, weight_decay, decays, trust, epsilon, decays, momentum, nesterov),
        "rmsprop": lambda: optax.chain(coupled, rmsprop(learning_rate, momentum, rho, epsilon)),
        "adamw": lambda: optax.adamw(learning_rate, *betas, epsilon, weight_decay=weight_decay, mask=decays),
        "lamb": lambda: lamb(learning_rate, betas, epsilon, weight_decay, decays),
    }[name]()
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.clip(clip_value) if clip_value else optax.identity(),
        optax.adaptive_grad_clip(clip_adaptive) if clip_adaptive else optax.identity(),
        update,
        scale_by_path(rates) if rates else optax.identity())


def rmsprop(learning_rate: Schedule, momentum: float, rho: float, epsilon: float) -> optax.GradientTransformation:
    """RMSProp as TensorFlow has it, with which Inception and EfficientNet were trained.

    The mean square starts at 1 and epsilon is inside the root (tf.compat.v1.train.RMSPropOptimizer); PyTorch's starts
    at 0 and adds epsilon outside. The learning rate is applied before momentum.
    """
    return optax.rmsprop(learning_rate, rho, epsilon, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum)


def lamb(learning_rate: Schedule, betas: tuple[float, float], epsilon: float, weight_decay: float,
         mask: Mask) -> optax.GradientTransformation:
    """LAMB (You et al. 2019); its trust ratio acts where weight decay does, as in timm/optim/lamb.py."""
    return optax.chain(
        optax.scale_by_adam(*betas, epsilon), optax.add_decayed_weights(weight_decay, mask),
        optax.masked(optax.scale_by_trust_ratio(), mask), optax.scale_by_learning_rate(learning_rate))


def scale_by_path(rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies each update by the factor of the first pattern that is found in its path; by 1 where none is."""

    def factor(path: str) -> float:
        return next((factor for pattern, factor in rates if re.search(pattern, path)), 1.0)

    return optax.stateless(lambda updates, _: {path: value * factor(path) for path, value in updates.items()})


def decaying(paths: Iterable[str], pattern: str) -> list[str]:
    """The paths of parameters that the regular expression is found in, which are those that weight decay acts on.

    Raises:
        UserError: there are none, so that nothing would decay; names the nearest.
    """
    paths = list(paths)
    freeze.check_pattern("optimizer.decay", pattern, paths)
    return [path for path in paths if re.search(pattern, path)]
