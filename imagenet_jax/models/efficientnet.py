"""EfficientNet: Tan & Le (2019), https://arxiv.org/abs/1905.11946, and V2 (2021), https://arxiv.org/abs/2104.00298.

As torchvision/models/efficientnet.py.
"""

import math
from typing import Any

from flax import linen as nn

from imagenet_jax.models.inverted import InvertedNet, Row, timm_names
from imagenet_jax.models.layers import divisible
from imagenet_jax.models.net import Spec

# Table 1 of V1: ratio, window, stride, features, count.
TABLE = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
         (6, 3, 1, 320, 1))
# V2, table 4 for S: the same columns; the first three stages are fused.
TABLES_V2 = {
    "s": ((1, 3, 1, 24, 2), (4, 3, 2, 48, 4), (4, 3, 2, 64, 4), (4, 3, 2, 128, 6), (6, 3, 1, 160, 9),
          (6, 3, 2, 256, 15)),
    "m": ((1, 3, 1, 24, 3), (4, 3, 2, 48, 5), (4, 3, 2, 80, 5), (4, 3, 2, 160, 7), (6, 3, 1, 176, 14),
          (6, 3, 2, 304, 18), (6, 3, 1, 512, 5)),
    "l": ((1, 3, 1, 32, 4), (4, 3, 2, 64, 7), (4, 3, 2, 96, 7), (4, 3, 2, 192, 10), (6, 3, 1, 224, 19),
          (6, 3, 2, 384, 25), (6, 3, 1, 640, 7))}


class EfficientNet(InvertedNet, kw_only=True):
    """See `InvertedNet`."""

    drop_path: float = 0.2


def _rows(table: tuple[tuple[int, ...], ...], stem: int, width: float, depth: float, fused: int) -> tuple[Row, ...]:
    rows, inputs = [], stem
    for stage, (ratio, window, stride, features, count) in enumerate(table, 1):
        for i in range(math.ceil(count * depth)):
            joined = stage <= fused
            rows.append(Row(f"stage{stage}_{i}", divisible(features * width), divisible(ratio * inputs), window,
                            stride if not i else 1, 0 if joined else max(1, inputs // 4), nn.silu, squeeze_act=nn.silu,
                            fused=joined))
            inputs = rows[-1].features
    return tuple(rows)


def _names(rows: tuple[Row, ...], inputs: int) -> list[tuple[str, str]]:
    names = []
    for row in rows:
        stage, i = row.name.removeprefix("stage").split("_")
        names += [(rf"^{row.name}\.{step}\.", f"features.{stage}.{i}.block.{k}.")
                  for k, step in enumerate(row.steps(inputs))]
        inputs = row.features
    return [*names, (r"^stem\.", "features.0."), (r"^last\.", f"features.{int(stage) + 1}."), (r"\.conv\.", ".0."),
            (r"\.bn\.", ".1."), (r"^head", "classifier.1")]


def _spec(letter: str, width: float, depth: float, dropout: float, *facts: Any, resize: int, size: int,
          interpolation: str = "bicubic", **options: Any) -> Spec:
    stem = divisible(32 * width)
    rows = _rows(TABLE, stem, width, depth, fused=0)
    return Spec(EfficientNet, {"rows": rows, "stem": stem, "last": 4 * rows[-1].features, "act": nn.silu,
                               "dropout": dropout, **options}, 2019, "https://arxiv.org/abs/1905.11946",
                f"torchvision:efficientnet_{letter}", *facts, "torchvision",
                {"torchvision": _names(rows, stem), "timm": timm_names(rows, stem)}, size, resize, interpolation)


def _spec_v2(letter: str, dropout: float, *facts: Any, size: int, interpolation: str) -> Spec:
    table = TABLES_V2[letter]
    rows = _rows(table, table[0][3], 1.0, 1.0, fused=3)
    return Spec(EfficientNet, {"rows": rows, "stem": table[0][3], "last": 1280, "act": nn.silu, "dropout": dropout,
                               "bn_epsilon": 1e-3}, 2021, "https://arxiv.org/abs/2104.00298",
                f"torchvision:efficientnet_v2_{letter}", *facts, "torchvision",
                {"torchvision": _names(rows, table[0][3])}, size, size, interpolation)


_TF = {"bn_momentum": 0.99, "bn_epsilon": 1e-3}
MODELS = {
    "efficientnet_b0": _spec("b0", 1.0, 1.0, 0.2, 5_288_548, 0.386, 77.692, size=224, resize=256),
    "efficientnet_b1": _spec("b1", 1.0, 1.1, 0.2, 7_794_184, 0.687, 78.642, size=240, resize=256),
    "efficientnet_b2": _spec("b2", 1.1, 1.2, 0.3, 9_109_994, 1.088, 80.608, size=288, resize=288),
    "efficientnet_b3": _spec("b3", 1.2, 1.4, 0.3, 12_233_232, 1.827, 82.008, size=300, resize=320),
    "efficientnet_b4": _spec("b4", 1.4, 1.8, 0.4, 19_341_616, 4.394, 83.384, size=380, resize=384),
    "efficientnet_b5": _spec("b5", 1.6, 2.2, 0.4, 30_389_784, 10.266, 83.444, size=456, resize=456, **_TF),
    "efficientnet_b6": _spec("b6", 1.8, 2.6, 0.5, 43_040_704, 19.068, 84.008, size=528, resize=528, **_TF),
    "efficientnet_b7": _spec("b7", 2.0, 3.1, 0.5, 66_347_960, 37.746, 84.122, size=600, resize=600, **_TF),
    "efficientnet_v2_s": _spec_v2("s", 0.2, 21_458_488, 8.366, 84.228, size=384, interpolation="bilinear"),
    "efficientnet_v2_m": _spec_v2("m", 0.3, 54_139_356, 24.582, 85.112, size=480, interpolation="bilinear"),
    "efficientnet_v2_l": _spec_v2("l", 0.4, 118_515_272, 56.08, 85.808, size=480, interpolation="bicubic"),
}
