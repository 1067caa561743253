"""What no library has: the AlexNet of 2012 beside its paper."""

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_jax import models
from imagenet_jax.models.alexnet import local_response_norm


def outputs(name: str, size: int):
    """Shape of what every module of a network gives for one image."""
    model = models.make(name, 1000)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    _, state = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, capture_intermediates=True), image)
    return {key: value["__call__"][0].shape[1:] for key, value in state["intermediates"].items()
            if isinstance(value, dict) and "__call__" in value}


def test_alexnet_2012_has_the_neurons_of_its_layers() -> None:
    """Section 3.5 gives them, but for the first layer, whose 253,440 contradict the 55 x 55 x 96 of figure 2."""
    shapes = outputs("alexnet_2012", 227)
    layers = [f"conv{i}" for i in range(1, 6)] + ["fc1", "fc2", "head"]
    assert [np.prod(shapes[layer]) for layer in layers] == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]


def test_local_response_normalisation_is_the_formula_of_section_3_3() -> None:
    x = 30 * np.random.default_rng(0).standard_normal((2, 1, 3, 8)).astype(np.float32)
    wanted = np.empty_like(x)
    for i in range(8):
        total = np.square(x[..., max(0, i - 2):min(7, i + 2) + 1]).sum(-1)
        wanted[..., i] = x[..., i] / (2 + 1e-4 * total) ** 0.75
    np.testing.assert_allclose(local_response_norm(x), wanted, rtol=1e-5)
