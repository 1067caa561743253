"""ResNets: He et al. (2015), https://arxiv.org/abs/1512.03385, and what was published in their shape.

- v1.5, plain `resnet50`: a bottleneck strides in its 3x3 convolution, as torchvision/models/resnet.py; `stride_first`
  is v1 as in the paper, where its first 1x1 does.
- v2, `resnetv2_50`: BatchNorm and ReLU before each convolution, He et al. (2016), https://arxiv.org/abs/1603.05027.
- Wide ResNet, https://arxiv.org/abs/1605.07146; ResNeXt, https://arxiv.org/abs/1611.05431; SE, https://arxiv.org/abs/1709.01507.
- D, He et al., "Bag of Tricks" (2018), https://arxiv.org/abs/1812.01187: three 3x3 convolutions as stem, shortcuts by
  average pooling.
- Anti-aliased, Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019), https://arxiv.org/abs/1904.11486:
  a stride-1 operation and a fixed blur (`resnetblur50`) or an average pooling (`resnetaa50`) take the place of strides
  in the stem's pooling and in the 3x3 convolutions, where timm/models/resnet.py has them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import BatchNorm, Conv, Dropout, SqueezeExcite
from imagenet_jax.models.lowering import avg_pool, conv2d, max_pool
from imagenet_jax.models.net import NormNet, Spec


def blur_pool(x: jax.Array) -> jax.Array:
    """x [B, H, W, C] -> [B, H / 2, W / 2, C] through the filter 1-2-1 both ways, on reflected edges."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    row = np.array([1, 2, 1]) / 4
    kernel = jnp.asarray(row[:, None] * row, x.dtype)[..., None, None]
    return conv2d(x, jnp.tile(kernel, (1, 1, 1, x.shape[-1])), 2, groups=x.shape[-1])


def average_2x2(x: jax.Array) -> jax.Array:
    """x [B, H, W, C] -> [B, H / 2, W / 2, C]."""
    return avg_pool(x, 2, 2, ceil=True, count_padding=False)


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1 - 3x3 - 1x1; the input is added at the end.

    Attributes:
        features: of the output.
        width: of the convolutions in between.
        pre_activation: BatchNorm and ReLU come before each convolution (v2), so nothing follows the addition.
        downsample: the first block of a stage, whose shortcut has a convolution.
        blur: takes over the stride of the 3x3 convolution, if given.
    """

    features: int
    width: int
    stride: int
    bottleneck: bool
    groups: int
    downsample: bool
    pre_activation: bool
    stride_first: bool
    average_shortcut: bool
    squeeze: int
    blur: Callable[[jax.Array], jax.Array] | None
    drop_path: Callable[..., Dropout]
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    last_scale_init: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, features]."""
        act = lambda i, y: nn.relu(self.norm(name=f"{'norm' if self.pre_activation else 'bn'}{i}")(y))
        y = x
        if self.pre_activation:
            y = act(1, y)
        shortcut = self._shortcut(y if self.pre_activation and self.downsample else x)
        plan = [(self.width, 1), (self.width, 3), (self.features, 1)] if self.bottleneck else \
            [(self.width, 3), (self.features, 3)]
        strided = 0 if self.stride_first or not self.bottleneck else 1
        for i, (features, window) in enumerate(plan, 1):
            if self.pre_activation and i > 1:
                y = act(i, y)
            blurred = self.blur is not None and i == strided + 1 and self.stride > 1
            stride = self.stride if i == strided + 1 and not blurred else 1
            groups = self.groups if window == 3 else 1
            y = self.conv(features, window, stride, groups=groups, name=f"conv{i}")(y)
            if not self.pre_activation:
                last = i == len(plan)
                y = self.norm(name=f"bn{i}", scale_init=self.last_scale_init)(y) if last else act(i, y)
            if blurred:
                y = self.blur(y)
        if self.squeeze:
            y = SqueezeExcite(self.squeeze, dtype=y.dtype, name="se")(y)
        y = self.drop_path(name="drop_path")(y) + shortcut
        return y if self.pre_activation else nn.relu(y)

    def _shortcut(self, x: jax.Array) -> jax.Array:
        if not self.downsample:
            return x
        stride = self.stride
        if self.average_shortcut and stride > 1:
            x, stride = average_2x2(x), 1
        x = self.conv(self.features, 1, stride, name="downsample_conv")(x)
        return x if self.pre_activation else self.norm(name="downsample_bn")(x)


