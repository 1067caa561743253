"""One example on the host: decode, crop, resize, flip; uint8 out. Decoding is TensorFlow's, in a graph."""

import contextlib
import functools
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from imagenet_jax import runtime

runtime.quiet()
import tensorflow as tf  # noqa: E402 it reads what quiet() says

with contextlib.suppress(RuntimeError):  # it has run already, and holds what it holds
    for _kind in ("GPU", "TPU"):  # they are JAX's: TensorFlow would take all of their memory at its first operation
        tf.config.set_visible_devices([], _kind)
    tf.config.threading.set_intra_op_parallelism_threads(1)  # images run beside each other: no one is cut over threads

cv2.setNumThreads(0)  # images run beside each other

_RATIOS = (1, 2, 4, 8)  # that libjpeg can shrink by while it decodes
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG markers among those of frames that are none
CROPS = {1: 1, 5: 5, 10: 5, 50: 25}  # of view.crops, those of different pixels
MIRRORED = (10, 50)  # which take their mirror images, too
LONGEST = 32  # times its shorter side, of which evaluation resizes the middle; no ordinary image is so long


def image_size(encoded: bytes | memoryview) -> tuple[int, int]:
    """Height and width in px that the header of an encoded image states; (1, 1) where it cannot be read."""
    at, jpeg = 2, encoded[:2] == b"\xff\xd8"
    while jpeg and at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return int.from_bytes(encoded[at + 5 : at + 7]), int.from_bytes(encoded[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(encoded[at + 2 : at + 4])  # a marker may be padded
    try:
        with Image.open(io.BytesIO(encoded)) as image:  # which takes ten times as long
            return image.height, image.width
    except Exception:  # Pillow raises a dozen kinds; what is wrong, decoding will tell
        return 1, 1


def train_example(encoded: tf.Tensor, crop: tf.Tensor, *, size: int, interpolation: str, antialias: bool) -> tf.Tensor:
    """A crop of an encoded image, resized and perhaps flipped.

    Without antialiasing a JPEG window that is 2, 4 or 8 times `size` on both sides is decoded at that fraction,
    as libjpeg can: it costs less, and averages where plain interpolation would skip pixels.

    Args:
        encoded: JPEG or PNG bytes; only the window of a JPEG is decoded.
        crop: int32 [crops.CROP], a row of what `crops` draws.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    image = decode_window(encoded, crop[:4], 0 if antialias else size)
    image = resize(image, (size, size), interpolation, antialias)
    return tf.reverse(image, [1]) if crop[4] > 0 else image


def train_window(encoded: tf.Tensor, crop: tf.Tensor, *, size: int, **_: object) -> tf.Tensor:
    """What `train_example` resizes where it does not antialias: uint8 [h, w, 3], RGB."""
    return decode_window(encoded, crop[:4], size)


def place_window(window: np.ndarray, crop: np.ndarray, place: np.ndarray) -> None:
    """Writes `train_window` into its place, uint8 [size, size, 3], bilinearly and perhaps flipped.

    OpenCV takes a fifth of the time of `resize`; it computes with weights of 11 bits, and differs by 1 at most.
    """
    cv2.resize(window, place.shape[1::-1], dst=place, interpolation=cv2.INTER_LINEAR)
    if crop[4]:
        cv2.flip(place, 1, dst=place)


def eval_example(encoded: tf.Tensor, *, size: int, resize_to: int, interpolation: str, antialias: bool,
                 library: str = "tf", crops: int = 1, scales: tuple[int, ...] = ()) -> tf.Tensor:
    """Resizes the shorter side to `resize_to` px and takes the central `size` x `size`, or several such squares.

    Of an image longer than LONGEST times its shorter side only the middle of that length is resized: all of a line of
    30,000 px would be of 256 x 7,680,000.

    Args:
        library: 'tf', or 'pil' for the very pixels that torchvision's transforms give, which differ by a level or two.
        crops: a key of `CROPS`; of MIRRORED ones, whoever sees them makes the mirror images.
        scales: px, shorter sides that are all cut from, in this order; () for resize_to alone.

    Returns:
        uint8 [*crop_axes(crops, scales), size, size, 3].
    """
    scales, shape = scales or (resize_to,), (*crop_axes(crops, scales), size, size, 3)
    if library == "pil":
        def view(data: bytes | np.ndarray) -> np.ndarray:
            return pil_crops(np.asarray(data, object).item(), size, scales, interpolation, crops)  # an array when eager

        return tf.reshape(tf.numpy_function(view, [encoded], tf.uint8, stateful=False), shape)
    image = decode(encoded)
    sides = tf.shape(image)[:2]
    margin = tf.maximum(sides - LONGEST * tf.reduce_min(sides), 0) // 2
    image = image[margin[0] : sides[0] - margin[0], margin[1] : sides[1] - margin[1]]
    sides -= 2 * margin
    squares = []
    for scale in scales:
        target = scale * sides // tf.reduce_min(sides)  # the longer side rounds down, as torchvision's Resize
        resized = resize(image, target, interpolation, antialias)
        squares += [resized[top : top + size, left : left + size]
                    for top, left in places(*tf.unstack(target), size, crops)]
    return tf.reshape(tf.stack(squares), shape)


def crop_axes(crops: int, scales: Sequence[int]) -> tuple[int, ...]:
    """The axes of the crops of an image before [size, size, 3]: none for a single one; mirror images do not count."""
    count = CROPS[crops] * max(len(scales), 1)
    return (count,) if count > 1 else ()


def places(height: Any, width: Any, size: int, crops: int) -> list[tuple[Any, Any]]:
    """(top, left) of the `CROPS[crops]` squares of an image, all px, numbers or tensors.

    One is the centre. Five are the corners before it, in the order of torchvision's FiveCrop; its TenCrop has the same
    of the mirrored image, which are mirror images of these (Krizhevsky et al. 2012, section 4.1), but for the centre of
    an odd margin, which lies one px beside. 25 are a grid, row by row (Simonyan and Zisserman 2014, section 3.2).
    """
    bottom, right = height - size, width - size
    if CROPS[crops] == 25:
        return [(bottom * i // 4, right * j // 4) for i in range(5) for j in range(5)]
    # A half rounds to even, as in torchvision's CenterCrop.
    centre = tuple(room // 2 + room % 2 * (room // 2 % 2) for room in (bottom, right))
    return [centre] if crops == 1 else [(0, 0), (0, right), (bottom, 0), (bottom, right), centre]


def pil_crops(encoded: bytes, size: int, scales: Sequence[int], interpolation: str, crops: int = 1) -> np.ndarray:
    """Resize of torchvision on a PIL image, and CenterCrop or FiveCrop, bit for bit: uint8 [crops, size, size, 3].

    Of an image longer than LONGEST times its shorter side, the middle only.

    Raises:
        ValueError: PIL cannot decode the image.
    """
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds
        raise ValueError(str(error) or type(error).__name__) from error
    short = min(image.size)
    if max(image.size) > LONGEST * short:
        left, top = (max(side - LONGEST * short, 0) // 2 for side in image.size)
        image = image.crop((left, top, image.width - left, image.height - top))
    squares = []
    for scale in scales:
        width, height = (scale * side // short for side in image.size)
        resized = image.resize((width, height), Image.Resampling[interpolation.upper()])
        squares += [resized.crop((left, top, left + size, top + size))
                    for top, left in places(height, width, size, crops)]
    return np.stack([np.asarray(square) for square in squares])


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


def decode_window(encoded: tf.Tensor, window: tf.Tensor, size: int = 0) -> tf.Tensor:
    """Decodes only the window int32 [top, left, height, width] where the format allows it: uint8 [h, w, 3], RGB.

    size: a JPEG window at least twice as large on both sides is decoded at the smallest 1/2, 1/4 or 1/8 that is
    still as large; 0 for never.
    """
    if tf.io.is_jpeg(encoded):
        if not size:
            return _crop_jpeg(encoded, window, 1)
        enough = tf.reduce_min(window[2:]) >= [size * ratio for ratio in _RATIOS[1:]]
        return tf.switch_case(tf.reduce_sum(tf.cast(enough, tf.int32)),
                              [functools.partial(_crop_jpeg, encoded, window, ratio) for ratio in _RATIOS])
    return tf.slice(decode(encoded), [window[0], window[1], 0], [window[2], window[3], 3])


def _crop_jpeg(encoded: tf.Tensor, window: tf.Tensor, ratio: int) -> tf.Tensor:
    """The window at 1 / ratio of its size; libjpeg counts its pixels in the shrunk image."""
    return tf.io.decode_and_crop_jpeg(encoded, window // ratio, channels=3, ratio=ratio)
