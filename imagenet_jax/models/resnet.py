"""ResNet v1.5: He et al., "Deep Residual Learning for Image Recognition" (2015), https://arxiv.org/abs/1512.03385.

The v1.5 of torchvision/models/resnet.py: a bottleneck strides in its 3x3 convolution, not in its first 1x1.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import BatchNorm, Conv, dense, max_pool, normal, param_dtype

# Blocks in each of the four stages, and whether they are bottlenecks: table 1 of the paper.
DEPTHS = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True),
          "resnet101": ((3, 4, 23, 3), True), "resnet152": ((3, 8, 36, 3), True)}


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1 - 3x3 - 1x1 with 4x expansion; the input is added before the last ReLU."""

    width: int
    stride: int
    bottleneck: bool
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    last_scale_init: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, O]."""
        features = self.width * (4 if self.bottleneck else 1)
        last_norm = functools.partial(self.norm, scale_init=self.last_scale_init)
        if self.bottleneck:
            y = nn.relu(self.norm(name="bn1")(self.conv(self.width, 1, name="conv1")(x)))
            y = nn.relu(self.norm(name="bn2")(self.conv(self.width, 3, self.stride, 1, name="conv2")(y)))
            y = last_norm(name="bn3")(self.conv(features, 1, name="conv3")(y))
        else:
            y = nn.relu(self.norm(name="bn1")(self.conv(self.width, 3, self.stride, 1, name="conv1")(x)))
            y = last_norm(name="bn2")(self.conv(features, 3, 1, 1, name="conv2")(y))
        if x.shape != y.shape:
            x = self.norm(name="downsample_bn")(self.conv(features, 1, self.stride, name="downsample_conv")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """images [B, H, W, 3] -> logits [B, num_classes]; with num_classes=0, pooled features [B, C]."""

    blocks: tuple[int, ...]
    bottleneck: bool
    num_classes: int
    bn_group: int = 32  # Goyal et al. 2017, section 2.3: the batch a worker normalises over
    width: int = 64
    bn_momentum: float = 0.9
    zero_init_residual: bool = False  # Goyal et al. 2017: the last BN scale of a block starts at zero
    dropout: float = 0.0  # before the head
    dtype: Any = jnp.float32
    frozen: Callable[[str], bool] = lambda path: False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features, of `param_dtype`; `train` turns on dropout and the statistics of the batch."""
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(BatchNorm, self.bn_group, train, self.bn_momentum, dtype=self.dtype,
                                 frozen=self.frozen)
        last_scale_init = nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        x = nn.relu(norm(name="bn1")(conv(self.width, 7, 2, 3, name="conv1")(x)))
        x = max_pool(x, 3, 2, 1)
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage and not i else 1
                x = Block(self.width * 2**stage, stride, self.bottleneck, conv, norm, last_scale_init,
                          name=f"layer{stage + 1}_{i}")(x)
        x = x.mean((1, 2), dtype=param_dtype(self.dtype))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if not self.num_classes:
            return x
        # Goyal et al. 2017, section 5.1: the head starts as a Gaussian of standard deviation 0.01.
        return dense(self.num_classes, "head", x.dtype, normal(0.01), nn.initializers.zeros)(x)


def resnet(name: str, **options: Any) -> ResNet:
    """ResNet-18/34/50/101/152 v1.5 by name; `options` are fields of `ResNet`."""
    blocks, bottleneck = DEPTHS[name]
    return ResNet(blocks, bottleneck, **options)