class ResNet(NormNet, kw_only=True):
    """See `NormNet`.

    Raises:
        UserError: `anti_aliasing` is not what it can be.

    Attributes:
        blocks: of each of the four stages.
        bottleneck: blocks of three convolutions with 4x expansion, not of two.
        groups, group_width: of the 3x3 convolutions, whose width is `groups * group_width` per 64 of the plain net's.
        pre_activation, stride_first: v2, v1; see above.
        deep_stem, average_shortcut: the D variant.
        squeeze_excite: a SqueezeExcite block at the end of each branch.
        anti_aliasing: 'blur' or 'average', see above.
        width: channels of the stem.
        zero_init_residual: the last BatchNorm scale of a branch starts at zero (Goyal et al. 2017, section 5.1).
        drop_path: rate at the last block, growing from 0 at the first.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    groups: int = 1
    group_width: int = 64
    pre_activation: bool = False
    stride_first: bool = False
    deep_stem: bool = False
    average_shortcut: bool = False
    squeeze_excite: bool = False
    anti_aliasing: str = ""
    width: int = 64
    zero_init_residual: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and the statistics of the batch."""
        if self.anti_aliasing not in ("", *BLURS):
            raise UserError(f"model.anti_aliasing: {self.anti_aliasing!r} is not one of {', '.join(BLURS)}")
        conv, norm = functools.partial(Conv, dtype=self.dtype), self.norm(train)
        x = self._stem(x, conv, norm)
        rates = iter(np.linspace(0, self.drop_path, sum(self.blocks)))
        for stage, count in enumerate(self.blocks):
            base = self.width * 2**stage
            features = base * (4 if self.bottleneck else 1)
            for i in range(count):
                stride = 2 if stage and not i else 1
                x = Block(features, base * self.groups * self.group_width // 64, stride, self.bottleneck, self.groups,
                          x.shape[-1] != features or stride > 1, self.pre_activation, self.stride_first,
                          self.average_shortcut, self._squeezed(features), BLURS.get(self.anti_aliasing),
                          functools.partial(Dropout, next(rates), train, per_example=True), conv, norm,
                          nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones,
                          name=f"layer{stage + 1}_{i}")(x)
            self.record(f"stride{4 * 2**stage}", x)
        if self.pre_activation:
            x = nn.relu(norm(name="norm")(x))
        return self.classify(self.pool(x), train)

    def _squeezed(self, features: int) -> int:
        return 0 if not self.squeeze_excite else max(8, (features // 16 + 4) // 8 * 8)

    def _stem(self, x: jax.Array, conv: Callable[..., Conv], norm: Callable[..., BatchNorm]) -> jax.Array:
        if self.deep_stem:
            for i, (features, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1)), 1):
                x = conv(features, 3, stride, space_to_depth=self.space_to_depth and i == 1, name=f"stem_conv{i}")(x)
                x = nn.relu(norm(name=f"stem_bn{i}")(x))
            x = conv(self.width, 3, name="conv1")(x)
        else:
            x = conv(self.width, 7, 2, space_to_depth=self.space_to_depth, name="conv1")(x)
        if not self.pre_activation:
            x = nn.relu(norm(name="bn1")(x))
        self.record("stride2", x)
        if self.anti_aliasing == "average":
            return avg_pool(x, 2, 2)
        return blur_pool(max_pool(x, 3, 1, 1)) if self.anti_aliasing == "blur" else max_pool(x, 3, 2, 1)


BLURS = {"blur": blur_pool, "average": average_2x2}

# Blocks in each stage, and whether they are bottlenecks: table 1 of He et al. 2015.
DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True),
          101: ((3, 4, 23, 3), True), 152: ((3, 8, 36, 3), True)}
V1, V2 = "https://arxiv.org/abs/1512.03385", "https://arxiv.org/abs/1603.05027"
WIDE, NEXT = "https://arxiv.org/abs/1605.07146", "https://arxiv.org/abs/1611.05431"
SE, TRICKS = "https://arxiv.org/abs/1709.01507", "https://arxiv.org/abs/1812.01187"
BLURRED = "https://arxiv.org/abs/1904.11486"


_BLOCKS = (r"^layer(\d)_(\d+)\.", r"layer\1.\2.")
_V1_NAMES = [_BLOCKS, (r"downsample_conv", "downsample.0"), (r"downsample_bn", "downsample.1"), (r"^head", "fc")]
_D_NAMES = [(r"^conv1", "conv1.6"), (r"^stem_conv1", "conv1.0"), (r"^stem_bn1", "conv1.1"), (r"^stem_conv2", "conv1.3"),
            (r"^stem_bn2", "conv1.4"), (r"downsample_conv", "downsample.1"), (r"downsample_bn", "downsample.2"),
            *_V1_NAMES]
_V2_NAMES = [*((rf"^layer{i + 1}_(\d+)\.", rf"stages.{i}.blocks.\1.") for i in range(4)), (r"^conv1", "stem.conv"),
             (r"downsample_conv", "downsample.conv"),
             (r"^head\.weight", "head.fc.weight|1x1"), (r"^head\.bias", "head.fc.bias")]


