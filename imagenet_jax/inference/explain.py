"""Where a network looked: Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks")."""

import os
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import linen as nn
from PIL import Image

from imagenet_jax.errors import UserError
from imagenet_jax.training.step import normalize

PyTree = Any
_COLOURS, _SHARE = "turbo", 0.5  # of the heat in the picture


def grad_cam(model: nn.Module, variables: PyTree, image: jax.Array,
             columns: np.ndarray | slice = slice(None)) -> jax.Array:
    """How much each cell of the network's last map speaks for the best class, section 3: float32 [B, h, w], >= 0.

    image: uint8 [B, S, S, 3]. columns: the logits that count.

    Raises:
        UserError: the network keeps no map.
    """
    image = normalize(image, model).astype(model.dtype)
    kept = jax.eval_shape(lambda: model.apply(variables, image, mutable=["features"])[1].get("features", {}))
    if not (strides := [name for name in kept if name.isdecimal()]):
        raise UserError(f"{type(model).__name__} keeps none of its maps in the collection 'features': Grad-CAM has "
                        "nothing to draw")
    last = max(strides, key=int)

    def best(change: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, kept = model.apply({**variables, "perturbations": {last: change}}, image, mutable=["features"])
        return logits[:, columns].max(-1).sum(), kept["features"][last]  # no example's logits depend on another's map

    gradient, maps = jax.grad(best, has_aux=True)(jnp.zeros(kept[last].shape, kept[last].dtype))
    weights = gradient.astype(jnp.float32).mean((1, 2), keepdims=True)
    return nn.relu((weights * maps.astype(jnp.float32)).sum(axis=-1))


def draw(folder: str, name: str, crop: np.ndarray, heat: np.ndarray) -> str:
    """Writes the `overlay` of a crop and its heat; returns the file, FOLDER/NAME.png.

    The folders in a name are made below `folder`, and '..' in it becomes '__'.
    """
    parts = ["__" if part == ".." else part for part in PurePath(name).parts if part != os.sep]
    path = os.path.join(folder, *parts) + ".png"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    overlay(crop, heat).save(path)
    return path


def overlay(crop: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The heat [h, w] over the crop uint8 [S, S, 3], its highest value red."""
    heat = heat / max(float(heat.max()), np.finfo(np.float32).tiny)
    smooth = Image.fromarray(heat.astype(np.float32)).resize(crop.shape[1::-1], Image.Resampling.BILINEAR)
    colours = matplotlib.colormaps[_COLOURS](np.asarray(smooth))[..., :3] * 255
    return Image.fromarray(((1 - _SHARE) * crop + _SHARE * colours).round().astype(np.uint8))
