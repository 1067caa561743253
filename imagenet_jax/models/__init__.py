"""The zoo: `make(name, num_classes, ...)` builds a Flax Linen module; one family a file."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.alexnet import AlexNet, alexnet
from imagenet_jax.models.resnet import DEPTHS, ResNet, resnet

# name -> (module class, whose fields are the options; function that builds it)
REGISTRY: dict[str, tuple[type[nn.Module], Callable[..., nn.Module]]] = {
    "alexnet": (AlexNet, alexnet), **{name: (ResNet, resnet) for name in DEPTHS}}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}


def make(name: str, num_classes: int, dtype: str = "float32", **options: Any) -> nn.Module:
    """Builds a model.

    Args:
        name: a key of `REGISTRY`.
        num_classes: size of the head; 0 for pooled features.
        dtype: compute type, 'float32' or 'bfloat16'; parameters, statistics and logits stay float32.
        **options: fields of the family's module that have a default, such as dropout or bn_group; None means it.

    Raises:
        UserError: an unknown model, or an option this model does not have; names the nearest.
    """
    if name not in REGISTRY:
        raise UserError(f"model.name: there is no model {name!r}{nearest(name, REGISTRY)}")
    if dtype not in DTYPES:
        raise UserError(f"model.dtype: {dtype!r} is not a compute type; choose among {', '.join(DTYPES)}")
    module, build = REGISTRY[name]
    options = {key: value for key, value in options.items() if value is not None}
    known = [f.name for f in dataclasses.fields(module)
             if f.default is not dataclasses.MISSING and f.name not in ("parent", "name")]
    for key in options:
        if key not in known:
            raise UserError(f"model.{key}: {name} has no such option{nearest(key, known)}")
    return build(name, num_classes=num_classes, dtype=DTYPES[dtype], **options)


def nearest(word: str, known: Any) -> str:
    """'; did you mean X?' or the list of what there is."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(sorted(known))}"
