"""Weights and images drawn from a name and a shape, the same wherever they are drawn: no weight file is stored."""

import math
import zlib

import numpy as np


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a state_dict, float32; kernels keep the size of their input through a ReLU, statistics are uneven."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if max(shape) == math.prod(shape):
        low, high = (-0.2, 0.2) if name.endswith(("bias", "running_mean")) else (0.5, 1.5)
        return rng.uniform(low, high, shape).astype(np.float32)
    deviation = 0.5 if "pos_embed" in name else (2 / math.prod(shape[1:])) ** 0.5
    return (deviation * rng.standard_normal(shape, np.float32)).astype(np.float32)


def draw_images(size: int, count: int) -> np.ndarray:
    """[count, size, size, 3] float32, NHWC: noise over a few coarse squares, so that pooled features differ, too."""
    rng = np.random.default_rng(size)
    coarse = rng.standard_normal((count, 4, 4, 3), np.float32)
    where = np.arange(size) * 4 // size
    return coarse[:, where][:, :, where] + 0.5 * rng.standard_normal((count, size, size, 3), np.float32)


def sizes(name: str, native: int) -> tuple[int, int, int]:
    """px of the images that a model is compared on: native, another (odd where it can be), and in training.

    Inception nets halve the image so often that 96 px would leave BatchNorms four numbers to normalise.
    """
    train = 299 if name == "inception_v3" else 160 if name.startswith("inception") else 96
    return native, 160 if name.startswith("vit") else 161, train
