"""Network in Network: Lin, Chen, Yan (2013), https://arxiv.org/abs/1312.4400.

The paper draws its nets for small images; this is the ImageNet net its first author published for Caffe,
https://gist.github.com/mavenlin/d802a5849de39225bcc6: four convolutions, each followed by two 1x1 ones, the last of
which gives a map per class.
"""

import jax
from flax import linen as nn

from imagenet_jax.models.layers import Conv, Dropout, normal
from imagenet_jax.models.lowering import max_pool
from imagenet_jax.models.net import Net, Spec

# features, window, stride, padding
CONVOLUTIONS = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1), (1024, 3, 1, 1))


class NetworkInNetwork(Net, kw_only=True):
    """See `Net`; features are [B, 1024]; the head is a 1x1 convolution with ReLU, averaged over pixels.

    Raises:
        UserError: images of less than 39 px.
    """

    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features; `train` turns dropout on, which draws from the rng 'dropout'."""
        self.need(x, 39)
        for i, (features, window, stride, padding) in enumerate(CONVOLUTIONS, 1):
            x = self._conv(x, f"conv{i}", features, window, stride, padding)
            x = self._conv(x, f"cccp{2 * i - 1}", features, 1)
            if i < len(CONVOLUTIONS):
                x = self._conv(x, f"cccp{2 * i}", features, 1)
                self.record(f"stride{2 ** (i + 1)}", x)
                x = max_pool(x, 3, 2, ceil=True)
                x = Dropout(self.dropout, train)(x) if i == 3 else x
        self.record("stride32", x)
        return self.classify_map(x, train=False)  # the dropout comes earlier

    def _conv(self, x: jax.Array, name: str, features: int, window: int, stride: int = 1,
              padding: int = 0) -> jax.Array:
        """Convolution, bias, ReLU."""
        return nn.relu(Conv(features, window, stride, padding, use_bias=True, dtype=self.dtype, name=name,
                            space_to_depth=self.space_to_depth and stride > 1, kernel_init=normal(0.05))(x))


MODELS = {"nin": Spec(NetworkInNetwork, {}, 2013, "https://arxiv.org/abs/1312.4400", "", 7_595_176, 0.0, 59.36,
                      "https://gist.github.com/mavenlin/d802a5849de39225bcc6")}
