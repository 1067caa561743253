"""ResNet v1.5: He et al., "Deep Residual Learning for Image Recognition" (2015), https://arxiv.org/abs/1512.03385.

The v1.5 of torchvision/models/resnet.py: a bottleneck strides in its 3x3 convolution, not in its first 1x1.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn

from imagenet_jax.models.layers import BatchNorm, Conv
from imagenet_jax.models.lowering import max_pool
from imagenet_jax.models.net import NormNet, Spec


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1 - 3x3 - 1x1 with 4x expansion; the input is added before the last ReLU."""

    width: int
    stride: int
    bottleneck: bool
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    last_scale_init: Callable[..., jax.Array]
    drop_path: nn.Dropout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, O]."""
        features = self.width * (4 if self.bottleneck else 1)
        last_norm = functools.partial(self.norm, scale_init=self.last_scale_init)
        if self.bottleneck:
            y = nn.relu(self.norm(name="bn1")(self.conv(self.width, 1, name="conv1")(x)))
            y = nn.relu(self.norm(name="bn2")(self.conv(self.width, 3, self.stride, name="conv2")(y)))
            y = last_norm(name="bn3")(self.conv(features, 1, name="conv3")(y))
        else:
            y = nn.relu(self.norm(name="bn1")(self.conv(self.width, 3, self.stride, name="conv1")(x)))
            y = last_norm(name="bn2")(self.conv(features, 3, name="conv2")(y))
        if x.shape != y.shape:
            x = self.norm(name="downsample_bn")(self.conv(features, 1, self.stride, name="downsample_conv")(x))
        return nn.relu(x + self.drop_path(y))


class ResNet(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        blocks: of each of the stages.
        bottleneck: blocks of three convolutions, not of two.
        width: channels of the stem.
        zero_init_residual: the last BatchNorm scale of a block starts at zero (Goyal et al. 2017, section 5.1).
        drop_path: rate at which the last residual branch is left out of an example in training, growing from 0 at the
            first (Huang et al. 2016; as in timm/models/resnet.py).
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    width: int = 64
    zero_init_residual: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and the statistics of the batch."""
        conv, norm = functools.partial(Conv, dtype=self.dtype), self.norm(train)
        last_scale_init = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        x = nn.relu(norm(name="bn1")(conv(self.width, 7, 2, name="conv1")(x)))
        x = max_pool(x, 3, 2, 1)
        rates = iter(np.linspace(0, self.drop_path, sum(self.blocks)))
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage and not i else 1
                drop_path = nn.Dropout(float(next(rates)), broadcast_dims=(1, 2, 3), deterministic=not train)
                x = Block(self.width * 2**stage, stride, self.bottleneck, conv, norm, last_scale_init, drop_path,
                          name=f"layer{stage + 1}_{i}")(x)
            x = self.feature(4 * 2**stage, x)
        return self.classify(self.pool(x), train)


_NAMES = [(r"^layer(\d)_(\d+)\.", r"layer\1.\2."), (r"downsample_conv", "downsample.0"),
          (r"downsample_bn", "downsample.1"), (r"^head", "fc")]


def _spec(blocks: tuple[int, ...], bottleneck: bool, params: int, gmacs: float, top1: float) -> Spec:
    return Spec(ResNet, {"blocks": blocks, "bottleneck": bottleneck}, 2015, "https://arxiv.org/abs/1512.03385",
                "torchvision", params, gmacs, top1, "torchvision", {"torchvision": _NAMES, "timm": _NAMES})


# Blocks in each of the four stages, and whether they are bottlenecks: table 1 of the paper.
MODELS = {"resnet18": _spec((2, 2, 2, 2), False, 11_689_512, 1.814, 69.758),
          "resnet34": _spec((3, 4, 6, 3), False, 21_797_672, 3.664, 73.314),
          "resnet50": _spec((3, 4, 6, 3), True, 25_557_032, 4.089, 76.13),
          "resnet101": _spec((3, 4, 23, 3), True, 44_549_160, 7.801, 77.374),
          "resnet152": _spec((3, 8, 36, 3), True, 60_192_808, 11.514, 78.312)}
