"""Inception v3: Szegedy et al., "Rethinking the Inception Architecture" (2015), https://arxiv.org/abs/1512.00567.

As torchvision/models/inception.py, ported from TensorFlow with its weights, which take pixels from -1 to 1. Blocks are
called by their figures' letters there: A has 5x5, C 7x7 factorised into 1x7 and 7x1, E 3x3 into 1x3 and 3x1
convolutions, B and D halve the image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import Branches, ConvNorm, dense, normal, param_dtype
from imagenet_jax.models.lowering import avg_pool, max_pool
from imagenet_jax.models.net import NormNet, Spec


def average(x: jax.Array) -> jax.Array:
    """3x3 average at stride 1."""
    return avg_pool(x, 3, 1, 1)


def halve(x: jax.Array) -> jax.Array:
    """3x3 maximum at stride 2."""
    return max_pool(x, 3, 2)


def block_a(pooled: int) -> tuple:
    """35x35."""
    return ((("branch1x1", 64, 1),),
            (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
            (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
            (average, ("branch_pool", pooled, 1)))


BLOCK_B = ((("branch3x3", 384, 3, 2, 0),),
           (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2, 0)),
           (halve,))


def block_c(width: int) -> tuple:
    """17x17."""
    return ((("branch1x1", 192, 1),),
            (("branch7x7_1", width, 1), ("branch7x7_2", width, (1, 7)), ("branch7x7_3", 192, (7, 1))),
            (("branch7x7dbl_1", width, 1), ("branch7x7dbl_2", width, (7, 1)), ("branch7x7dbl_3", width, (1, 7)),
             ("branch7x7dbl_4", width, (7, 1)), ("branch7x7dbl_5", 192, (1, 7))),
            (average, ("branch_pool", 192, 1)))


BLOCK_D = ((("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2, 0)),
           (("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3, 2, 0)),
           (halve,))
BLOCK_E = ((("branch1x1", 320, 1),),
           (("branch3x3_1", 384, 1), ((("branch3x3_2a", 384, (1, 3)),), (("branch3x3_2b", 384, (3, 1)),))),
           (("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3),
            ((("branch3x3dbl_3a", 384, (1, 3)),), (("branch3x3dbl_3b", 384, (3, 1)),))),
           (average, ("branch_pool", 192, 1)))
BLOCKS = {"Mixed_5b": block_a(32), "Mixed_5c": block_a(64), "Mixed_5d": block_a(64), "Mixed_6a": BLOCK_B,
          "Mixed_6b": block_c(128), "Mixed_6c": block_c(160), "Mixed_6d": block_c(160), "Mixed_6e": block_c(192),
          "Mixed_7a": BLOCK_D, "Mixed_7b": BLOCK_E, "Mixed_7c": BLOCK_E}
LAST_OF_STRIDE = {"Mixed_5d": 8, "Mixed_6e": 16, "Mixed_7c": 32}


class AuxiliaryHead(nn.Module):
    """Pooling, a 1x1 and a 5x5 convolution, a dense layer."""

    num_classes: int
    conv_norm: Callable[..., ConvNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] with at least 17x17 pixels -> logits [B, num_classes]."""
        x = self.conv_norm(128, 1, name="conv0")(avg_pool(x, 5, 3))
        x = self.conv_norm(768, 5, padding=0, name="conv1")(x)
        x = x.mean((1, 2), dtype=param_dtype(x.dtype))
        return dense(self.num_classes, "head", x.dtype, normal(0.001), nn.initializers.zeros)(x)


class InceptionV3(NormNet, kw_only=True):
    """See `NormNet`.

    Attributes:
        aux: has an auxiliary head, computed in training only.

    Raises:
        UserError: images of less than 75 px, or in training with the auxiliary head less than 299 px.
    """

    aux: bool = True
    dropout: float = 0.5
    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout, the statistics of the batch and the auxiliary head."""
        with_aux = self.aux and self.num_classes and (train or self.is_initializing())
        self.need(x, 75)
        if with_aux and train:
            self.need(x, 299, "train without the auxiliary head: model.aux=False")
        conv = self.conv_norm(train)
        x = conv(32, 3, 1, 0, name="Conv2d_2a_3x3")(conv(32, 3, 2, 0, name="Conv2d_1a_3x3")(x))
        x = halve(conv(64, 3, name="Conv2d_2b_3x3")(x))
        x = conv(192, 3, 1, 0, name="Conv2d_4a_3x3")(conv(80, 1, name="Conv2d_3b_1x1")(x))
        x = halve(self.feature(4, x))
        for name, branches in BLOCKS.items():
            x = Branches(branches, conv, name=name)(x)
            if name in LAST_OF_STRIDE:
                x = self.feature(LAST_OF_STRIDE[name], x)
            if name == "Mixed_6e" and with_aux:
                # Parameters do not depend on the image's size: they can be made from one too small for this head.
                large = jnp.zeros((1, 17, 17, x.shape[-1]), x.dtype) if self.is_initializing() else x
                self.keep("aux", "1", AuxiliaryHead(self.num_classes, conv, name="aux")(large))
        return self.classify(self.pool(x), train)


_NAMES = [(r"^aux\.", "AuxLogits."), (r"^(AuxLogits\.)?head", r"\1fc")]
MODELS = {"inception_v3": Spec(
    InceptionV3, {"mean": (127.5,) * 3, "std": (127.5,) * 3}, 2015, "https://arxiv.org/abs/1512.00567", "torchvision",
    27_161_264, 5.713, 77.294, "torchvision", {"torchvision": _NAMES, "timm": _NAMES}, 299, 342)}
