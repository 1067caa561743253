"""Inception v4: Szegedy et al. (2016), https://arxiv.org/abs/1602.07261, figures 3 to 9.

As timm/models/inception_v4.py.
"""

import jax
from flax import linen as nn

from imagenet_jax.models.inception_v3 import halve
from imagenet_jax.models.layers import Branches
from imagenet_jax.models.lowering import avg_pool
from imagenet_jax.models.net import NormNet, Spec


def average(x: jax.Array) -> jax.Array:
    """3x3 average at stride 1 over the pixels that there are."""
    return avg_pool(x, 3, 1, 1, count_padding=False)


MIXED_3A = ((halve,), (("conv", 96, 3, 2, 0),))
MIXED_4A = ((("branch0_0", 64, 1), ("branch0_1", 96, 3, 1, 0)),
            (("branch1_0", 64, 1), ("branch1_1", 64, (1, 7)), ("branch1_2", 64, (7, 1)), ("branch1_3", 96, 3, 1, 0)))
MIXED_5A = ((("conv", 192, 3, 2, 0),), (halve,))
INCEPTION_A = ((("branch0", 96, 1),),
               (("branch1_0", 64, 1), ("branch1_1", 96, 3)),
               (("branch2_0", 64, 1), ("branch2_1", 96, 3), ("branch2_2", 96, 3)),
               (average, ("branch3_1", 96, 1)))
REDUCTION_A = ((("branch0", 384, 3, 2, 0),),
               (("branch1_0", 192, 1), ("branch1_1", 224, 3), ("branch1_2", 256, 3, 2, 0)),
               (halve,))
INCEPTION_B = ((("branch0", 384, 1),),
               (("branch1_0", 192, 1), ("branch1_1", 224, (1, 7)), ("branch1_2", 256, (7, 1))),
               (("branch2_0", 192, 1), ("branch2_1", 192, (7, 1)), ("branch2_2", 224, (1, 7)),
                ("branch2_3", 224, (7, 1)), ("branch2_4", 256, (1, 7))),
               (average, ("branch3_1", 128, 1)))
REDUCTION_B = ((("branch0_0", 192, 1), ("branch0_1", 192, 3, 2, 0)),
               (("branch1_0", 256, 1), ("branch1_1", 256, (1, 7)), ("branch1_2", 320, (7, 1)),
                ("branch1_3", 320, 3, 2, 0)),
               (halve,))
INCEPTION_C = ((("branch0", 256, 1),),
               (("branch1_0", 384, 1), ((("branch1_1a", 256, (1, 3)),), (("branch1_1b", 256, (3, 1)),))),
               (("branch2_0", 384, 1), ("branch2_1", 448, (3, 1)), ("branch2_2", 512, (1, 3)),
                ((("branch2_3a", 256, (1, 3)),), (("branch2_3b", 256, (3, 1)),))),
               (average, ("branch3_1", 256, 1)))
BLOCKS = {"mixed_3a": MIXED_3A, "mixed_4a": MIXED_4A, "mixed_5a": MIXED_5A,
          **{f"inception_a{i}": INCEPTION_A for i in range(1, 5)}, "reduction_a": REDUCTION_A,
          **{f"inception_b{i}": INCEPTION_B for i in range(1, 8)}, "reduction_b": REDUCTION_B,
          **{f"inception_c{i}": INCEPTION_C for i in range(1, 4)}}
LAST_OF_SCALE = {"mixed_4a": "stride4", "inception_a4": "stride8", "inception_b7": "stride16",
                 "inception_c3": "stride32"}


class InceptionV4(NormNet, kw_only=True):
    """See `NormNet`.

    Raises:
        UserError: images of less than 75 px.
    """

    dropout: float = 0.2  # section 3.1 keeps 0.8
    bn_epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and the statistics of the batch."""
        self.need(x, 75)
        conv = self.conv_norm(train)
        x = conv(32, 3, 2, 0, space_to_depth=self.space_to_depth, name="conv1")(x)
        x = self.record("stride2", conv(64, 3, name="conv3")(conv(32, 3, 1, 0, name="conv2")(x)))
        for name, branches in BLOCKS.items():
            x = Branches(branches, conv, name=name)(x)
            if name in LAST_OF_SCALE:
                self.record(LAST_OF_SCALE[name], x)
        return self.classify(self.pool(x), train)


_NAMES = [(r"^(?!inception_c)(.*branch\d)_(\d)", r"\1.\2"), (r"^(inception_c.*branch3)_1", r"\1.1"),
          *((rf"^{name}\.", f"features.{i}.") for i, name in enumerate(("conv1", "conv2", "conv3", *BLOCKS))),
          (r"^head", "last_linear")]
MODELS = {"inception_v4": Spec(
    InceptionV4, {}, 2016, "https://arxiv.org/abs/1602.07261", "timm:inception_v4", 42_679_816, 12.28, 80.0,
    "MACs: timm; top-1: the paper, table 2", {"timm": _NAMES}, 299, 342, "bicubic")}
