"""Crops of a resized image, as AlexNet and VGG were trained on. (Random-resized-crops are tested with the pixels.)"""

import numpy as np
import pytest
import scipy.stats

from imagenet_jax.input import crops, order

HEIGHT, WIDTH = 512, 768


def windows(count: int = 5000, **keys) -> np.ndarray:
    asked = {"size": 224, "resize": (256, 256), "central": False, "flip": True} | keys
    return crops.scale_jitter(order.draws(0, 0, count, crops.DRAWS), np.tile([HEIGHT, WIDTH], (count, 1)), **asked)


def test_the_window_is_what_the_crop_shows_of_the_resized_image() -> None:
    top, left, height, width, flip = windows().T
    assert set(height) == set(width) == {448}  # 224 of 256 in twice that
    assert (top.min(), top.max(), left.min(), left.max()) == (0, HEIGHT - 448, 0, WIDTH - 448)
    assert scipy.stats.chisquare(np.bincount(top)).pvalue > 1e-3
    assert flip.mean() == pytest.approx(0.5, abs=0.03)


def test_the_scale_is_drawn_uniformly() -> None:
    side = windows(resize=(256, 512))[:, 2]
    scales = np.rint(HEIGHT * 224 / side)
    assert scipy.stats.kstest(scales + np.random.default_rng(0).uniform(-0.5, 0.5, len(scales)), "uniform",
                              (255.5, 257)).pvalue > 1e-3


def test_central_crops_leave_out_the_ends_of_the_longer_side() -> None:
    top, left, *_ = windows(central=True).T
    assert (top.min(), top.max()) == (0, 64) and (left.min(), left.max()) == (128, 128 + 64)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3, 2)])
def test_tiny_images_have_windows(size) -> None:
    made = crops.scale_jitter(order.draws(0, 0, 50, crops.DRAWS), np.tile(size, (50, 1)), size=224, resize=(256, 512),
                              central=False, flip=False)
    assert (made[:, :2] >= 0).all() and (made[:, 2:4] >= 1).all() and (made[:, :2] + made[:, 2:4] <= size).all()
