"""MobileNet v1: Howard et al. (2017), https://arxiv.org/abs/1704.04861; v2: Sandler et al. (2018),
https://arxiv.org/abs/1801.04381; v3: Howard et al. (2019), https://arxiv.org/abs/1905.02244.

v1 as timm's mobilenetv1_100, v2 and v3 as torchvision/models/mobilenetv2.py and mobilenetv3.py.
"""

from typing import Any

from flax import linen as nn

from imagenet_jax.models.inverted import InvertedNet, Row, timm_names
from imagenet_jax.models.layers import divisible
from imagenet_jax.models.net import Spec

V1 = "https://arxiv.org/abs/1704.04861"
V2 = "https://arxiv.org/abs/1801.04381"
V3 = "https://arxiv.org/abs/1905.02244"


class MobileNet(InvertedNet, kw_only=True):
    """See `InvertedNet`."""


def _v1_rows() -> tuple[Row, ...]:
    rows, inputs = [], 32
    for stage, (features, stride, count) in enumerate(
            ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2)), 1):  # table 1
        for i in range(count):
            rows.append(Row(f"stage{stage}_{i}", features, inputs, 3, stride if not i else 1, last_act=nn.relu6,
                            residual=False))
            inputs = features
    return tuple(rows)


def _v2_rows() -> tuple[Row, ...]:
    rows, inputs = [], 32
    for stage, (ratio, features, count, stride) in enumerate(
            ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
             (6, 320, 1, 1)), 1):  # table 2
        for i in range(count):
            rows.append(Row(f"stage{stage}_{i}", features, ratio * inputs, 3, stride if not i else 1))
            inputs = features
    return tuple(rows)


# Tables 1 and 2 of v3: window, expanded, features, squeeze-excite, hard swish, stride.
V3_LARGE = ((3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
            (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1),
            (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1),
            (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1))
V3_SMALL = ((3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
            (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1),
            (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1))


def _v3_spec(name: str, table: tuple[tuple[int, ...], ...], hidden: int, *facts: Any) -> Spec:
    rows = tuple(
        Row(f"block{i}", features, expanded, window, stride, divisible(expanded // 4) if squeeze else 0,
            nn.hard_swish if swish else nn.relu, nn.hard_sigmoid)
        for i, (window, expanded, features, squeeze, swish, stride) in enumerate(table, 1))
    names, inputs = [], 16
    for i, row in enumerate(rows, 1):
        names += [(rf"^{row.name}\.{step}\.", f"features.{i}.block.{k}.") for k, step in enumerate(row.steps(inputs))]
        inputs = row.features
    names += [(r"^stem\.", "features.0."), (r"^last\.", f"features.{len(rows) + 1}."), (r"\.conv\.", ".0."),
              (r"\.bn\.", ".1."), (r"^hidden", "classifier.0"), (r"^head", "classifier.3")]
    options = {"rows": rows, "stem": 16, "last": 6 * rows[-1].features, "hidden": hidden, "act": nn.hard_swish,
               "bn_momentum": 0.99, "bn_epsilon": 1e-3}
    return Spec(MobileNet, options, 2019, V3, f"torchvision:{name}", *facts, "torchvision", {"torchvision": names})


def _v2_names() -> list[tuple[str, str]]:
    names, inputs = [], 32
    for n, row in enumerate(_v2_rows(), 1):
        steps = row.steps(inputs)
        names += [(rf"^{row.name}\.{step}\.{part}\.", f"features.{n}.conv.{k}.{j}.")
                  for k, step in enumerate(steps[:-1]) for j, part in enumerate(("conv", "bn"))]
        names += [(rf"^{row.name}\.project\.{part}\.", f"features.{n}.conv.{len(steps) - 1 + j}.")
                  for j, part in enumerate(("conv", "bn"))]
        inputs = row.features
    return [*names, (r"^stem\.conv", "features.0.0"), (r"^stem\.bn", "features.0.1"),
            (r"^last\.conv", "features.18.0"), (r"^last\.bn", "features.18.1"), (r"^head", "classifier.1")]


MODELS = {
    "mobilenet_v1": Spec(MobileNet, {"rows": _v1_rows(), "stem": 32, "last": 0}, 2017, V1, "timm:mobilenetv1_100",
                         4_231_976, 0.569, 70.6, "the paper, table 8", {"timm": timm_names(_v1_rows(), 32)}),
    "mobilenet_v2": Spec(MobileNet, {"rows": _v2_rows(), "stem": 32, "last": 1280}, 2018, V2,
                         "torchvision:mobilenet_v2", 3_504_872, 0.301, 71.878, "torchvision",
                         {"torchvision": _v2_names(), "timm": timm_names(_v2_rows(), 32)}),
    "mobilenet_v3_large": _v3_spec("mobilenet_v3_large", V3_LARGE, 1280, 5_483_032, 0.217, 74.042),
    "mobilenet_v3_small": _v3_spec("mobilenet_v3_small", V3_SMALL, 1024, 2_542_856, 0.057, 67.668),
}
