"""VGG: Simonyan & Zisserman (2014), https://arxiv.org/abs/1409.1556, plain and with BatchNorm.

As torchvision/models/vgg.py: average pooling to 7x7, so that any input from 32 px up can be taken.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from imagenet_jax.models.layers import Conv, dense, flatten, normal
from imagenet_jax.models.lowering import adaptive_avg_pool, max_pool
from imagenet_jax.models.net import Net, NormNet, Spec

FEATURES = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # table 1: A, B, D, E


class VGG(Net, kw_only=True):
    """See `Net`; features are [B, 4096].

    Attributes:
        convolutions: of each of the five stages.

    Raises:
        UserError: images of less than 32 px.
    """

    convolutions: tuple[int, ...]
    dropout: float = 0.5

    def normalizer(self, train: bool) -> Callable[[str, jax.Array], jax.Array]:
        """What follows convolution `name`: nothing here."""
        return lambda name, x: x

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns on dropout and the statistics of the batch."""
        self.need(x, 32)
        normalize = self.normalizer(train)
        for stage, (count, features) in enumerate(zip(self.convolutions, FEATURES, strict=True), 1):
            for i in range(1, count + 1):
                x = Conv(features, 3, use_bias=True, dtype=self.dtype, name=f"conv{stage}_{i}")(x)
                x = nn.relu(normalize(f"bn{stage}_{i}", x))
            if stage > 2:
                x = self.feature(2 ** (stage - 1), x)
            x = max_pool(x, 2, 2)
        x = flatten(adaptive_avg_pool(self.feature(32, x), 7))
        x = nn.relu(dense(4096, "fc1", self.dtype, normal(0.01), nn.initializers.zeros)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.relu(dense(4096, "fc2", self.dtype, normal(0.01), nn.initializers.zeros)(x))
        return self.classify(x, train)


class NormedVGG(VGG, NormNet, kw_only=True):
    """A `VGG` with BatchNorm after each convolution."""

    def normalizer(self, train: bool) -> Callable[[str, jax.Array], jax.Array]:
        """BatchNorm `name`."""
        norm = self.norm(train)
        return lambda name, x: norm(name=name)(x)


def _spec(depth: int, normed: bool, params: int, gmacs: float, top1: float) -> Spec:
    names, index = [], 0  # torchvision numbers everything, ReLUs and poolings too
    for stage, count in enumerate(DEPTHS[depth], 1):
        for i in range(1, count + 1):
            names += [(rf"^conv{stage}_{i}\.", f"features.{index}."), (rf"^bn{stage}_{i}\.", f"features.{index + 1}.")]
            index += 3 if normed else 2
        index += 1
    names += [(rf"^{layer}\.", f"classifier.{j}.") for layer, j in (("fc1", 0), ("fc2", 3), ("head", 6))]
    return Spec(NormedVGG if normed else VGG, {"convolutions": DEPTHS[depth]}, 2014, "https://arxiv.org/abs/1409.1556",
                "torchvision", params, gmacs, top1, "torchvision",
                {"torchvision": names})


MODELS = {
    "vgg11": _spec(11, False, 132_863_336, 7.609, 69.02), "vgg11_bn": _spec(11, True, 132_868_840, 7.609, 70.37),
    "vgg13": _spec(13, False, 133_047_848, 11.308, 69.928), "vgg13_bn": _spec(13, True, 133_053_736, 11.308, 71.586),
    "vgg16": _spec(16, False, 138_357_544, 15.47, 71.592), "vgg16_bn": _spec(16, True, 138_365_992, 15.47, 73.36),
    "vgg19": _spec(19, False, 143_667_240, 19.632, 72.376), "vgg19_bn": _spec(19, True, 143_678_248, 19.632, 74.218),
}
