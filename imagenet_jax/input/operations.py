"""What policies do to an image: each operation is a function of uint8 [H, W, 3], RGB, and a number; uint8 out.

They are those of Pillow's ImageOps and ImageEnhance, to a level in 255, of which AutoAugment and all that came after it
are made; computed by OpenCV, which takes a fraction of the time and lets other threads run.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

Operation = Callable[[np.ndarray, float], np.ndarray]
_LEVELS = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # Pillow's ImageFilter.SMOOTH
_INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_LINEAR,
                   "bicubic": cv2.INTER_CUBIC}
# Krizhevsky et al. 2012, section 4.1: the principal components of ImageNet's pixels in 0..1, and their deviations, as
# fb.resnet.torch has them (datasets/imagenet.lua).
_COMPONENTS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045])


class Sampling(NamedTuple):
    """How a moved image is sampled, and the colour of what comes in from outside."""

    interpolation: str = "bilinear"
    fill: tuple[int, int, int] = (0, 0, 0)


def apply(name: str, value: float, image: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The image after the operation of this name; perhaps the very same array, never changed in place."""
    if name in MATRICES:
        return _moved(image, MATRICES[name](value, *image.shape[:2]), sampling)
    return PIXELS[name](image, value)


def _moved(image: np.ndarray, matrix: np.ndarray, sampling: Sampling) -> np.ndarray:
    """matrix: [2, 3], from a point (x, y) of the new image to that of the old one; pixels have their centres at .5."""
    matrix = np.array(matrix, float)
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # OpenCV has them at whole numbers
    flags = _INTERPOLATIONS[sampling.interpolation] | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=flags, borderValue=sampling.fill)


def _rotation(degrees: float, height: int, width: int) -> list[list[float]]:
    """Counter-clockwise about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]


# From (value, height, width) to the matrix of `_moved`. Shears are shares, about the corner; translations are in px.
MATRICES: dict[str, Callable[[float, int, int], list[list[float]]]] = {
    "shear_x": lambda share, height, width: [[1, share, 0], [0, 1, 0]],
    "shear_y": lambda share, height, width: [[1, 0, 0], [share, 1, 0]],
    "translate_x": lambda pixels, height, width: [[1, 0, pixels], [0, 1, 0]],
    "translate_y": lambda pixels, height, width: [[1, 0, 0], [0, 1, pixels]],
    "rotate": _rotation,
}


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Between black (0) and the image (1), and beyond."""
    return cv2.LUT(image, _levels(_LEVELS * factor))


def shift(image: np.ndarray, levels: float) -> np.ndarray:
    """All brighter by so many levels of 255."""
    return cv2.LUT(image, _levels(np.rint(_LEVELS + levels)))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Between the grey of its mean luminance (0) and the image (1), and beyond."""
    mean = int(cv2.mean(_luminance(image))[0] + 0.5)
    return cv2.LUT(image, _levels(mean + (_LEVELS - mean) * factor))


def channel_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """The same about the mean of each channel, as tf.image.adjust_contrast."""
    means = np.array(cv2.mean(image)[:3])
    return cv2.LUT(image, _levels(np.rint(means + (_LEVELS[:, None] - means) * factor))[None])


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Between its luminance (0) and the image (1), and beyond."""
    grey = cv2.cvtColor(_luminance(image), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, -0.49)  # Pillow cuts decimals off, OpenCV rounds


def hue(image: np.ndarray, turn: float) -> np.ndarray:
    """The hue moved by so much of its circle, 0 to 1 or back."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)  # which wraps around
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Between the smoothed image (0) and the image (1), and beyond; pixels at the edge stay."""
    smooth = cv2.filter2D(image, -1, _SMOOTH)
    for edge in (np.s_[[0, -1]], np.s_[:, [0, -1]]):
        smooth[edge] = image[edge]
    return cv2.addWeighted(image, factor, smooth, 1 - factor, -0.49)


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """The highest bits of each value, 0 to 8."""
    return cv2.LUT(image, (_LEVELS & (0xFF00 >> int(bits))).astype(np.uint8))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Values from the threshold on inverted."""
    return cv2.LUT(image, np.where(_LEVELS - threshold < 0, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def solarize_add(image: np.ndarray, add: float) -> np.ndarray:
    """Values below 128 brighter by so many levels."""
    return cv2.LUT(image, np.where(_LEVELS < 128, np.minimum(_LEVELS + int(add), 255), _LEVELS).astype(np.uint8))


def autocontrast(image: np.ndarray, _: float = 0) -> np.ndarray:
    """Each channel stretched to 0..255."""
    tables = []
    for channel in range(3):
        low, high, *_ = cv2.minMaxLoc(cv2.extractChannel(image, channel))
        scale, offset = (255 / (high - low), low) if high > low else (1.0, 0.0)
        tables.append(_LEVELS * scale - offset * scale)  # in Pillow's order: decimals are cut off
    return cv2.LUT(image, _levels(np.stack(tables, axis=1))[None])


def equalize(image: np.ndarray, _: float = 0) -> np.ndarray:
    """The histogram of each channel made as flat as it can be."""
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        last = counts[np.flatnonzero(counts)[-1]]
        step = (counts.sum() - last) // 255
        below = np.cumsum(counts) - counts
        tables.append((step // 2 + below) // step if step else _LEVELS)
    return cv2.LUT(image, _levels(np.stack(tables, axis=1))[None])


def invert(image: np.ndarray, _: float = 0) -> np.ndarray:
    """Its negative."""
    return cv2.bitwise_not(image)


def lighting(image: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Colours moved along the principal components of ImageNet's: float [3], in their deviations."""
    shifts = 255 * _COMPONENTS @ (_DEVIATIONS * amounts)
    return cv2.LUT(image, _levels(np.rint(_LEVELS[:, None] + shifts))[None])


def identity(image: np.ndarray, _: float = 0) -> np.ndarray:
    """The image."""
    return image


PIXELS: dict[str, Operation] = {operation.__name__: operation for operation in (
    brightness, shift, contrast, channel_contrast, saturation, hue, sharpness, posterize, solarize, solarize_add,
    autocontrast, equalize, invert, identity)}


def _luminance(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _levels(values: np.ndarray) -> np.ndarray:
    """A table for cv2.LUT: what exceeds 0..255 is cut off, and so are decimals."""
    return np.clip(values, 0, 255).astype(np.uint8)
