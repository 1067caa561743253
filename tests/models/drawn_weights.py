"""Weights and images drawn from a name and a shape, the same wherever they are drawn: no weight file is stored."""

import math
import re
import zlib

import numpy as np

# Drawn BatchNorms normalise nothing in evaluation, so sums of residual branches grow from block to block, to 1e13 in
# ResNet-152; and squeeze-excite of large numbers is a row of hard switches that rounding decides: in float32 PyTorch's
# own logits would be as far from its float64 ones as from anybody's. So the last scale of a branch (from the second
# block of a stage on) and the kernels of squeeze-excite are drawn small.
LAST_NORM = re.compile(r"\.[1-9]\d*\.(block\.[23]\.1|bn3)\.weight$")
EXCITING = re.compile(r"(\.fc[12]|_reduce|_expand)\.weight$")


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a state_dict, float32; kernels keep the size of their input through a ReLU, statistics are uneven."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if max(shape) == math.prod(shape):
        low, high = (-0.2, 0.2) if name.endswith(("bias", "running_mean")) else (0.5, 1.5)
        share = 0.5 if LAST_NORM.search(name) else 1.0
        return (share * rng.uniform(low, high, shape)).astype(np.float32)
    deviation = (2 / math.prod(shape[1:])) ** 0.5
    if len(shape) == 4 and EXCITING.search(name):
        deviation /= 20
    return (deviation * rng.standard_normal(shape, np.float32)).astype(np.float32)


def draw_images(size: int, count: int) -> np.ndarray:
    """[count, size, size, 3] float32, NHWC: noise over a few coarse squares, so that pooled features differ, too."""
    rng = np.random.default_rng(size)
    coarse = rng.standard_normal((count, 4, 4, 3), np.float32)
    where = np.arange(size) * 4 // size
    return coarse[:, where][:, :, where] + 0.5 * rng.standard_normal((count, size, size, 3), np.float32)


def sizes(name: str, native: int) -> tuple[int, int, int]:
    """px of the images that a model is compared on: native, another, and in training.

    The auxiliary head of Inception v3 takes no less than its native size.
    """
    return native, 161, 299 if name == "inception_v3" else 96
