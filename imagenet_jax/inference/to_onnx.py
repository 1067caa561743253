"""A network as an ONNX file, by jax2onnx, for ONNX Runtime and what else runs it.

    net = onnxruntime.InferenceSession("OUT/model.onnx")
    (logits,) = net.run(None, {"image": images})  # uint8 [B, S, S, 3] RGB -> float32 [B, classes]
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.inference.program import Program
from imagenet_jax.models import lowering

_NEEDED = "--to=onnx needs packages of its own: pip install -r requirements-onnx.txt"


def write(program: Program, path: str) -> dict[str, Any]:
    """Writes a program with its weights for any number of images; returns what its card says of it.

    Raises:
        UserError: jax2onnx or ONNX Runtime is not installed.
    """
    try:
        with quiet():
            import jax2onnx
            import onnxruntime
    except ImportError as error:
        raise UserError(f"{_NEEDED} ({error})") from error
    image = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), program.size, program.size, 3), jnp.uint8)
    with quiet(), lowering.plain_operations():
        made = jax2onnx.to_onnx(functools.partial(program.logits, program.variables), [image],
                                model_name="imagenet_jax", input_names=["image"], output_names=["logits"])
    with open(path, "wb") as file:
        file.write(made.SerializeToString())  # one file; by itself jax2onnx puts large weights beside it
    return {"versions": {"jax": jax.__version__, "onnxruntime": onnxruntime.__version__}}


def read(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """What was written, as a function from images to logits, run by ONNX Runtime on CPU."""
    import onnxruntime

    net = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: net.run(["logits"], {"image": images})[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No logs: jax2onnx has a traceback for each part of it that was made for another release of a library."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
