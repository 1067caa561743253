"""What of a trained network leaves the house: a function from pixels to logits, and its weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax import models
from imagenet_jax.config import Config
from imagenet_jax.training.evaluating import Trained
from imagenet_jax.training.step import make_apply

PLATFORMS = ("cpu", "cuda", "tpu")  # that JAX's own programs are lowered for


class Program(NamedTuple):
    """logits: (variables, uint8 [B, size, size, 3]) -> float32 [B, K]. view: the keys of `config.view`.

    calibration: uint8 [n, size, size, 3], images like those that it will see, for forms that are rounded.
    """

    logits: Callable[[Any, jax.Array], jax.Array]
    variables: Any
    size: int
    view: Config
    calibration: np.ndarray


def of(trained: Trained, calibration: np.ndarray) -> Program:
    """The program of a network in evaluation, its normalisation included."""
    apply = make_apply(models.make(num_classes=len(trained.classes.ids), **trained.config.model))
    view = trained.config.view
    return Program(lambda variables, image: apply(variables, image).astype(jnp.float32), trained.variables, view.size,
                   view, calibration)
