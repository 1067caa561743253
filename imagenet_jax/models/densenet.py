"""DenseNet-BC: Huang et al. (2016), https://arxiv.org/abs/1608.06993, as torchvision/models/densenet.py."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import BatchNorm, Conv, Dropout
from imagenet_jax.models.lowering import avg_pool, max_pool
from imagenet_jax.models.net import NormNet, Spec

BLOCKS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}  # table 1


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1 convolution; BatchNorm, ReLU, 3x3 convolution; the result is appended to the input."""

    growth: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    drop: Callable[..., Dropout]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H, W, I + growth]."""
        y = self.conv(4 * self.growth, 1, name="conv1")(nn.relu(self.norm(name="norm1")(x)))
        y = self.conv(self.growth, 3, name="conv2")(nn.relu(self.norm(name="norm2")(y)))
        return jnp.concatenate([x, self.drop()(y)], -1)


class DenseNet(NormNet, kw_only=True):
    """See `NormNet`; `dropout` acts on what each dense layer appends.

    Attributes:
        blocks: dense layers of each of the four blocks.
        growth: channels that each appends.
        width: channels of the stem.
    """

    blocks: tuple[int, ...]
    growth: int
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and the statistics of the batch."""
        self.need(x, 29)
        conv, norm = functools.partial(Conv, dtype=self.dtype), self.norm(train)
        x = conv(self.width, 7, 2, space_to_depth=self.space_to_depth, name="conv0")(x)
        x = self.record("stride2", nn.relu(norm(name="norm0")(x)))
        x = max_pool(x, 3, 2, 1)
        for i, layers in enumerate(self.blocks, 1):
            for j in range(1, layers + 1):
                x = DenseLayer(self.growth, conv, norm, functools.partial(Dropout, self.dropout, train),
                               name=f"block{i}_layer{j}")(x)
            self.record(f"stride{2 ** (i + 1)}", x)
            if i < len(self.blocks):
                x = nn.relu(norm(name=f"transition{i}_norm")(x))
                x = avg_pool(conv(x.shape[-1] // 2, 1, name=f"transition{i}_conv")(x), 2, 2)
        x = nn.relu(norm(name="norm5")(x))
        return self.classify(self.pool(x), False)  # False: no dropout before the head


_NAMES = [(r"^block(\d)_layer", r"denseblock\1.denselayer"), (r"^transition(\d)_", r"transition\1."),
          (r"^(?!head)", "features."), (r"^head", "classifier")]


def _spec(depth: int, *facts: Any, growth: int = 32, width: int = 64) -> Spec:
    return Spec(DenseNet, {"blocks": BLOCKS[depth], "growth": growth, "width": width}, 2016,
                "https://arxiv.org/abs/1608.06993", f"torchvision:densenet{depth}", *facts, "torchvision",
                {"torchvision": _NAMES, "timm": _NAMES})


MODELS = {"densenet121": _spec(121, 7_978_856, 2.834, 74.434),
          "densenet161": _spec(161, 28_681_000, 7.728, 77.138, growth=48, width=96),
          "densenet169": _spec(169, 14_149_480, 3.36, 75.6),
          "densenet201": _spec(201, 20_013_928, 4.291, 76.896)}
