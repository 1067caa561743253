"""The zoo: `make(name, num_classes, ...)` builds a Flax Linen module; one family a file."""

import dataclasses
import difflib
import importlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from imagenet_jax.errors import UserError
from imagenet_jax.models.net import Spec

FAMILIES = ("alexnet", "vgg", "googlenet", "inception_v3", "resnet", "squeezenet", "efficientnet")
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
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise UserError("model.dtype='float64' needs JAX's double precision: set the environment variable "
                        "JAX_ENABLE_X64=1")
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


def fill_view(config: ConfigDict) -> ConfigDict:
    """A copy of a run's config in which the network says what `view` and `augment.size` leave open.

    Raises:
        UserError: an unknown model.
    """
    spec, config = find(config.model.name), config.copy_and_resolve_references()
    view, augment = config.view, config.augment
    view.size = spec.size if view.size is None else view.size
    view.resize = round(view.size * spec.resize / spec.size) if view.resize is None else view.resize
    view.interpolation = view.interpolation or spec.interpolation
    augment.size = view.size if augment.size is None else augment.size
    return config


def table(like: str = "") -> list[dict[str, Any]]:
    """What the zoo knows of each network whose name contains `like`: see `Spec`; mean and std see `Net`."""
    keys = ("year", "params", "gmacs", "size", "resize", "interpolation", "top1", "source", "paper", "reference")
    return [{"name": name, **{key: getattr(spec, key) for key in keys}, "mean": make(name, 0).mean,
             "std": make(name, 0).std} for name, spec in REGISTRY.items() if like in name]


def nearest(word: str, known: Any) -> str:
    """'; did you mean X?' or the list of what there is."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(sorted(known))}"
