"""MNASNet-B1: Tan et al. (2018), https://arxiv.org/abs/1807.11626, as torchvision/models/mnasnet.py."""

from typing import Any

from flax import linen as nn

from imagenet_jax.models.inverted import InvertedNet, Row
from imagenet_jax.models.layers import divisible
from imagenet_jax.models.net import Spec

# Figure 7: features, ratio, count, window, stride.
TABLE = ((16, 1, 1, 3, 1), (24, 3, 3, 3, 2), (40, 3, 3, 5, 2), (80, 6, 3, 5, 2), (96, 6, 2, 3, 1), (192, 6, 4, 5, 2),
         (320, 6, 1, 3, 1))


class MNASNet(InvertedNet, kw_only=True):
    """See `InvertedNet`."""


def _spec(name: str, width: float, *facts: Any, resize: int = 256) -> Spec:
    rows, names, inputs = [], [], divisible(32 * width)
    for stage, (features, ratio, count, window, stride) in enumerate(TABLE):
        for i in range(count):
            row = Row(f"stage{stage}_{i}", divisible(features * width), ratio * inputs, window, stride if not i else 1,
                      act=nn.relu)
            # torchvision numbers layers, ReLUs too; its first block stands among them without a block of its own.
            prefix, first = (f"layers.{7 + stage}.{i}.layers.", 0) if stage else ("layers.", 3)
            for k, step in enumerate(row.steps(inputs)):
                names += [(rf"^{row.name}\.{step}\.{part}\.", f"{prefix}{first + 3 * k + j}.")
                          for j, part in enumerate(("conv", "bn"))]
            rows.append(row)
            inputs = row.features
    names += [(r"^stem\.conv", "layers.0"), (r"^stem\.bn", "layers.1"), (r"^last\.conv", "layers.14"),
              (r"^last\.bn", "layers.15"), (r"^head", "classifier.1")]
    options = {"rows": tuple(rows), "stem": divisible(32 * width), "last": 1280, "act": nn.relu, "bn_momentum": 0.9997}
    return Spec(MNASNet, options, 2018, "https://arxiv.org/abs/1807.11626", f"torchvision:{name}", *facts,
                "torchvision", {"torchvision": names}, resize=resize)


MODELS = {"mnasnet0_5": _spec("mnasnet0_5", 0.5, 2_218_512, 0.104, 67.734),
          "mnasnet0_75": _spec("mnasnet0_75", 0.75, 3_170_208, 0.215, 71.18, resize=232),
          "mnasnet1_0": _spec("mnasnet1_0", 1.0, 4_383_312, 0.314, 73.456),
          "mnasnet1_3": _spec("mnasnet1_3", 1.3, 6_282_256, 0.526, 76.506, resize=232)}
