"""The zoo: `make(name, num_classes, ...)` builds a Flax Linen module; one family a file."""

import dataclasses
import difflib
import importlib
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.net import Spec

FAMILIES = ("alexnet", "nin", "vgg", "squeezenet", "googlenet", "bn_inception", "inception_v3", "inception_v4",
            "inception_resnet_v2", "xception", "resnet", "densenet", "mobilenet", "mnasnet", "shufflenet",
            "efficientnet", "regnet", "convnext", "vit")
REGISTRY: dict[str, Spec] = {}
for _family in FAMILIES:
    REGISTRY |= importlib.import_module(f"{__name__}.{_family}").MODELS
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
    spec = find(name)
    if dtype not in DTYPES:
        raise UserError(f"model.dtype: {dtype!r} is not a compute type; choose among {', '.join(DTYPES)}")
    options = {key: value for key, value in options.items() if value is not None}
    known = [f.name for f in dataclasses.fields(spec.module)
             if f.default is not dataclasses.MISSING and f.name not in ("parent", "name")]
    for key in options:
        if key not in known:
            raise UserError(f"model.{key}: {name} has no such option{nearest(key, known)}")
    return spec.module(num_classes=num_classes, dtype=DTYPES[dtype], **{**spec.options, **options})


def find(name: str) -> Spec:
    """What the zoo knows of a model.

    Raises:
        UserError: an unknown model; names the nearest.
    """
    if name not in REGISTRY:
        raise UserError(f"model.name: there is no model {name!r}{nearest(name, REGISTRY)}")
    return REGISTRY[name]


def nearest(word: str, known: Any) -> str:
    """'; did you mean X?' or the list of what there is."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(sorted(known))}"
