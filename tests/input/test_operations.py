"""Every operation is Pillow's: on photographs' likes, to less than a level in the mean."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from imagenet_jax.input import operations
from imagenet_jax.input.operations import Sampling

FILL = (124, 116, 104)


def drawn(seed: int = 0) -> Image.Image:
    """Smooth colours with some detail, 61 x 83 px, darker and brighter than others."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(20, 220, (9, 7, 3), np.uint8)).resize((83, 61), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 6, (61, 83, 3)), 0, 255).astype(np.uint8))


def affine(*matrix: float):
    return lambda image, resample: image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)


def adjust_hue(image: Image.Image, turn: float) -> Image.Image:
    """As torchvision adjusts that of an image of PIL."""
    h, s, v = image.convert("HSV").split()
    h = Image.fromarray(np.asarray(h) + np.uint8(int(turn * 255) % 256))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "values", "pillow"), [
    ("brightness", (0.1, 0.7, 1.3, 1.9), lambda image, value: ImageEnhance.Brightness(image).enhance(value)),
    ("contrast", (0.1, 0.7, 1.3, 1.9), lambda image, value: ImageEnhance.Contrast(image).enhance(value)),
    ("saturation", (0.1, 0.7, 1.3, 1.9), lambda image, value: ImageEnhance.Color(image).enhance(value)),
    ("sharpness", (0.1, 0.7, 1.3, 1.9), lambda image, value: ImageEnhance.Sharpness(image).enhance(value)),
    ("posterize", (1, 3, 8), lambda image, value: ImageOps.posterize(image, value)),
    ("solarize", (0, 77.4, 128, 256), lambda image, value: ImageOps.solarize(image, value)),
    ("autocontrast", (0,), lambda image, value: ImageOps.autocontrast(image)),
    ("equalize", (0,), lambda image, value: ImageOps.equalize(image)),
    ("invert", (0,), lambda image, value: ImageOps.invert(image)),
    ("hue", (-0.5, -0.1, 0.05, 0.4), adjust_hue),
], ids=lambda value: value if isinstance(value, str) else "")
def test_colours_are_those_of_pillow(name, values, pillow, seed) -> None:
    image = drawn(seed)
    for value in values:
        got = operations.apply(name, value, np.asarray(image), Sampling()).astype(int)
        assert got.shape == (61, 83, 3)
        most = {"hue": 1.5, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "sharpness": 0.1}.get(name, 0)
        assert np.abs(got - np.asarray(pillow(image, value))).mean() <= most


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("name", "value", "pillow"), [
    ("shear_x", 0.3, affine(1, 0.3, 0, 0, 1, 0)),
    ("shear_y", -0.2, affine(1, 0, 0, -0.2, 1, 0)),
    ("translate_x", 12, affine(1, 0, 12, 0, 1, 0)),
    ("translate_y", -7.5, affine(1, 0, 0, 0, 1, -7.5)),
    ("rotate", 33, lambda image, resample: image.rotate(33, resample, fillcolor=FILL)),
    ("rotate", -120, lambda image, resample: image.rotate(-120, resample, fillcolor=FILL)),
], ids=["shear_x", "shear_y", "translate_x", "translate_y", "rotate", "rotate_far"])
def test_moves_are_those_of_pillow(name, value, pillow, interpolation) -> None:
    image = drawn()
    got = operations.apply(name, value, np.asarray(image), Sampling(interpolation, FILL)).astype(int)
    inside = cv2.erode((got != FILL).any(axis=2).astype(np.uint8), np.ones((5, 5))) > 0  # the edge is blended elsewhere
    expected = np.asarray(pillow(image, Image.Resampling[interpolation.upper()]))
    assert inside.mean() > 0.3
    assert np.abs(got - expected)[inside].mean() < 1
    assert np.abs(got - expected).mean() < 1.5


def test_nothing_is_changed_in_place_and_flat_images_stay() -> None:
    image = np.asarray(drawn()).copy()
    before = image.copy()
    for name in (*operations.PIXELS, *operations.MATRICES):
        operations.apply(name, 0.5, image, Sampling())
        np.testing.assert_array_equal(image, before)
    flat = np.full((5, 6, 3), 77, np.uint8)
    for name in ("autocontrast", "equalize", "contrast", "saturation", "sharpness"):
        np.testing.assert_array_equal(operations.apply(name, 0.5, flat, Sampling()), flat)


def test_solarize_add_and_shift_end_at_white() -> None:
    image = np.array([[[0, 127, 128], [200, 250, 255]]], np.uint8)
    assert operations.solarize_add(image, 110).tolist() == [[[110, 237, 128], [200, 250, 255]]]
    assert operations.shift(image, 20).tolist() == [[[20, 147, 148], [220, 255, 255]]]
    assert operations.shift(image, -20.4).tolist() == [[[0, 107, 108], [180, 230, 235]]]


def test_contrast_of_channels_is_about_their_own_means() -> None:
    image = np.array([[[10, 100, 0], [30, 200, 0]]], np.uint8)
    assert operations.channel_contrast(image, 0.5).tolist() == [[[15, 125, 0], [25, 175, 0]]]


def test_lighting_moves_along_the_components() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    moved = operations.lighting(image, np.array([1.0, 0, 0])).astype(int) - image
    np.testing.assert_array_equal(moved[0, 0], np.rint(255 * 0.2175 * np.array([-0.5675, -0.5808, -0.5836])))
    np.testing.assert_array_equal(operations.lighting(image, np.zeros(3)), image)
