"""RegNet X and Y: Radosavovic et al., "Designing Network Design Spaces" (2020), https://arxiv.org/abs/2003.13678.

As torchvision/models/regnet.py. Widths grow linearly with depth and are rounded to few: section 3.3, equations 2 to 4.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from imagenet_jax.models.layers import ConvNorm, Dropout, SqueezeExcite, divisible
from imagenet_jax.models.net import NormNet, Spec


def stages(depth: int, first: int, slope: float, step: float, group: int) -> tuple[tuple[int, int, int], ...]:
    """(blocks, width, group width) of each stage, from the paper's d, w_0, w_a, w_m and g."""
    steps = np.round(np.log((np.arange(depth) * slope + first) / first) / np.log(step))
    widths = (np.round(first * step**steps / 8) * 8).astype(int).tolist()
    return tuple((widths.count(width), divisible(width, min(group, width)), min(group, width))
                 for width in sorted(set(widths)))


class Block(nn.Module):
    """1x1, 3x3 in groups and 1x1 convolutions of one width (section 3.2); the input is added before the last ReLU."""

    width: int
    group: int
    stride: int
    squeezed: int
    conv_norm: Callable[..., ConvNorm]
    drop_path: Callable[..., Dropout]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, width]."""
        y = self.conv_norm(self.width, 1, name="a")(x)
        y = self.conv_norm(self.width, 3, self.stride, groups=self.width // self.group, name="b")(y)
        if self.squeezed:
            y = SqueezeExcite(self.squeezed, dtype=self.dtype, name="se")(y)
        y = self.drop_path()(self.conv_norm(self.width, 1, act=lambda y: y, name="c")(y))
        if x.shape != y.shape:
            x = self.conv_norm(self.width, 1, self.stride, act=lambda x: x, name="proj")(x)
        return nn.relu(x + y)


class RegNet(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        stages: see the function of that name.
        squeeze_excite: Y has it in each block, a quarter as wide as the block's input.
        drop_path: rate at the last block, growing from 0 at the first.
    """

    stages: tuple[tuple[int, int, int], ...]
    squeeze_excite: bool
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, drop path and the statistics of the batch."""
        conv = self.conv_norm(train)
        x = self.record("stride2", conv(32, 3, 2, space_to_depth=self.space_to_depth, name="stem")(x))
        rates = iter(np.linspace(0, self.drop_path, sum(count for count, _, _ in self.stages)).tolist())
        for stage, (count, width, group) in enumerate(self.stages, 1):
            for i in range(count):
                rate, squeezed = next(rates), round(0.25 * x.shape[-1]) if self.squeeze_excite else 0
                drop = lambda rate=rate: Dropout(rate, train, per_example=True)
                x = Block(width, group, 1 if i else 2, squeezed, conv, drop, self.dtype, name=f"stage{stage}_{i}")(x)
            self.record(f"stride{2 ** (stage + 1)}", x)
        return self.classify(self.pool(x), train)


_NAMES = {
    "torchvision": [(r"^stage(\d)_(\d+)\.proj\.", r"trunk_output.block\1.block\1-\2.proj."),
                    (r"^stage(\d)_(\d+)\.", r"trunk_output.block\1.block\1-\2.f."),
                    (r"\.conv\.", ".0."), (r"\.bn\.", ".1."), (r"^head", "fc")],
    "timm": [*((rf"^stage(\d)_{i}\.", rf"s\1.b{i + 1}.") for i in range(30)), (r"\.a\.", ".conv1."),
             (r"\.b\.", ".conv2."), (r"\.c\.", ".conv3."), (r"\.proj\.", ".downsample."), (r"^head", "head.fc")]}


def _spec(name: str, shape: tuple[int, int, float, float, int], *facts: Any) -> Spec:
    return Spec(RegNet, {"stages": stages(*shape), "squeeze_excite": "_y_" in name}, 2020,
                "https://arxiv.org/abs/2003.13678", f"torchvision:{name}", *facts, "torchvision", _NAMES)


MODELS = {name: _spec(name, *row) for name, *row in (
    ("regnet_x_400mf", (22, 24, 24.48, 2.54, 16), 5_495_976, 0.414, 72.834),
    ("regnet_x_800mf", (16, 56, 35.73, 2.28, 16), 7_259_656, 0.8, 75.212),
    ("regnet_x_1_6gf", (18, 80, 34.01, 2.25, 24), 9_190_136, 1.603, 77.04),
    ("regnet_x_3_2gf", (25, 88, 26.31, 2.25, 48), 15_296_552, 3.177, 78.364),
    ("regnet_x_8gf", (23, 80, 49.56, 2.88, 120), 39_572_648, 7.995, 79.344),
    ("regnet_x_16gf", (22, 216, 55.59, 2.1, 128), 54_278_536, 15.941, 80.058),
    ("regnet_x_32gf", (23, 320, 69.86, 2.0, 168), 107_811_560, 31.736, 80.622),
    ("regnet_y_400mf", (16, 48, 27.89, 2.09, 8), 4_344_144, 0.402, 74.046),
    ("regnet_y_800mf", (14, 56, 38.84, 2.4, 16), 6_432_512, 0.834, 76.42),
    ("regnet_y_1_6gf", (27, 48, 20.71, 2.65, 24), 11_202_430, 1.612, 77.95),
    ("regnet_y_3_2gf", (21, 80, 42.63, 2.66, 24), 19_436_338, 3.176, 78.948),
    ("regnet_y_8gf", (17, 192, 76.82, 2.19, 56), 39_381_472, 8.473, 80.032),
    ("regnet_y_16gf", (18, 200, 106.23, 2.48, 112), 83_590_140, 15.912, 80.424),
    ("regnet_y_32gf", (20, 232, 115.89, 2.53, 232), 145_046_770, 32.28, 80.878))}
