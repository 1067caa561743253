"""Networks of inverted residual blocks: what MobileNet, MNASNet and EfficientNet have in common.

A block widens, convolves each channel apart, and narrows again: Sandler et al. (2018), https://arxiv.org/abs/1801.04381.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from imagenet_jax.models.layers import ConvNorm, Dropout, SqueezeExcite, dense, normal
from imagenet_jax.models.net import NormNet

Activation = Callable[[jax.Array], jax.Array]


class Row(NamedTuple):
    """A block, as a row of a paper's table.

    Attributes:
        name: of its module.
        features: of its output.
        expanded: channels inside; the first 1x1 convolution is left out if the input has as many.
        window, stride: of the depthwise convolution.
        squeezed: hidden channels of squeeze-excite, 0 for none.
        act: activation inside.
        gate: of squeeze-excite, whose own activation is `squeeze_act`.
        last_act: after the last 1x1 convolution.
        fused: one full convolution takes the place of the first 1x1 and the depthwise one (EfficientNet V2).
        residual: the input is added if the output has its shape.
    """

    name: str
    features: int
    expanded: int
    window: int
    stride: int
    squeezed: int = 0
    act: Activation = nn.relu6
    gate: Activation = nn.sigmoid
    squeeze_act: Activation = nn.relu
    last_act: Activation = lambda x: x
    fused: bool = False
    residual: bool = True

    def steps(self, inputs: int) -> list[str]:
        """Names of the modules of the block, in order."""
        if self.fused:
            return ["fused"] if self.expanded == inputs else ["fused", "project"]
        return [*(["expand"] if self.expanded != inputs else []), "depthwise", *(["se"] if self.squeezed else []),
                "project"]


class InvertedResidual(nn.Module):
    """The block of a `Row`."""

    row: Row
    conv_norm: Callable[..., ConvNorm]
    drop_path: Callable[..., Dropout]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, features]."""
        row, y = self.row, x
        for step in row.steps(x.shape[-1]):
            if step == "se":
                y = SqueezeExcite(row.squeezed, row.squeeze_act, row.gate, self.dtype, name="se")(y)
                continue
            features, window, stride, groups, act = {
                "expand": (row.expanded, 1, 1, 1, row.act),
                "depthwise": (row.expanded, row.window, row.stride, row.expanded, row.act),
                "fused": (row.expanded, row.window, row.stride, 1, row.act),
                "project": (row.features, 1, 1, 1, row.last_act)}[step]
            y = self.conv_norm(features, window, stride, groups=groups, act=act, name=step)(y)
        return self.drop_path()(y) + x if row.residual and x.shape == y.shape else y


class InvertedNet(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        rows: the blocks.
        stem, last: features of the 3x3 convolution before and of the 1x1 convolution after them; 0 for none.
        hidden: features of a dense layer before the head, 0 for none.
        act: activation of stem, last convolution and dense layer.
        drop_path: rate that the last block would be followed by, growing from 0 at the first.
    """

    rows: tuple[Row, ...]
    stem: int
    last: int
    hidden: int = 0
    act: Activation = nn.relu6
    dropout: float = 0.2
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, drop path and the statistics of the batch."""
        conv, stride = functools.partial(self.conv_norm(train), act=self.act), 2
        x = conv(self.stem, 3, 2, space_to_depth=self.space_to_depth, name="stem")(x)
        for row, rate in zip(self.rows, np.linspace(0, self.drop_path, len(self.rows), endpoint=False), strict=True):
            if row.stride > 1:
                self.record(f"stride{stride}", x)
                stride *= row.stride
            drop = functools.partial(Dropout, float(rate), train, per_example=True)
            x = InvertedResidual(row, self.conv_norm(train), drop, self.dtype, name=row.name)(x)
        x = conv(self.last, 1, name="last")(x) if self.last else x
        self.record(f"stride{stride}", x)
        x = self.pool(x)
        if self.hidden:
            x = self.act(dense(self.hidden, "hidden", x.dtype, normal(0.01), nn.initializers.zeros)(x))
        return self.classify(x, train)


def timm_names(rows: tuple[Row, ...], inputs: int) -> list[tuple[str, str]]:
    """timm's names of a network whose rows are called stageS_I, from `inputs` channels of the stem on."""
    names = []
    for row in rows:
        stage, i = row.name.removeprefix("stage").split("_")
        prefix, narrow = rf"^{row.name}\.", "expand" not in row.steps(inputs)
        if row.fused:
            words = {"fused": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")} if "project" in row.steps(inputs) \
                else {"fused": ("conv", "bn1")}
        else:
            words = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn1" if narrow else "bn2"),
                     "project": ("conv_pw" if narrow else "conv_pwl", "bn2" if narrow else "bn3")}
        for step, (conv, norm) in words.items():
            block = f"blocks.{int(stage) - 1}.{i}."
            names += [(rf"{prefix}{step}\.conv\.", f"{block}{conv}."), (rf"{prefix}{step}\.bn\.", f"{block}{norm}.")]
        names.append((rf"{prefix}se\.fc1", f"blocks.{int(stage) - 1}.{i}.se.conv_reduce"))
        names.append((rf"{prefix}se\.fc2", f"blocks.{int(stage) - 1}.{i}.se.conv_expand"))
        inputs = row.features
    return [*names, (r"^stem\.conv", "conv_stem"), (r"^stem\.bn", "bn1"), (r"^last\.conv", "conv_head"),
            (r"^last\.bn", "bn2"), (r"^head", "classifier")]
