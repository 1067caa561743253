"""ShuffleNet v2: Ma et al. (2018), https://arxiv.org/abs/1807.11164, as torchvision/models/shufflenetv2.py."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import ConvNorm
from imagenet_jax.models.lowering import max_pool
from imagenet_jax.models.net import NormNet, Spec

REPEATS = (4, 8, 4)  # table 5


def shuffle(x: jax.Array) -> jax.Array:
    """x [..., C]: the two halves of the channels, interleaved."""
    return jnp.swapaxes(x.reshape(*x.shape[:-1], 2, -1), -1, -2).reshape(x.shape)


class Unit(nn.Module):
    """Figure 3: half of the channels pass, or, where the unit halves the image, go through a branch of their own."""

    features: int
    stride: int
    conv_norm: Callable[..., ConvNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, features]."""
        half = self.features // 2

        def depthwise(y: jax.Array, name: str) -> jax.Array:
            return self.conv_norm(y.shape[-1], 3, self.stride, groups=y.shape[-1], act=lambda y: y, name=name)(y)

        if self.stride == 1:
            passed, x = jnp.split(x, 2, -1)
        else:
            passed = self.conv_norm(half, 1, name="branch1_pointwise")(depthwise(x, "branch1_depthwise"))
        y = depthwise(self.conv_norm(half, 1, name="branch2_first")(x), "branch2_depthwise")
        return shuffle(jnp.concatenate([passed, self.conv_norm(half, 1, name="branch2_last")(y)], -1))


class ShuffleNet(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        features: of stages 2, 3, 4 and of the last convolution.
    """

    features: tuple[int, int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and the statistics of the batch."""
        conv = self.conv_norm(train)
        x = self.record("stride2", conv(24, 3, 2, space_to_depth=self.space_to_depth, name="conv1")(x))
        x = self.record("stride4", max_pool(x, 3, 2, 1))
        for stage, (count, features) in enumerate(zip(REPEATS, self.features, strict=False), 2):
            for i in range(count):
                x = Unit(features, 1 if i else 2, conv, name=f"stage{stage}_{i}")(x)
            if stage < 4:
                self.record(f"stride{2 ** (stage + 1)}", x)
        x = self.record("stride32", conv(self.features[-1], 1, name="conv5")(x))
        return self.classify(self.pool(x), train)


_NAMES = [(r"^stage(\d)_(\d)\.", r"stage\1.\2."),
          *((rf"{branch}_{layer}\.{part}\.", f"{branch}.{index + i}.")
            for branch, layer, index in (("branch1", "depthwise", 0), ("branch1", "pointwise", 2),
                                         ("branch2", "first", 0), ("branch2", "depthwise", 3), ("branch2", "last", 5))
            for i, part in enumerate(("conv", "bn"))),
          (r"\.conv\.", ".0."), (r"\.bn\.", ".1."), (r"^head", "fc")]


def _spec(name: str, features: tuple[int, int, int, int], resize: int, *facts: Any) -> Spec:
    return Spec(ShuffleNet, {"features": features}, 2018, "https://arxiv.org/abs/1807.11164", f"torchvision:{name}",
                *facts, "torchvision", {"torchvision": _NAMES}, 224, resize)


MODELS = {name: _spec(name, *row) for name, *row in (
    ("shufflenet_v2_x0_5", (48, 96, 192, 1024), 256, 1_366_792, 0.04, 60.552),
    ("shufflenet_v2_x1_0", (116, 232, 464, 1024), 256, 2_278_604, 0.145, 69.362),
    ("shufflenet_v2_x1_5", (176, 352, 704, 1024), 232, 3_503_624, 0.296, 72.996),
    ("shufflenet_v2_x2_0", (244, 488, 976, 2048), 232, 7_393_996, 0.583, 76.23))}
