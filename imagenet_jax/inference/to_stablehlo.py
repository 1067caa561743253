"""A network as one file of StableHLO, by jax.export, that needs nothing but JAX.

    from jax import export
    net = export.deserialize(bytearray(open("OUT/model.stablehlo", "rb").read()))
    logits = net.call(images)  # uint8 [B, S, S, 3] RGB -> float32 [B, classes]
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from imagenet_jax.inference.program import PLATFORMS, Program


def write(program: Program, path: str) -> dict[str, Any]:
    """Writes a program with its weights for any number of images; returns what its card says of it."""
    image = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), program.size, program.size, 3), jnp.uint8)
    logits = jax.jit(functools.partial(program.logits, program.variables))
    exported = export.export(logits, platforms=PLATFORMS)(image)
    with open(path, "wb") as file:
        file.write(exported.serialize())
    return {"platforms": PLATFORMS, "versions": {
        "jax": jax.__version__, "calling_convention": exported.calling_convention_version}}


def read(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """What was written, as a function from images to logits."""
    with open(path, "rb") as file:
        return jax.jit(export.deserialize(bytearray(file.read())).call)
