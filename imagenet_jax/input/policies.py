"""Which operations are done to an image after its crop: learned and random policies, colour jitter, lighting.

What is drawn is a function of uniform numbers alone, see `order.draws`, and comes before anything is computed: steps,
which are operations by name with their values.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from imagenet_jax.input import learned, operations
from imagenet_jax.input.operations import Sampling

Steps = list[tuple[str, float]]
Space = dict[str, Callable[[float, int], float]]  # from operations to their values, of a level 0..1 and a sign
_BLACK, _GREY, _MEAN = (0, 0, 0), (128, 128, 128), (124, 116, 104)  # the last of ImageNet's pixels
_PER_STEP = 4  # uniform numbers that an operation takes: which, whether, how much, which sign
_CHAINS, _LONGEST = 3, 3  # of AugMix, and operations in one
_UNMOVED = Sampling()  # where nothing is sampled
_COLOURS = ("brightness", "contrast", "saturation", "hue")
_ENHANCED = ("brightness", "saturation", "contrast", "sharpness")
_INCEPTION = {"shift": (0, 32), "saturation": (1, 0.5), "hue": (0, 0.2), "channel_contrast": (1, 0.5)}
_INCEPTION_ORDERS = (("shift", "saturation", "hue", "channel_contrast"),
                     ("saturation", "shift", "channel_contrast", "hue"),
                     ("channel_contrast", "hue", "shift", "saturation"),
                     ("hue", "saturation", "channel_contrast", "shift"))


class Augmentation(NamedTuple):
    """Something done to an image. draws: uniform numbers it takes. apply: (image, uniform [draws]) -> image."""

    draws: int
    apply: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Strength(NamedTuple):
    """Of the policies that have it: operations an image, their magnitude, and its deviation from one to the next."""

    operations: int = 2
    magnitude: float = 9.0
    deviation: float = 0.0


def make(size: int, *, policy: str, strength: Strength, jitter: Sequence[float], lighting: float,
         interpolation: str) -> Augmentation:
    """What a recipe does to an image of `size` px after its crop, in this order; it may be nothing.

    Args:
        policy: a name of POLICIES, or '' for none.
        jitter: by how much brightness, contrast and saturation vary about 1, and hue about 0, in random order, as in
            torchvision's ColorJitter.
        lighting: deviation of the shifts along the principal components of colours (Krizhevsky et al. 2012, 4.1).
        interpolation: of operations that move pixels.
    """
    stages = [POLICIES[policy](size, strength, interpolation)] if policy else []
    if any(jitter):
        stages.append(_stage(2 * len(_COLOURS), functools.partial(jittered, jitter)))
    if lighting:
        stages.append(Augmentation(3, lambda image, uniform: operations.lighting(
            image, np.array([lighting * _normal(u) for u in uniform.tolist()]))))

    def apply(image: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        for stage in stages:
            image, uniform = stage.apply(image, uniform[: stage.draws]), uniform[stage.draws :]
        return image

    return Augmentation(sum(stage.draws for stage in stages), apply)


def _stage(draws: int, draw: Callable[[np.ndarray], Steps], sampling: Sampling = _UNMOVED) -> Augmentation:
    """Steps that are drawn, one after the other."""
    return Augmentation(draws, lambda image, uniform: _done(draw(uniform), image, sampling))


def _done(steps: Steps, image: np.ndarray, sampling: Sampling) -> np.ndarray:
    for name, value in steps:
        image = operations.apply(name, value, image, sampling)
    return image


def _normal(uniform: float) -> float:
    """A standard normal number of a uniform one, which is a multiple of 2^-24."""
    return statistics.NormalDist().inv_cdf(uniform + 2**-25)


def _sign(uniform: float) -> int:
    return 1 if uniform < 0.5 else -1


def drawn(space: Space, prob: float, level: Callable[[float], float], uniform: np.ndarray) -> Steps:
    """An operation of the space for every four uniform numbers, each with its probability; level: of a uniform one."""
    names, steps = list(space), []
    for which, whether, much, sign in uniform.reshape(-1, _PER_STEP).tolist():
        if whether < prob:
            name = names[int(which * len(names))]
            steps.append((name, space[name](level(much), _sign(sign))))
    return steps


def _randaugment(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """RandAugment (Cubuk et al. 2019) as in torchvision/transforms/autoaugment.py: magnitudes 0..30."""
    level = lambda uniform: round(strength.magnitude) / 30
    return _stage(strength.operations * _PER_STEP, functools.partial(drawn, _torchvision(size), 1.0, level),
                  Sampling(interpolation, _BLACK))


def _randaugment_timm(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """timm's rand-m{magnitude}-n{operations}-mstd{deviation}-inc1 (timm/data/auto_augment.py): magnitudes 0..10."""

    def level(uniform: float) -> float:
        return min(max(strength.magnitude + strength.deviation * _normal(uniform), 0.0), 10.0) / 10

    return _stage(strength.operations * _PER_STEP, functools.partial(drawn, _timm(size), 0.5, level),
                  Sampling(interpolation, _MEAN))


