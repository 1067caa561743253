"""What every network of the zoo has: options, outputs on request, a head; and what the zoo knows of each."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import BatchNorm, ConvNorm, Initializer, dense, normal, param_dtype

RGB = tuple[float, float, float]
# Mean and standard deviation of ImageNet's pixels, in 0..255: torchvision's references, times 255.
MEAN: RGB = (123.675, 116.28, 103.53)
STD: RGB = (58.395, 57.12, 57.375)


class Spec(NamedTuple):
    """A published network.

    Attributes:
        module: the family's class.
        options: its fields that make this network of the family.
        year, paper: of publication; an address.
        reference: the library that has it under the same name, 'torchvision' or 'timm'; empty if none has.
        params: parameters with 1,000 classes.
        gmacs: published multiply-adds for one image of `size` px, in 1e9.
        top1: published accuracy in percent, None if the source has none; never measured here.
        source: where `gmacs` and `top1` come from.
        names: by dialect, what its files call our tensors, see `weights`.
        file: published weights that a package of requirements-pretrained.txt carries: where they are installed.
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
    file: str = ""


class Net(nn.Module, kw_only=True):
    """images [B, H, W, 3] -> logits [B, num_classes]; with num_classes=0, pooled features [B, C].

    Fields with a default are the options a config can set. Who makes the collection `features` mutable also gets the
    last map of each stride, `4` ... `32`, and `pooled`; who makes `aux` mutable gets, in training, the logits of the
    auxiliary heads that the network has.

    Attributes:
        dropout: rate before the head, or where the family has it.
        mean, std: of the pixels in 0..255 that the network takes as 0 and 1.
        dtype: compute type; parameters, pooled features and logits are `param_dtype` of it.
        frozen: tells of the path of a parameter whether it is frozen, see `transfer.freeze`.
    """

    num_classes: int
    dropout: float = 0.0
    mean: RGB = MEAN
    std: RGB = STD
    dtype: Any = jnp.float32
    frozen: Callable[[str], bool] = lambda path: False

    def keep(self, collection: str, name: str, x: jax.Array) -> jax.Array:
        """Stores x under `collection/name` if the caller asked for the collection; returns it."""
        if not self.is_initializing():  # where every collection is asked for, and nobody wants outputs
            self.sow(collection, name, x, init_fn=lambda: None, reduce_fn=lambda old, new: new)
        return x

    def feature(self, name: int | str, x: jax.Array) -> jax.Array:
        """`keep` as the last map of a stride, or as 'pooled'; what the network goes on with.

        What the caller gives in the collection `perturbations` under this name is added: the gradient of zeros there is
        that of the map.
        """
        x = self.keep("features", str(name), x)
        if self.has_variable("perturbations", str(name)):
            x += self.get_variable("perturbations", str(name))
        return x

    def pool(self, x: jax.Array) -> jax.Array:
        """Mean of x [B, H, W, C] over pixels, [B, C], of `param_dtype`."""
        return x.mean((1, 2), dtype=param_dtype(self.dtype))

    def classify(self, x: jax.Array, train: bool, kernel_init: Initializer | None = None,
                 bias_init: Initializer = nn.initializers.zeros) -> jax.Array:
        """Features [B, C] -> dropout -> dense layer `head`, [B, num_classes].

        The head starts small by default (Goyal et al. 2017, section 5.1).
        """
        x = self.feature("pooled", x.astype(param_dtype(self.dtype)))
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, "head", x.dtype, kernel_init or normal(0.01), bias_init)(x)

    def need(self, x: jax.Array, pixels: int, otherwise: str = "choose another model.name") -> None:
        """Raises UserError if images [B, H, W, 3] have a side below `pixels`."""
        if min(x.shape[1:3]) < pixels:
            size = f"{x.shape[1]} x {x.shape[2]}"
            raise UserError(f"{type(self).__name__} takes images of {pixels} x {pixels} px and more, not {size}; raise "
                            f"augment.size, augment.ramp and view.size, or {otherwise}")


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
