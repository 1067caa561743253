"""AlexNet as in Krizhevsky, "One weird trick" (2014), https://arxiv.org/abs/1404.5997.

The variant of torchvision/models/alexnet.py: one tower, no local response normalisation, average pooling
to 6x6 so that any input from 63 px up can be taken.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import Conv, adaptive_avg_pool, dense, max_pool, param_dtype, torch_uniform

# features, window, stride, padding, whether a 3x3 stride-2 max-pooling follows
CONVOLUTIONS = ((64, 11, 4, 2, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False),
                (256, 3, 1, 1, True))


class AlexNet(nn.Module):
    """images [B, H, W, 3] -> logits [B, num_classes]; with num_classes=0, features [B, 4096].

    Raises:
        UserError: images of less than 63 px.
    """

    num_classes: int
    width: int = 64
    dropout: float = 0.5
    dtype: Any = jnp.float32
    frozen: Callable[[str], bool] = lambda path: False  # nothing here but parameters to freeze

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits or features, of `param_dtype`; `train` turns dropout on, which draws from the rng 'dropout'."""
        if min(x.shape[1:3]) < 63:
            raise UserError(f"alexnet takes images of 63 x 63 px and more, not {x.shape[1]} x {x.shape[2]}; raise "
                            "augment.size and view.size, or choose another model.name")
        for i, (features, window, stride, padding, pool) in enumerate(CONVOLUTIONS, 1):
            init = torch_uniform(window * window * x.shape[-1])
            x = nn.relu(Conv(features * self.width // 64, window, stride, padding, use_bias=True, dtype=self.dtype,
                             kernel_init=init, bias_init=init, name=f"conv{i}")(x))
            x = max_pool(x, 3, 2) if pool else x
        x = adaptive_avg_pool(x, 6).reshape(len(x), -1)
        for name in ("fc1", "fc2"):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            init = torch_uniform(x.shape[-1])
            x = nn.relu(dense(64 * self.width, name, self.dtype, init, init)(x))
        x = x.astype(param_dtype(self.dtype))
        if not self.num_classes:
            return x
        init = torch_uniform(x.shape[-1])
        return dense(self.num_classes, "head", x.dtype, init, init)(x)


def alexnet(name: str, **options: Any) -> AlexNet:
    """AlexNet (torchvision's); `options` are fields of `AlexNet`."""
    return AlexNet(**options)
