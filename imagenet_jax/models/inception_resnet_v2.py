"""Inception-ResNet v2: Szegedy et al. (2016), https://arxiv.org/abs/1602.07261, figures 3 and 15 to 19.

As timm/models/inception_resnet_v2.py, which follows TensorFlow's code: the stem of Inception v3, and residual branches
scaled down before they are added.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from imagenet_jax.models.inception_v3 import halve
from imagenet_jax.models.inception_v4 import average
from imagenet_jax.models.layers import Branches, Conv, ConvNorm, Dropout
from imagenet_jax.models.net import NormNet, Spec

MIXED_5B = ((("branch0", 96, 1),),
            (("branch1_0", 48, 1), ("branch1_1", 64, 5)),
            (("branch2_0", 64, 1), ("branch2_1", 96, 3), ("branch2_2", 96, 3)),
            (average, ("branch3_1", 64, 1)))
BLOCK_35 = ((("branch0", 32, 1),),
            (("branch1_0", 32, 1), ("branch1_1", 32, 3)),
            (("branch2_0", 32, 1), ("branch2_1", 48, 3), ("branch2_2", 64, 3)))
MIXED_6A = ((("branch0", 384, 3, 2, 0),),
            (("branch1_0", 256, 1), ("branch1_1", 256, 3), ("branch1_2", 384, 3, 2, 0)),
            (halve,))
BLOCK_17 = ((("branch0", 192, 1),),
            (("branch1_0", 128, 1), ("branch1_1", 160, (1, 7)), ("branch1_2", 192, (7, 1))))
MIXED_7A = ((("branch0_0", 256, 1), ("branch0_1", 384, 3, 2, 0)),
            (("branch1_0", 256, 1), ("branch1_1", 288, 3, 2, 0)),
            (("branch2_0", 256, 1), ("branch2_1", 288, 3), ("branch2_2", 320, 3, 2, 0)),
            (halve,))
BLOCK_8 = ((("branch0", 192, 1),),
           (("branch1_0", 192, 1), ("branch1_1", 224, (1, 3)), ("branch1_2", 256, (3, 1))))
# A reduction, then residual blocks: name, branches, how many, scale.
STAGES = (("mixed_5b", MIXED_5B, "repeat", BLOCK_35, 10, 0.17), ("mixed_6a", MIXED_6A, "repeat_1", BLOCK_17, 20, 0.1),
          ("mixed_7a", MIXED_7A, "repeat_2", BLOCK_8, 9, 0.2))


class Residual(nn.Module):
    """Branches, joined by a 1x1 convolution without activation, scaled and added to the input."""

    branches: tuple
    scale: float
    conv_norm: Callable[..., ConvNorm]
    drop_path: Callable[..., Dropout]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] -> the same shape."""
        y = Branches(self.branches, self.conv_norm, name="mix")(x)
        y = Conv(x.shape[-1], 1, use_bias=True, dtype=y.dtype, name="conv2d")(y)
        return x + self.scale * self.drop_path()(y)


class InceptionResNetV2(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        drop_path: rate of each residual branch.

    Raises:
        UserError: images of less than 75 px.
    """

    dropout: float = 0.2
    drop_path: float = 0.0
    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, drop path and the statistics of the batch."""
        self.need(x, 75)
        conv = self.conv_norm(train)
        drop = lambda: Dropout(self.drop_path, train, per_example=True)
        x = conv(32, 3, 2, 0, space_to_depth=self.space_to_depth, name="conv2d_1a")(x)
        x = conv(64, 3, name="conv2d_2b")(conv(32, 3, 1, 0, name="conv2d_2a")(x))
        x = halve(self.record("stride2", x))
        x = conv(192, 3, 1, 0, name="conv2d_4a")(conv(80, 1, name="conv2d_3b")(x))
        x = halve(self.record("stride4", x))
        for stage, (reduction, branches, name, block, count, scale) in enumerate(STAGES):
            x = Branches(branches, conv, name=reduction)(x)
            for i in range(count):
                x = nn.relu(Residual(block, scale, conv, drop, name=f"{name}_block{i}")(x))
            if stage < 2:
                self.record(f"stride{8 * 2**stage}", x)
        x = Residual(BLOCK_8, 1.0, conv, drop, name="block8")(x)
        x = self.record("stride32", conv(1536, 1, name="conv2d_7b")(x))
        return self.classify(self.pool(x), train)


_NAMES = [(r"\.mix\.", "."), (r"branch(\d)_(\d)", r"branch\1.\2"), (r"_block(\d+)", r".\1"), (r"^head", "classif")]
MODELS = {"inception_resnet_v2": Spec(
    InceptionResNetV2, {}, 2016, "https://arxiv.org/abs/1602.07261", "timm:inception_resnet_v2", 55_843_464, 13.18,
    80.1, "MACs: timm; top-1: the paper, table 2", {"timm": _NAMES}, 299, 333, "bicubic")}
