"""AlexNet: the net of 2012, and the single tower of "One weird trick" (2014) that libraries mean by the name.

`alexnet_2012` is that of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks" (NIPS 2012): two towers that meet in the third convolution and in the dense layers, here grouped convolutions;
local response normalisation; overlapping pooling. Its pixels lose their mean and keep their scale (section 2), which
its initialisation counts on. Its images are 227 px: 224, which the paper says, does not give the 55x55 maps it counts.
`alexnet` follows torchvision/models/alexnet.py.

Both average to 6x6 before the dense layers, which changes nothing at the native size and lets any larger one be taken.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import Conv, Initializer, dense, flatten, normal, param_dtype, torch_uniform
from imagenet_jax.models.lowering import adaptive_avg_pool, max_pool
from imagenet_jax.models.net import Net, Spec


class Row(NamedTuple):
    """A convolution; whether a 3x3 stride-2 max-pooling follows."""

    features: int
    window: int
    stride: int
    padding: int
    groups: int
    pool: bool


TWO_TOWERS = (Row(96, 11, 4, 0, 1, True), Row(256, 5, 1, 2, 2, True), Row(384, 3, 1, 1, 1, False),
              Row(384, 3, 1, 1, 2, False), Row(256, 3, 1, 1, 2, True))
ONE_TOWER = (Row(64, 11, 4, 2, 1, True), Row(192, 5, 1, 2, 1, True), Row(384, 3, 1, 1, 1, False),
             Row(256, 3, 1, 1, 1, False), Row(256, 3, 1, 1, 1, True))
BIASES_OF_ONE = ("conv2", "conv4", "conv5", "fc1", "fc2")  # section 5 of the 2012 paper


def local_response_norm(x: jax.Array, neighbours: int = 5, k: float = 2.0, alpha: float = 1e-4,
                        beta: float = 0.75) -> jax.Array:
    """x / (k + alpha * sum of squares over `neighbours` channels) ** beta: section 3.3 of the 2012 paper.

    x [B, H, W, C] -> the same shape and type. The sum is weighed by alpha itself; Caffe and PyTorch divide alpha by the
    number of neighbours.
    """
    half, channels = neighbours // 2, x.shape[-1]
    squares = jnp.pad(jnp.square(x.astype(param_dtype(x.dtype))), ((0, 0), (0, 0), (0, 0), (half, half)))
    total = sum(squares[..., i:i + channels] for i in range(neighbours))
    return (x * (k + alpha * total) ** -beta).astype(x.dtype)


class AlexNet(Net, kw_only=True):
    """See `Net`; features are [B, 4096].

    Attributes:
        original: the net of 2012, with its initialisation and dropout after the dense layers instead of before.
        width: 64ths of the published widths.

    Raises:
        UserError: images of less than 63 px (67 px for the net of 2012).
    """

    original: bool
    width: int = 64
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns dropout on, which draws from the rng 'dropout'."""
        self.need(x, 67 if self.original else 63)
        stride = 4
        for i, row in enumerate(TWO_TOWERS if self.original else ONE_TOWER, 1):
            name = f"conv{i}"
            kernel_init, bias_init = self._inits(name, row.window**2 * x.shape[-1])
            x = nn.relu(Conv(row.features * self.width // 64, row.window, row.stride, row.padding, row.groups, True,
                             self.dtype, kernel_init, bias_init, name=name)(x))
            x = local_response_norm(x) if self.original and i <= 2 else x
            if row.pool:
                x = max_pool(self.feature(stride, x), 3, 2)
                stride *= 2
        x = flatten(adaptive_avg_pool(self.feature(stride, x), 6))
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        for name in ("fc1", "fc2"):
            x = x if self.original else dropout(x)
            x = nn.relu(dense(64 * self.width, name, self.dtype, *self._inits(name, x.shape[-1]))(x))
            x = dropout(x) if self.original else x
        return self.classify(x, False, *self._inits("head", x.shape[-1]))  # False: no dropout of its own

    def _inits(self, name: str, fan_in: int) -> tuple[Initializer, Initializer]:
        """Of a layer's kernel and bias."""
        if self.original:
            return normal(0.01), nn.initializers.ones if name in BIASES_OF_ONE else nn.initializers.zeros
        return torch_uniform(fan_in), torch_uniform(fan_in)


_NAMES = [*((rf"^conv{i}\.", f"features.{j}.") for i, j in enumerate((0, 3, 6, 8, 10), 1)),
          *((rf"^{layer}\.", f"classifier.{j}.") for layer, j in (("fc1", 1), ("fc2", 4), ("head", 6)))]
MODELS = {
    "alexnet_2012": Spec(
        AlexNet, {"original": True, "std": (1.0, 1.0, 1.0)}, 2012, "https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html",
        "", 60_965_224, 0.724, 59.3, "MACs: Sze et al., https://arxiv.org/abs/1703.09039, table II; "
        "top-1: paper, table 2, mean of ten crops", size=227),
    "alexnet": Spec(AlexNet, {"original": False}, 2014, "https://arxiv.org/abs/1404.5997", "torchvision",
                    61_100_840, 0.714, 56.522, "torchvision", {"torchvision": _NAMES})}
