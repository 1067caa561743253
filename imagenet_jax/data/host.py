"""The tf graph of one example on the host: decode, crop, resize, flip; uint8 out."""

import functools
import io
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import: its start-up lines help nobody
import tensorflow as tf

_RATIOS = (1, 2, 4, 8)  # that libjpeg can shrink by while it decodes
ATTEMPTS = 10  # as torchvision's RandomResizedCrop, before it falls back to a centre crop
DRAWS = 2 * ATTEMPTS + 3  # uniform numbers that one training example takes


def crop_draws(uniform: np.ndarray, area: tuple[float, float], aspect: tuple[float, float]) -> np.ndarray:
    """What `train_example` needs of the draws of many examples, all that the size of an image has no part in.

    Args:
        uniform: float [n, DRAWS] in [0, 1).
        area: fraction of the image that a crop covers, uniform; aspect: width / height, log-uniform.

    Returns:
        float32 [n, DRAWS]: heights and widths of the candidates in units of sqrt(image height * image width), then
        where the crop lies from top and from left (0..1), then the draw that decides the flip.
    """
    areas = area[0] + (area[1] - area[0]) * uniform[:, :ATTEMPTS]
    low, high = np.log(aspect)
    ratios = np.exp(low + (high - low) * uniform[:, ATTEMPTS : 2 * ATTEMPTS])
    sides = [np.sqrt(areas / ratios), np.sqrt(areas * ratios)]
    return np.concatenate([*sides, uniform[:, 2 * ATTEMPTS :]], axis=1, dtype=np.float32, casting="same_kind")


def train_example(encoded: tf.Tensor, draws: tf.Tensor, *, size: int, aspect: tuple[float, float], flip: bool,
                  interpolation: str, antialias: bool) -> tf.Tensor:
    """Random-resized-crop and flip of an encoded image (Szegedy et al. 2014, section 6).

    Without antialiasing a JPEG window that is 2, 4 or 8 times `size` on both sides is decoded at that fraction,
    as libjpeg can: it costs less, and averages where plain interpolation would skip pixels.

    Args:
        encoded: JPEG or PNG bytes; only the sampled window of a JPEG is decoded.
        draws: float32 [DRAWS], a row of `crop_draws`, which alone decides what is drawn.
        aspect: width / height that a crop may have, for images that no candidate fits.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    image = decode_window(encoded, draws, aspect, 0 if antialias else size)
    image = resize(image, (size, size), interpolation, antialias)
    return tf.image.flip_left_right(image) if flip and draws[-1] < 0.5 else image


def eval_example(encoded: tf.Tensor, *, size: int, resize_to: int, interpolation: str, antialias: bool,
                 library: str = "tf") -> tf.Tensor:
    """Resizes the shorter side to `resize_to` px and takes the central `size` x `size`: uint8 [size, size, 3].

    library: 'tf', or 'pil' for the very pixels that torchvision's transforms give, which differ by a level or two.
    """
    if library == "pil":
        def view(data: bytes | np.ndarray) -> np.ndarray:
            return pil_view(np.asarray(data, object).item(), size, resize_to, interpolation)  # an array when eager

        return tf.ensure_shape(tf.numpy_function(view, [encoded], tf.uint8, stateful=False), (size, size, 3))
    image = decode(encoded)
    shape = tf.shape(image)[:2]
    target = resize_to * shape // tf.reduce_min(shape)  # the longer side rounds down, as torchvision's Resize
    image = resize(image, target, interpolation, antialias)
    top, left = tf.unstack(tf.cast(tf.round((target - size) / 2), tf.int32))  # half to even, as its CenterCrop
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))


def pil_view(encoded: bytes, size: int, resize_to: int, interpolation: str) -> np.ndarray:
    """Resize(resize_to) and CenterCrop(size) of torchvision on a PIL image, bit for bit: uint8 [size, size, 3].

    Raises:
        ValueError: PIL cannot decode the image.
    """
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    short = min(image.size)
    width, height = (resize_to * side // short for side in image.size)
    image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = (round((side - size) / 2) for side in (width, height))
    return np.asarray(image.crop((left, top, left + size, top + size)))


def resize(image: tf.Tensor, size: tuple[int, int] | tf.Tensor, interpolation: str, antialias: bool) -> tf.Tensor:
    """Resizes uint8 [H, W, 3] and rounds back to uint8."""
    image = tf.image.resize(image, size, interpolation, antialias=antialias)
    if image.dtype == tf.uint8:  # 'nearest'
        return image
    if interpolation == "bicubic" or antialias:
        image = tf.clip_by_value(image, 0, 255)  # the others are means and cannot leave the range
    return tf.cast(image + 0.5, tf.uint8)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """The whole image: uint8 [H, W, 3], RGB."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def decode_window(encoded: tf.Tensor, draws: tf.Tensor, aspect: tuple[float, float], size: int = 0) -> tf.Tensor:
    """The window of `random_window`: uint8 [h, w, 3], RGB.

    size: see `train_example`; 0 for never at a fraction.
    """
    return _decode_window(encoded, lambda shape: random_window(draws, shape, aspect), size)


