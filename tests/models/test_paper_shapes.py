"""Networks that no library has: the tables of shapes of their papers, and layers that only they have."""

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


def test_network_in_network_gives_a_map_per_class() -> None:
    shapes = outputs("nin", 224)
    assert shapes["head"] == (6, 6, 1000)
    assert [shapes[f"cccp{i}"] for i in (2, 4, 6, 7)] == [(54, 54, 96), (27, 27, 256), (13, 13, 384), (6, 6, 1024)]


def test_bn_inception_has_the_maps_of_figure_5() -> None:
    """Its totals for 4c, 4d and 4e (576, 576, 1024) are not what its own branches add up to; those are followed."""
    shapes = outputs("bn_inception", 224)
    assert shapes["conv1"] == (112, 112, 64) and shapes["conv2"] == (56, 56, 192)
    blocks = {"3a": (28, 256), "3b": (28, 320), "3c": (14, 576), "4a": (14, 576), "4b": (14, 576), "4c": (14, 608),
              "4d": (14, 608), "4e": (7, 1056), "5a": (7, 1024), "5b": (7, 1024)}
    assert {name: shapes[f"inception_{name}"] for name in blocks} == {
        name: (side, side, channels) for name, (side, channels) in blocks.items()}


def test_resnet50_v1_strides_in_the_first_1x1() -> None:
    """He et al. (2015), where torchvision strides in the 3x3."""
    model = models.make("resnet50_v1", 1000)
    _, state = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, capture_intermediates=True),
                              jnp.zeros((1, 224, 224, 3)))
    block = state["intermediates"]["layer2_0"]
    sides = [block[conv]["__call__"][0].shape[1] for conv in ("conv1", "conv2", "conv3", "downsample_conv")]
    assert sides == [28, 28, 28, 28]
