"""A net that compiles in a second, for tests of everything around a net."""

from flax import linen as nn

from imagenet_jax.models.layers import Conv
from imagenet_jax.models.net import NormNet


class SmallNet(NormNet):
    """Two convolutions with BatchNorm, and a head."""

    @nn.compact
    def __call__(self, x, train=False):
        for i, stride in enumerate((2, 1)):
            x = nn.relu(self.norm(train)(name=f"bn{i}")(Conv(8, 3, stride, dtype=self.dtype, name=f"conv{i}")(x)))
        return self.classify(self.pool(x), train, nn.initializers.normal(0.1))