def _decode_window(encoded: tf.Tensor, window: Callable[[tf.Tensor], tf.Tensor], size: int) -> tf.Tensor:
    """Decodes only window(shape [2]) = int32 [top, left, height, width] where the format allows it.

    size: a JPEG window at least twice as large on both sides is decoded at the smallest 1/2, 1/4 or 1/8 that is
    still as large; 0 for never.
    """
    if tf.io.is_jpeg(encoded):
        box = window(tf.io.extract_jpeg_shape(encoded)[:2])
        if not size:
            return _crop_jpeg(encoded, box, 1)
        enough = tf.reduce_min(box[2:]) >= [size * ratio for ratio in _RATIOS[1:]]
        return tf.switch_case(tf.reduce_sum(tf.cast(enough, tf.int32)),
                              [functools.partial(_crop_jpeg, encoded, box, ratio) for ratio in _RATIOS])
    image = decode(encoded)
    top, left, height, width = tf.unstack(window(tf.shape(image)[:2]))
    return image[top : top + height, left : left + width]


def _crop_jpeg(encoded: tf.Tensor, box: tf.Tensor, ratio: int) -> tf.Tensor:
    """The box at 1 / ratio of its size; libjpeg counts its pixels in the shrunk image."""
    return tf.io.decode_and_crop_jpeg(encoded, box // ratio, channels=3, ratio=ratio)


def random_window(draws: tf.Tensor, shape: tf.Tensor, aspect: tuple[float, float]) -> tf.Tensor:
    """The first of ten drawn windows that fits, else the largest central one whose aspect is allowed.

    Args:
        draws: float32 [DRAWS], a row of `crop_draws`.
        shape: int32 [2], height and width of the image.

    Returns:
        int32 [4]: top, left, height, width.
    """
    shape = tf.cast(shape, tf.float32)
    candidates = tf.round(tf.reshape(draws[: 2 * ATTEMPTS], (2, ATTEMPTS)) * tf.sqrt(tf.reduce_prod(shape)))
    allowed = tf.clip_by_value(shape[1] / shape[0], aspect[0], aspect[1])
    central = tf.maximum(tf.minimum(shape, tf.round(shape[::-1] * [1 / allowed, allowed])), 1)
    candidates = tf.concat([candidates, central[:, None]], axis=1)
    fits = tf.reduce_all((candidates <= shape[:, None]) & (candidates >= 1), axis=0)
    first = tf.argmax(tf.cast(fits, tf.int32))  # the central one always fits
    sides = candidates[:, first]
    room = shape - sides
    corner = tf.where(first < ATTEMPTS, draws[2 * ATTEMPTS : 2 * ATTEMPTS + 2] * (room + 1), room / 2)
    return tf.cast(tf.concat([corner, sides], axis=0), tf.int32)
