"""ConvNeXt: Liu et al. (2022), https://arxiv.org/abs/2201.03545; V2: Woo et al. (2023), 2301.00808 there.

As torchvision/models/convnext.py, and timm/models/convnext.py for V2, which has global response normalisation in
place of layer scale.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imagenet_jax.models.layers import Conv, Dropout, dense, layer_norm, normal, param_dtype
from imagenet_jax.models.net import Net, Spec


class GlobalResponseNorm(nn.Module):
    """Scales channels by their norm over the image, relative to the mean norm: V2, algorithm 1."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] -> the same shape."""
        full = param_dtype(self.dtype)
        scale, bias = (self.param(name, nn.initializers.zeros, (x.shape[-1],), full) for name in ("scale", "bias"))
        norm = jnp.sqrt(jnp.square(x.astype(full)).sum((1, 2), keepdims=True))
        relative = (norm / (norm.mean(-1, keepdims=True) + 1e-6)).astype(self.dtype)
        return x + (scale.astype(self.dtype) * (x * relative) + bias.astype(self.dtype))


class Block(nn.Module):
    """7x7 depthwise convolution, LayerNorm, two dense layers on each pixel with 4x expansion, residual."""

    layer_scale: float
    conv: Callable[..., Conv]
    drop_path: Callable[..., Dropout]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] -> the same shape."""
        channels = x.shape[-1]
        linear = functools.partial(dense, dtype=self.dtype, kernel_init=normal(0.02), bias_init=nn.initializers.zeros)
        y = self.conv(channels, 7, groups=channels, name="conv")(x)
        y = linear(4 * channels, "fc1")(layer_norm("norm", self.dtype)(y))
        y = nn.gelu(y, approximate=False)
        if not self.layer_scale:
            y = GlobalResponseNorm(self.dtype, name="grn")(y)
        y = linear(channels, "fc2")(y)
        if self.layer_scale:
            scale = self.param("layer_scale", nn.initializers.constant(self.layer_scale), (channels,),
                               param_dtype(self.dtype))
            y *= scale.astype(self.dtype)
        return x + self.drop_path()(y)


class ConvNeXt(Net, kw_only=True):
    """See `Net`.

    Attributes:
        blocks, widths: of the four stages.
        layer_scale: what branches are first scaled by; 0 for V2.
        drop_path: rate at the last block, growing from 0 at the first.

    Raises:
        UserError: images of less than 32 px.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    layer_scale: float = 1e-6
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and drop path."""
        self.need(x, 32)
        conv = functools.partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=normal(0.02))
        rates = iter(np.linspace(0, self.drop_path, sum(self.blocks)).tolist())
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
            if stage == 1:
                x = conv(width, 4, 4, 0, space_to_depth=self.space_to_depth, name="stem_conv")(x)
                x = layer_norm("stem_norm", self.dtype)(x)
            else:
                x = layer_norm(f"downsample{stage}_norm", self.dtype)(x)
                x = conv(width, 2, 2, 0, name=f"downsample{stage}_conv")(x)
            for i in range(count):
                drop = functools.partial(Dropout, next(rates), train, per_example=True)
                x = Block(self.layer_scale, conv, drop, self.dtype, name=f"stage{stage}_{i}")(x)
            self.record(f"stride{2 ** (stage + 1)}", x)
        x = self.pool(x)
        return self.classify(layer_norm("norm", x.dtype)(x), train, normal(0.02))


_TORCHVISION = [(r"^stem_conv", "features.0.0"), (r"^stem_norm", "features.0.1"), (r"^norm", "classifier.0"),
                *((rf"^downsample{stage}_{layer}", f"features.{2 * stage - 2}.{i}")
                  for stage in (2, 3, 4) for i, layer in enumerate(("norm", "conv"))),
                *((rf"^stage{stage}_(\d+)\.{layer}\.", rf"features.{2 * stage - 1}.\1.block.{i}.")
                  for stage in (1, 2, 3, 4) for i, layer in ((0, "conv"), (2, "norm"), (3, "fc1"), (5, "fc2"))),
                *((rf"^stage{stage}_(\d+)\.layer_scale", rf"features.{2 * stage - 1}.\1.layer_scale|1x1")
                  for stage in (1, 2, 3, 4)), (r"^head", "classifier.2")]
_TIMM = [(r"^stem_conv", "stem.0"), (r"^stem_norm", "stem.1"), (r"^norm", "head.norm"),
         (r"^head\.(?!norm)", "head.fc."),
         *((rf"^downsample{stage}_{layer}", f"stages.{stage - 1}.downsample.{i}")
           for stage in (2, 3, 4) for i, layer in enumerate(("norm", "conv"))),
         *((rf"^stage{stage}_(\d+)\.", rf"stages.{stage - 1}.blocks.\1.") for stage in (1, 2, 3, 4)),
         (r"\.conv\.", ".conv_dw."), (r"\.(fc\d|grn)\.", r".mlp.\1."), (r"layer_scale", "gamma"), (r"head.mlp", "head")]
_TIMM_CONV = [*_TIMM, (r"(mlp\.fc\d\.weight)", r"\1|1x1")]  # the smaller V2 nets write dense layers as convolutions


def _spec(name: str, blocks: tuple[int, ...], width: int, drop_path: float, resize: int, *facts: Any) -> Spec:
    options = {"blocks": blocks, "widths": (width, 2 * width, 4 * width, 8 * width), "drop_path": drop_path}
    if "v2" not in name:
        return Spec(ConvNeXt, options, 2022, "https://arxiv.org/abs/2201.03545", f"torchvision:{name}", *facts,
                    "torchvision", {"torchvision": _TORCHVISION, "timm": _TIMM}, 224, resize)
    small = name.endswith(("atto", "femto", "pico", "nano"))
    return Spec(ConvNeXt, {**options, "layer_scale": 0.0}, 2023, "https://arxiv.org/abs/2301.00808", f"timm:{name}",
                *facts, "https://github.com/facebookresearch/ConvNeXt-V2", {"timm": _TIMM_CONV if small else _TIMM},
                224, resize, "bicubic")


MODELS = {name: _spec(name, *row) for name, *row in (
    ("convnext_tiny", (3, 3, 9, 3), 96, 0.1, 236, 28_589_128, 4.456, 82.52),
    ("convnext_small", (3, 3, 27, 3), 96, 0.4, 230, 50_223_688, 8.684, 83.616),
    ("convnext_base", (3, 3, 27, 3), 128, 0.5, 232, 88_591_464, 15.355, 84.062),
    ("convnext_large", (3, 3, 27, 3), 192, 0.5, 232, 197_767_336, 34.361, 84.414),
    ("convnextv2_atto", (2, 2, 6, 2), 40, 0.0, 256, 3_708_400, 0.55, 76.7),
    ("convnextv2_femto", (2, 2, 6, 2), 48, 0.0, 256, 5_233_240, 0.78, 78.5),
    ("convnextv2_pico", (2, 2, 6, 2), 64, 0.0, 256, 9_066_280, 1.37, 80.3),
    ("convnextv2_nano", (2, 2, 8, 2), 80, 0.0, 256, 15_623_800, 2.45, 81.9),
    ("convnextv2_tiny", (3, 3, 9, 3), 96, 0.0, 256, 28_635_496, 4.47, 83.0),
    ("convnextv2_base", (3, 3, 27, 3), 128, 0.0, 256, 88_717_800, 15.4, 84.9),
    ("convnextv2_large", (3, 3, 27, 3), 192, 0.0, 256, 197_956_840, 34.4, 85.8))}
