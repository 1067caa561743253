"""GoogLeNet, Inception v1: Szegedy et al. (2014), https://arxiv.org/abs/1409.4842.

As torchvision/models/googlenet.py, ported from TensorFlow with its weights, which take pixels from -1 to 1: with
BatchNorm instead of local response normalisation, and 3x3 convolutions where the paper has 5x5 ones.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from imagenet_jax.models.layers import Branches, ConvNorm, dense, flatten, normal, param_dtype
from imagenet_jax.models.lowering import adaptive_avg_pool, max_pool
from imagenet_jax.models.net import NormNet, Spec

# Table 1: 1x1; 3x3 after a reduction; 5x5 after a reduction; 1x1 after pooling.
BLOCKS = {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
          "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
          "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}

AUXILIARY = {"4a": "1", "4d": "2"}  # after which blocks


def inception(alone: int, reduce3: int, conv3: int, reduce5: int, conv5: int, pooled: int) -> tuple:
    """The branches of a block."""
    return ((("branch1", alone, 1),),
            (("branch2_0", reduce3, 1), ("branch2_1", conv3, 3)),
            (("branch3_0", reduce5, 1), ("branch3_1", conv5, 3)),
            (lambda x: max_pool(x, 3, 1, 1), ("branch4_1", pooled, 1)))


class AuxiliaryHead(nn.Module):
    """Section 5: average pooling, a 1x1 convolution, two dense layers."""

    num_classes: int
    dropout: float
    conv_norm: Callable[..., ConvNorm]
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] -> logits [B, num_classes]."""
        x = flatten(self.conv_norm(128, 1, name="conv")(adaptive_avg_pool(x, 4)))
        x = x.astype(param_dtype(x.dtype))
        x = nn.relu(dense(1024, "fc1", x.dtype, normal(0.01), nn.initializers.zeros)(x))
        x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        return dense(self.num_classes, "head", x.dtype, normal(0.01), nn.initializers.zeros)(x)


class GoogLeNet(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        aux: has two auxiliary heads, computed in training only, whose losses the paper weighs by 0.3.

    Raises:
        UserError: images of less than 15 px.
    """

    aux: bool = True
    aux_dropout: float = 0.7
    dropout: float = 0.2
    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, the statistics of the batch and auxiliary heads."""
        self.need(x, 15)
        conv = self.conv_norm(train)
        x = conv(64, 1, name="conv2")(max_pool(conv(64, 7, 2, name="conv1")(x), 3, 2, ceil=True))
        x = max_pool(self.feature(4, conv(192, 3, name="conv3")(x)), 3, 2, ceil=True)
        with_aux = self.aux and self.num_classes and (train or self.is_initializing())
        for name, row in BLOCKS.items():
            if name == "4a":
                x = max_pool(self.feature(8, x), 3, 2, ceil=True)
            if name == "5a":
                x = max_pool(self.feature(16, x), 2, 2, ceil=True)
            x = Branches(inception(*row), conv, name=f"inception{name}")(x)
            if with_aux and name in AUXILIARY:
                which = AUXILIARY[name]
                head = AuxiliaryHead(self.num_classes, self.aux_dropout, conv, train, name=f"aux{which}")
                self.keep("aux", which, head(x))
        return self.classify(self.pool(self.feature(32, x)), train)


_NAMES = [(r"branch(\d)_(\d)", r"branch\1.\2"), (r"^(aux\d)\.head", r"\1.fc2"), (r"^head", "fc")]
MODELS = {"googlenet": Spec(
    GoogLeNet, {"mean": (127.5,) * 3, "std": (127.5,) * 3}, 2014, "https://arxiv.org/abs/1409.4842", "torchvision",
    13_004_888, 1.498, 69.778, "torchvision (6,624,904 parameters without the auxiliary heads)",
    {"torchvision": _NAMES})}
