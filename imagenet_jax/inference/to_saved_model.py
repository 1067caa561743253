"""A network as a TensorFlow SavedModel that takes encoded images, for TensorFlow Serving and what else runs it.

    net = tf.saved_model.load("OUT/saved_model")
    net.signatures["serving_default"](image=tf.constant([jpeg]))  # string [B] -> logits, probabilities [B, classes]
    net.signatures["pixels"](image=squares)                       # the same of uint8 [B, S, S, 3] RGB
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import jax2tf

from imagenet_jax.inference.program import PLATFORMS, Program
from imagenet_jax.input import loader, pixels

tf = pixels.tf


def write(program: Program, path: str) -> dict[str, Any]:
    """Writes a program with its weights for any number of images; returns what its card says of it.

    Images are decoded, resized and cut by TensorFlow, once and in the middle, whatever library and crops the view
    has; PIL's pixels differ by a level or two.
    """
    module = tf.Module()
    module.variables_ = tf.nest.map_structure(tf.Variable, jax.device_get(program.variables))
    network = jax2tf.convert(program.logits, polymorphic_shapes=[None, "batch, ..."], with_gradient=False,
                             native_serialization_platforms=PLATFORMS)
    square = tf.TensorSpec((program.size, program.size, 3), tf.uint8)
    transform = loader.eval_transform({**program.view, "crops": 1, "scales": (), "library": "tf"})
    see = functools.partial(transform.view, crop=None, **transform.options)

    def of_pixels(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = network(module.variables_, image)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def of_encoded(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return of_pixels(tf.map_fn(see, image, fn_output_signature=square))

    signatures = {"serving_default": (of_encoded, tf.TensorSpec([None], tf.string, name="image")),
                  "pixels": (of_pixels, tf.TensorSpec([None, *square.shape], tf.uint8, name="image"))}
    tf.saved_model.save(module, path, {
        name: tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
        for name, (function, spec) in signatures.items()})
    return {"platforms": PLATFORMS, "versions": {"jax": jax.__version__, "tensorflow": tf.__version__}}


def read(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """What was written, as a function from images uint8 [B, S, S, 3] to logits."""
    return _called(path, "pixels")


def read_encoded(path: str) -> Callable[[Sequence[bytes]], np.ndarray]:
    """What was written, as a function from encoded images to logits."""
    return _called(path, "serving_default")


def _called(path: str, signature: str) -> Callable[[Any], np.ndarray]:
    net = tf.saved_model.load(path)
    return lambda images: net.signatures[signature](image=tf.constant(images))["logits"].numpy()
