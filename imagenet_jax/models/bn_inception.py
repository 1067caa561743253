"""BN-Inception, or Inception v2: Ioffe & Szegedy, "Batch Normalization" (2015), https://arxiv.org/abs/1502.03167.

The net of figure 5: GoogLeNet's blocks with two 3x3 convolutions in place of the 5x5 one, more average pooling, and
blocks 3c and 4e that halve the image with stride 2 instead of pooling before them.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import Branches
from imagenet_jax.models.lowering import avg_pool, max_pool
from imagenet_jax.models.net import NormNet, Spec

# Figure 5: 1x1; 3x3 after a reduction; double 3x3 after a reduction; pooling and its projection. No 1x1: stride 2.
BLOCKS = {"3a": (64, 64, 64, 64, 96, "avg", 32), "3b": (64, 64, 96, 64, 96, "avg", 64),
          "3c": (0, 128, 160, 64, 96, "max", 0),
          "4a": (224, 64, 96, 96, 128, "avg", 128), "4b": (192, 96, 128, 96, 128, "avg", 128),
          "4c": (160, 128, 160, 128, 160, "avg", 128), "4d": (96, 128, 192, 160, 192, "avg", 128),
          "4e": (0, 128, 192, 192, 256, "max", 0),
          "5a": (352, 192, 320, 160, 224, "avg", 128), "5b": (352, 192, 320, 192, 224, "max", 128)}


def inception(alone: int, reduce3: int, conv3: int, reduce33: int, conv33: int, pool: str, pooled: int) -> tuple:
    """The branches of a block."""
    stride = 1 if alone else 2

    def pooling(x: jax.Array) -> jax.Array:
        if stride == 2:
            odd = [(0, side % 2) for side in x.shape[1:3]]  # a side the convolutions round up; zeros lose to ReLU
            return max_pool(jnp.pad(x, ((0, 0), *odd, (0, 0))), 3, 2, ceil=True)
        return max_pool(x, 3, 1, 1) if pool == "max" else avg_pool(x, 3, 1, 1)

    branches = ((("3x3_reduce", reduce3, 1), ("3x3", conv3, 3, stride)),
                (("double_3x3_reduce", reduce33, 1), ("double_3x3_1", conv33, 3), ("double_3x3_2", conv33, 3, stride)))
    if stride == 2:
        return (*branches, (pooling,))
    return ((("1x1", alone, 1),), *branches, (pooling, ("pool_proj", pooled, 1)))


class BNInception(NormNet, kw_only=True):
    """See `NormNet`; features are [B, 1024].

    Raises:
        UserError: images of less than 7 px.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on the statistics of the batch."""
        self.need(x, 7)
        conv = self.conv_norm(train)
        x = self.record("stride2", conv(64, 7, 2, space_to_depth=self.space_to_depth, name="conv1")(x))
        x = conv(64, 1, name="conv2_reduce")(max_pool(x, 3, 2, ceil=True))
        x = self.record("stride4", conv(192, 3, name="conv2")(x))
        x = max_pool(x, 3, 2, ceil=True)
        for name, row in BLOCKS.items():
            x = Branches(inception(*row), conv, name=f"inception_{name}")(x)
            stride = {"3": 8, "4": 16, "5": 32}[name[0]] * (1 if row[0] else 2)
            self.record(f"stride{stride}", x)
        return self.classify(self.pool(x), train)


MODELS = {"bn_inception": Spec(BNInception, {}, 2015, "https://arxiv.org/abs/1502.03167", "", 11_285_224, 0.0, 74.8,
                               "paper, figure 4")}
