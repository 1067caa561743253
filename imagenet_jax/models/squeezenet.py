"""SqueezeNet: Iandola et al. (2016), https://arxiv.org/abs/1602.07360, versions 1.0 and 1.1.

As torchvision/models/squeezenet.py: poolings keep their last window, the first convolution has no padding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import Conv, he_uniform, normal
from imagenet_jax.models.lowering import max_pool
from imagenet_jax.models.net import Net, Spec

POOL = (0, 0)
# (squeezed, features of each expansion) of the fire modules 2 to 9, and where poolings lie between them.
FIRES_1_0 = (POOL, (16, 64), (16, 64), (32, 128), POOL, (32, 128), (48, 192), (48, 192), (64, 256), POOL, (64, 256))
FIRES_1_1 = (POOL, (16, 64), (16, 64), POOL, (32, 128), (32, 128), POOL, (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(nn.Module):
    """A 1x1 convolution that squeezes, then 1x1 and 3x3 convolutions side by side."""

    squeezed: int
    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H, W, 2 * features]."""
        conv = functools.partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=he_uniform)
        x = nn.relu(conv(self.squeezed, 1, name="squeeze")(x))
        sides = [nn.relu(conv(self.features, window, name=f"expand{window}x{window}")(x)) for window in (1, 3)]
        return jnp.concatenate(sides, -1)


class SqueezeNet(Net, kw_only=True):
    """See `Net`; the head is a 1x1 convolution with ReLU, averaged over pixels.

    Attributes:
        stem: features and window of the first convolution.
        fires: see `FIRES_1_0`.

    Raises:
        UserError: images of less than 21 px (17 px for version 1.1).
    """

    stem: tuple[int, int]
    fires: tuple[tuple[int, int], ...]
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout."""
        features, window = self.stem
        self.need(x, 17 if window == 3 else 21)
        x = nn.relu(Conv(features, window, 2, 0, use_bias=True, dtype=self.dtype, kernel_init=he_uniform,
                         name="conv1")(x))
        number, stride = 2, 2
        for squeezed, features in self.fires:
            if squeezed:
                x = Fire(squeezed, features, self.dtype, name=f"fire{number}")(x)
                number += 1
            else:
                x = self.feature(stride, x) if stride > 2 else x
                x, stride = max_pool(x, 3, 2, ceil=True), stride * 2
        x = self.feature(stride, x)
        pooled = self.feature("pooled", self.pool(x))
        if not self.num_classes:
            return pooled
        head = Conv(self.num_classes, 1, use_bias=True, dtype=self.dtype, kernel_init=normal(0.01), name="head")
        return self.pool(nn.relu(head(nn.Dropout(self.dropout, deterministic=not train)(x))))


def _spec(stem: tuple[int, int], fires: tuple[tuple[int, int], ...], *facts: Any) -> Spec:
    names, number = [(r"^conv1\.", "features.0."), (r"^head\.", "classifier.1.")], 2
    for index, (squeezed, _) in enumerate(fires, 2):
        if squeezed:
            names.append((rf"^fire{number}\.", f"features.{index}."))
            number += 1
    return Spec(SqueezeNet, {"stem": stem, "fires": fires}, 2016, "https://arxiv.org/abs/1602.07360",
                "torchvision", *facts, "torchvision", {"torchvision": names})


MODELS = {"squeezenet1_0": _spec((96, 7), FIRES_1_0, 1_248_424, 0.819, 58.092),
          "squeezenet1_1": _spec((64, 3), FIRES_1_1, 1_235_496, 0.349, 58.178)}