def _trivialaugment(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """TrivialAugmentWide (Müller and Hutter 2021) as in torchvision: one operation, any of 31 magnitudes."""
    level = lambda uniform: int(31 * uniform) / 30
    return _stage(_PER_STEP, functools.partial(drawn, _wide(), 1.0, level), Sampling(interpolation, _BLACK))


def _augmix(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """AugMix (Hendrycks et al. 2019) as in torchvision, magnitude being its severity, 1..10.

    The image and three chains of one to three operations on it are averaged, by weights that are drawn.
    """
    space, sampling = _augmix_space(size), Sampling(interpolation, _BLACK)
    level = lambda uniform: int(uniform * round(strength.magnitude)) / 9

    def apply(image: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        own, shares, lengths, rest = np.split(uniform, [1, 1 + _CHAINS, 1 + 2 * _CHAINS])
        shares = -np.log1p(-shares)  # exponential: their shares are of Dirichlet(1, 1, 1)
        mixed = own * image
        for share, length, chain in zip(shares / shares.sum(), lengths, rest.reshape(_CHAINS, -1), strict=True):
            steps = drawn(space, 1.0, level, chain)[: 1 + int(_LONGEST * length)]
            mixed += (1 - own) * share * _done(steps, image, sampling)
        return mixed.astype(np.uint8)

    return Augmentation(1 + _CHAINS * (2 + _LONGEST * _PER_STEP), apply)


def _autoaugment(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """AutoAugment for ImageNet (Cubuk et al. 2018), with torchvision's magnitudes."""
    space = _torchvision(size) | {"invert": lambda level, sign: 0}
    return _stage(5, functools.partial(chosen, learned.IMAGENET, space), Sampling(interpolation, _BLACK))


def _autoaugment_v0(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """The policy that EfficientNet was trained with; pixels that move are the nearest, as there."""
    return _stage(5, functools.partial(chosen, learned.V0, _tpu(size)), Sampling("nearest", _GREY))


def chosen(policy: learned.Learned, space: Space, uniform: np.ndarray) -> Steps:
    """One of the policy's pairs, and of it each operation with its probability. uniform: [5]."""
    pair = policy.pairs[int(uniform[0] * len(policy.pairs))]
    return [(name, space[name](number / policy.largest, _sign(sign)))
            for (name, prob, number), (whether, sign) in zip(pair, uniform[1:].reshape(2, 2).tolist(), strict=True)
            if whether < prob]


def _inception(size: int, strength: Strength, interpolation: str) -> Augmentation:
    """Colours as distorted for Inception (tensorflow/models, slim/preprocessing/inception_preprocessing.py).

    There the four are cut off at black and white together, here each.
    """

    def draw(uniform: np.ndarray) -> Steps:
        order = _INCEPTION_ORDERS[int(uniform[0] * len(_INCEPTION_ORDERS))]
        return [(name, _INCEPTION[name][0] + _INCEPTION[name][1] * (2 * much - 1))
                for name, much in zip(order, uniform[1:].tolist(), strict=True)]

    return _stage(1 + len(_INCEPTION), draw)


def jittered(amounts: Sequence[float], uniform: np.ndarray) -> Steps:
    """Each colour that varies at all, in an order that is drawn, too. amounts: [4], uniform: [8]."""
    order, much = np.argsort(uniform[: len(_COLOURS)]), (2 * uniform[len(_COLOURS) :] - 1).tolist()
    return [(_COLOURS[i], (_COLOURS[i] != "hue") + amounts[i] * much[i]) for i in order if amounts[i]]


def _torchvision(size: int) -> Space:
    return _enhancing(0.9) | {
        "identity": lambda level, sign: 0,
        "shear_x": lambda level, sign: 0.3 * level * sign,
        "shear_y": lambda level, sign: 0.3 * level * sign,
        "translate_x": lambda level, sign: int(150 / 331 * size * level) * sign,
        "translate_y": lambda level, sign: int(150 / 331 * size * level) * sign,
        "rotate": lambda level, sign: 30 * level * sign,
        "posterize": lambda level, sign: 8 - round(4 * level),
        "solarize": lambda level, sign: 255 * (1 - level),
        "autocontrast": lambda level, sign: 0,
        "equalize": lambda level, sign: 0,
    }


def _wide() -> Space:
    """Of TrivialAugmentWide; the same for images of any size."""
    return _torchvision(0) | _enhancing(0.99) | {
        "shear_x": lambda level, sign: 0.99 * level * sign,
        "shear_y": lambda level, sign: 0.99 * level * sign,
        "translate_x": lambda level, sign: int(32 * level) * sign,
        "translate_y": lambda level, sign: int(32 * level) * sign,
        "rotate": lambda level, sign: 135 * level * sign,
        "posterize": lambda level, sign: 8 - round(6 * level),
    }


def _augmix_space(size: int) -> Space:
    space = _torchvision(size) | {
        "translate_x": lambda level, sign: int(size / 3 * level) * sign,
        "translate_y": lambda level, sign: int(size / 3 * level) * sign,
        "posterize": lambda level, sign: 4 - round(4 * level),
    }
    del space["identity"]
    return space


def _timm(size: int) -> Space:
    space = _torchvision(size) | {
        "translate_x": lambda level, sign: 0.45 * level * size * sign,
        "translate_y": lambda level, sign: 0.45 * level * size * sign,
        "posterize": lambda level, sign: 4 - int(4 * level),
        "solarize": lambda level, sign: 256 - int(256 * level),
        "solarize_add": lambda level, sign: int(110 * level),
        "invert": lambda level, sign: 0,
    }
    del space["identity"]
    return space


def _tpu(size: int) -> Space:
    """Of tensorflow/tpu, models/official/efficientnet/autoaugment.py, but for translations, which are timm's.

    There they go to 250 px, and move an image of 224 px out of sight.
    """
    return _timm(size) | dict.fromkeys(_ENHANCED, lambda level, sign: 1.8 * level + 0.1) | {
        "posterize": lambda level, sign: int(4 * level),
        "solarize": lambda level, sign: int(256 * level),
    }


def _enhancing(most: float) -> Space:
    return dict.fromkeys(_ENHANCED, lambda level, sign: 1 + most * level * sign)


POLICIES: dict[str, Callable[[int, Strength, str], Augmentation]] = {
    "autoaugment": _autoaugment, "autoaugment_v0": _autoaugment_v0, "randaugment": _randaugment,
    "randaugment_timm": _randaugment_timm, "trivialaugment": _trivialaugment, "augmix": _augmix,
    "inception": _inception}
