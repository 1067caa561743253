"""The tf graph of one example on the host: decode, crop, resize, flip; uint8 out."""

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import: its start-up lines help nobody
import tensorflow as tf

_ATTEMPTS = 10  # as torchvision's RandomResizedCrop, before it falls back to a centre crop


def train_example(encoded: tf.Tensor, seed: tf.Tensor, *, size: int, area: tuple[float, float],
                  aspect: tuple[float, float], flip: bool, interpolation: str, antialias: bool) -> tf.Tensor:
    """Random-resized-crop and flip of an encoded image (Szegedy et al. 2014, section 6).

    Args:
        encoded: JPEG or PNG bytes; only the sampled window of a JPEG is decoded.
        seed: int [2], which alone decides what is drawn.
        area: fraction of the image that a crop covers, uniform; aspect: width / height, log-uniform.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    draws = tf.random.stateless_uniform([2 * _ATTEMPTS + 3], seed)

    def crop(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return _random_window(draws, height, width, area, aspect)

    image = resize(_decode_window(encoded, crop), (size, size), interpolation, antialias)
    return tf.image.flip_left_right(image) if flip and draws[-1] < 0.5 else image


def eval_example(encoded: tf.Tensor, *, size: int, resize_to: int, interpolation: str, antialias: bool) -> tf.Tensor:
    """Resizes the shorter side to `resize_to` px and takes the central `size` x `size`: uint8 [size, size, 3]."""
    image = _decode(encoded)
    shape = tf.shape(image)[:2]
    target = resize_to * shape // tf.reduce_min(shape)  # the longer side rounds down, as torchvision's Resize
    image = resize(image, target, interpolation, antialias)
    top, left = tf.unstack(tf.cast(tf.round((target - size) / 2), tf.int32))  # half to even, as its CenterCrop
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))


def resize(image: tf.Tensor, size: tuple[int, int] | tf.Tensor, interpolation: str, antialias: bool) -> tf.Tensor:
    """Resizes uint8 [H, W, 3] and rounds back to uint8."""
    image = tf.image.resize(image, size, interpolation, antialias=antialias)
    return tf.cast(tf.clip_by_value(tf.round(tf.cast(image, tf.float32)), 0, 255), tf.uint8)


def _decode(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _decode_window(encoded: tf.Tensor, window: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Decodes only window(height, width) = int32 [top, left, height, width] where the format allows it."""
    if tf.io.is_jpeg(encoded):
        height, width = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
        return tf.io.decode_and_crop_jpeg(encoded, window(height, width), channels=3)
    image = _decode(encoded)
    top, left, height, width = tf.unstack(window(*tf.unstack(tf.shape(image)[:2])))
    return image[top : top + height, left : left + width]


def _random_window(draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor, area: tuple[float, float],
                   aspect: tuple[float, float]) -> tf.Tensor:
    """The first of ten drawn windows that fits, else the largest central one whose aspect is allowed."""
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    areas = h * w * (area[0] + (area[1] - area[0]) * draws[:_ATTEMPTS])
    low, high = tf.math.log(aspect[0]), tf.math.log(aspect[1])
    ratios = tf.exp(low + (high - low) * draws[_ATTEMPTS : 2 * _ATTEMPTS])
    heights, widths = tf.round(tf.sqrt(areas / ratios)), tf.round(tf.sqrt(areas * ratios))
    fits = (heights <= h) & (widths <= w) & (heights >= 1) & (widths >= 1)
    first = tf.argmax(tf.cast(fits, tf.int32))
    allowed = tf.clip_by_value(w / h, aspect[0], aspect[1])
    fallback_h, fallback_w = tf.minimum(h, tf.round(w / allowed)), tf.minimum(w, tf.round(h * allowed))
    found = tf.reduce_any(fits)
    ch = tf.where(found, heights[first], tf.maximum(fallback_h, 1))
    cw = tf.where(found, widths[first], tf.maximum(fallback_w, 1))
    top = tf.where(found, tf.floor(draws[-3] * (h - ch + 1)), tf.floor((h - ch) / 2))
    left = tf.where(found, tf.floor(draws[-2] * (w - cw + 1)), tf.floor((w - cw) / 2))
    return tf.cast(tf.stack([top, left, ch, cw]), tf.int32)
