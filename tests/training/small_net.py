"""A net that compiles in a second, for tests of everything around a net."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.models.layers import BatchNorm, Conv, dense


class SmallNet(nn.Module):
    """Two convolutions with BatchNorm, and a head."""

    num_classes: int
    bn_group: int = 32
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32
    frozen: Callable[[str], bool] = lambda path: False

    @nn.compact
    def __call__(self, x, train=False):
        for i, stride in enumerate((2, 1)):
            x = Conv(8, 3, stride, 1, dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(self.bn_group, train, self.bn_momentum, dtype=self.dtype, frozen=self.frozen,
                                  name=f"bn{i}")(x))
        x = x.mean((1, 2))
        return dense(self.num_classes, "head", self.dtype, nn.initializers.normal(0.1), nn.initializers.zeros)(x)
