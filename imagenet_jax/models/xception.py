"""Xception: Chollet (2016), https://arxiv.org/abs/1610.02357, figure 5, as timm/models/xception.py."""

import functools
from collections.abc import Callable

import jax
from flax import linen as nn

from imagenet_jax.models.layers import BatchNorm, Conv, Dropout
from imagenet_jax.models.lowering import max_pool
from imagenet_jax.models.net import NormNet, Spec

# Features of the separable convolutions of each block, and its stride.
BLOCKS = (((128, 128), 2), ((256, 256), 2), ((728, 728), 2), *(((728, 728, 728), 1),) * 8, ((728, 1024), 2))


class Separable(nn.Module):
    """A depthwise 3x3 convolution, then a 1x1 one, nothing in between."""

    features: int
    conv: Callable[..., Conv]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H, W, features]."""
        x = self.conv(x.shape[-1], 3, groups=x.shape[-1], name="depthwise")(x)
        return self.conv(self.features, 1, name="pointwise")(x)


class Block(nn.Module):
    """ReLU, separable convolution and BatchNorm, twice or thrice; pooling if strided; the input is added."""

    widths: tuple[int, ...]
    stride: int
    first: bool
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    drop_path: Callable[..., Dropout]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, O]."""
        y = x
        for i, width in enumerate(self.widths, 1):
            y = y if self.first and i == 1 else nn.relu(y)
            y = self.norm(name=f"bn{i}")(Separable(width, self.conv, name=f"sep{i}")(y))
        if self.stride > 1:
            y = max_pool(y, 3, 2, 1)
            x = self.norm(name="skip_bn")(self.conv(self.widths[-1], 1, self.stride, name="skip_conv")(x))
        return self.drop_path()(y) + x


class Xception(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        drop_path: rate at the last block, growing from 0 at the first.
    """

    dropout: float = 0.5  # section 4.3
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, drop path and the statistics of the batch."""
        self.need(x, 7)
        conv, norm = functools.partial(Conv, dtype=self.dtype), self.norm(train)
        x = conv(32, 3, 2, 0, space_to_depth=self.space_to_depth, name="conv1")(x)
        x = conv(64, 3, 1, 0, name="conv2")(nn.relu(norm(name="bn1")(x)))
        x = self.record("stride2", nn.relu(norm(name="bn2")(x)))
        stride = 2
        for i, (widths, step) in enumerate(BLOCKS):
            if stride > 2 and step > 1:
                self.record(f"stride{stride}", x)
            stride *= step
            drop = functools.partial(Dropout, self.drop_path * i / (len(BLOCKS) - 1), train, per_example=True)
            x = Block(widths, step, i == 0, conv, norm, drop, name=f"block{i + 1}")(x)
        for i, features in ((3, 1536), (4, 2048)):
            x = nn.relu(norm(name=f"bn{i}")(Separable(features, conv, name=f"sep{i}")(x)))
        self.record("stride32", x)
        return self.classify(self.pool(x), train)


_NAMES = [*((rf"^block1\.{layer}{i}\.", f"block1.rep.{3 * i - 3 + j}.")
            for i in (1, 2) for j, layer in enumerate(("sep", "bn"))),
          *((rf"^(block\d+)\.{layer}{i}\.", rf"\1.rep.{3 * i - 2 + j}.")
            for i in (1, 2, 3) for j, layer in enumerate(("sep", "bn"))),
          (r"skip_conv", "skip"), (r"skip_bn", "skipbn"), (r"^sep", "conv"), (r"depthwise", "conv1"), (r"^head", "fc")]
MODELS = {"xception": Spec(Xception, {}, 2016, "https://arxiv.org/abs/1610.02357", "timm:legacy_xception", 22_855_952,
                           8.4, 79.0, "MACs: timm; top-1: the paper, table 1", {"timm": _NAMES}, 299, 333, "bicubic")}
