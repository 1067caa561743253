"""What every network of the zoo has: options, named intermediates, a head; and what the zoo knows of each."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import BatchNorm, Conv, ConvNorm, Dropout, Initializer, dense, normal, param_dtype


class Spec(NamedTuple):
    """A published network.

    Attributes:
        module: the family's class.
        options: its fields that make this network of the family.
        year, paper: of publication; an address.
        reference: whose weight files fit, such as 'torchvision:resnet50' or 'timm:inception_v4'; empty if nobody's.
        params: parameters with 1,000 classes.
        gmacs: published multiply-adds for one image of `size` px, in 1e9; 0 if nobody published them.
        top1: published accuracy in percent, None if the source has none; never measured here.
        source: where `gmacs` and `top1` come from.
        names: what the tensors are called in 'torchvision' and 'timm', see `weights`.
        size, resize: px, side of the centre crop and of the shorter side before it, for `top1`.
        interpolation: 'bilinear' or 'bicubic', for `top1`.
    """

    module: Callable[..., nn.Module]
    options: Mapping[str, Any] = {}
    year: int = 0
    paper: str = ""
    reference: str = ""
    params: int = 0
    gmacs: float = 0.0
    top1: float | None = None
    source: str = ""
    names: Mapping[str, list[tuple[str, str]]] = {}
    size: int = 224
    resize: int = 256
    interpolation: str = "bilinear"


class Net(nn.Module, kw_only=True):
    """images [B, H, W, 3] -> logits [B, num_classes]; with num_classes=0, pooled features [B, C].

    Fields with a default are the options a config can set. Intermediate outputs are kept on request:
    `net.apply(variables, x, mutable=["intermediates"])` also returns `stride4` ... `stride32` (the last feature map of
    each scale), `pooled`, `logits`, and in training those of auxiliary heads, `aux1` ....

    Attributes:
        dropout: rate before the head, or where the family has it.
        space_to_depth: compute a strided first convolution on squares of pixels; same parameters, same numbers.
        dtype: compute type; parameters, pooled features and logits are `param_dtype` of it.
        frozen: tells of the path of a parameter whether it is frozen, see `transfer.freeze`.
    """

    num_classes: int
    dropout: float = 0.0
    space_to_depth: bool = False
    dtype: Any = jnp.float32
    frozen: Callable[[str], bool] = lambda path: False

    def record(self, name: str, x: jax.Array) -> jax.Array:
        """Keeps x as intermediate output `name`, the last one if there are several; returns it."""
        self.sow("intermediates", name, x, init_fn=lambda: None, reduce_fn=lambda old, new: new)
        return x

    def pool(self, x: jax.Array) -> jax.Array:
        """Mean of x [B, H, W, C] over pixels, [B, C], of `param_dtype`."""
        return x.mean((1, 2), dtype=param_dtype(self.dtype))

    def classify(self, x: jax.Array, train: bool, kernel_init: Initializer | None = None,
                 bias_init: Initializer = nn.initializers.zeros) -> jax.Array:
        """Features [B, C] -> dropout -> dense layer `head`, [B, num_classes]; recorded as `pooled` and `logits`.

        The head starts small by default (Goyal et al. 2017, section 5.1).
        """
        x = self.record("pooled", x.astype(param_dtype(self.dtype)))
        if not self.num_classes:
            return x
        x = Dropout(self.dropout, train)(x)
        head = dense(self.num_classes, "head", x.dtype, kernel_init or normal(0.01), bias_init)
        return self.record("logits", head(x))

    def classify_map(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [B, H, W, C] -> dropout -> 1x1 convolution `head` -> ReLU -> mean over pixels, [B, num_classes].

        Recorded as `logits`; `pooled`, which comes out with num_classes=0, is the mean of x.
        """
        pooled = self.record("pooled", self.pool(x))
        if not self.num_classes:
            return pooled
        x = Dropout(self.dropout, train)(x.astype(pooled.dtype))
        head = Conv(self.num_classes, 1, use_bias=True, dtype=x.dtype, kernel_init=normal(0.01), name="head")
        return self.record("logits", self.pool(nn.relu(head(x))))

    def need(self, x: jax.Array, pixels: int) -> None:
        """Raises UserError if images [B, H, W, 3] have a side below `pixels`."""
        if min(x.shape[1:3]) < pixels:
            size = f"{x.shape[1]} x {x.shape[2]}"
            raise UserError(f"{type(self).__name__} takes images of {pixels} x {pixels} px and more, not {size}; raise "
                            "augment.size and view.size, or choose another model.name")


class NormNet(Net, kw_only=True):
    """A `Net` with BatchNorm.

    Attributes:
        bn_group: examples that share statistics; 32 as in Goyal et al. 2017, section 2.3.
        bn_momentum: kept share of the running statistics (torch's momentum is 1 - ours).
        bn_epsilon: added to variances.
    """

    bn_group: int = 32
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5

    def norm(self, train: bool) -> Callable[..., BatchNorm]:
        """Builds this network's BatchNorm layers."""
        return functools.partial(BatchNorm, self.bn_group, train, self.bn_momentum, self.bn_epsilon, dtype=self.dtype,
                                 frozen=self.frozen)

    def conv_norm(self, train: bool) -> Callable[..., ConvNorm]:
        """Builds this network's convolutions with BatchNorm and activation."""
        return functools.partial(ConvNorm, norm=self.norm(train), dtype=self.dtype)