def _spec(depth: int, reference: str, year: int, paper: str, params: int, gmacs: float, top1: float | None = None,
          view: tuple[int, int, str] = (224, 256, "bilinear"), source: str = "", **options: Any) -> Spec:
    blocks, bottleneck = DEPTHS[depth]
    patterns = _V2_NAMES if options.get("pre_activation") else _D_NAMES if options.get("deep_stem") else _V1_NAMES
    names = {library: patterns for library in ("torchvision", "timm") if reference.startswith((library, "torchvision"))}
    return Spec(ResNet, {"blocks": blocks, "bottleneck": bottleneck, **options}, year, paper, reference, params, gmacs,
                top1, source or reference.split(":")[0], names, *view)


MODELS = {
    "resnet18": _spec(18, "torchvision:resnet18", 2015, V1, 11_689_512, 1.814, 69.758),
    "resnet34": _spec(34, "torchvision:resnet34", 2015, V1, 21_797_672, 3.664, 73.314),
    "resnet50": _spec(50, "torchvision:resnet50", 2015, V1, 25_557_032, 4.089, 76.13),
    "resnet101": _spec(101, "torchvision:resnet101", 2015, V1, 44_549_160, 7.801, 77.374),
    "resnet152": _spec(152, "torchvision:resnet152", 2015, V1, 60_192_808, 11.514, 78.312),
    "resnet50_v1": _spec(50, "", 2015, V1, 25_557_032, 3.86, 75.3, stride_first=True,
                         source="MACs: table 2 of https://arxiv.org/abs/1709.01507; top-1: "
                                "https://github.com/KaimingHe/deep-residual-networks, 1 crop"),
    "wide_resnet50_2": _spec(50, "torchvision:wide_resnet50_2", 2016, WIDE, 68_883_240, 11.398, 78.468,
                             group_width=128),
    "wide_resnet101_2": _spec(101, "torchvision:wide_resnet101_2", 2016, WIDE, 126_886_696, 22.753, 78.848,
                              group_width=128),
    "resnext50_32x4d": _spec(50, "torchvision:resnext50_32x4d", 2016, NEXT, 25_028_904, 4.23, 77.618, groups=32,
                             group_width=4),
    "resnext101_32x8d": _spec(101, "torchvision:resnext101_32x8d", 2016, NEXT, 88_791_336, 16.414, 79.312, groups=32,
                              group_width=8),
    "resnext101_64x4d": _spec(101, "torchvision:resnext101_64x4d", 2016, NEXT, 83_455_272, 15.46, 83.246,
                              (224, 232, "bilinear"), groups=64, group_width=4),
}
# Multiply-adds of timm's are from results/benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv there.
for _depth, _v2, _se, _d in (
        (18, (11_687_720, 1.82), (11_779_624, 1.82), (11_708_744, 2.06)),
        (34, (21_795_880, 3.67), (21_960_416, 3.67), (21_816_904, 3.91)),
        (50, (25_549_352, 4.11), (28_088_024, 4.11, 76.71), (25_576_264, 4.35, 77.16)),
        (101, (44_541_480, 7.83), (49_326_872, 7.84, 77.62), (44_568_392, 8.08)),
        (152, (60_185_128, 11.55), (66_821_848, 11.57, 78.43), (60_212_040, 11.8))):
    MODELS |= {
        f"resnetv2_{_depth}": _spec(_depth, f"timm:resnetv2_{_depth}", 2016, V2, *_v2, pre_activation=True),
        f"seresnet{_depth}": _spec(_depth, f"timm:seresnet{_depth}", 2017, SE, *_se, squeeze_excite=True,
                                   source="MACs: timm; top-1: the paper, table 2"),
        f"resnet{_depth}d": _spec(_depth, f"timm:resnet{_depth}d", 2018, TRICKS, *_d, deep_stem=True,
                                  average_shortcut=True, source="MACs: timm; top-1: the paper, table 5")}
MODELS |= {
    "seresnext50_32x4d": _spec(50, "timm:seresnext50_32x4d", 2017, SE, 27_559_896, 4.26, 78.9, squeeze_excite=True,
                               groups=32, group_width=4, source="MACs: timm; top-1: the paper, table 2"),
    "resnetblur18": _spec(18, "timm:resnetblur18", 2019, BLURRED, 11_689_512, 2.34, anti_aliasing="blur"),
    "resnetblur50": _spec(50, "timm:resnetblur50", 2019, BLURRED, 25_557_032, 5.16, anti_aliasing="blur"),
    "resnetaa50": _spec(50, "timm:resnetaa50", 2019, BLURRED, 25_557_032, 5.15, anti_aliasing="average"),
}
