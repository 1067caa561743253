"""Per-image checks: every example leaves readable, or is refused with a reason.

What ImageNet holds beyond plain JPEG: a PNG named .JPEG, CMYK and YCCK JPEGs, and in copies that
travelled far, truncated files. They are found by content, never by a list of names.
"""

import io

import numpy as np
from PIL import Image

from imagenet_jax.data.writer import Checked, Example

_QUALITY = 95


def check(example: Example, decode: bool = False) -> Checked:
    """Judges one example; mends what a plain RGB or grey decoder would stumble over.

    A sound JPEG, or a PNG that says so in its name, of one or three 8-bit channels keeps its
    bytes. Anything else Pillow can decode becomes an RGB JPEG (quality 95, full chroma); the rest
    is refused. Boxes are tidied by `tidy_boxes`.

    Args:
        example: the image as it came.
        decode: decode every pixel; otherwise headers, and that the image reaches its end.
    """
    try:
        image, reason = _mend(example.image, example.file_name, decode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds over damaged files
        return Checked(None, _why(error))
    return Checked(example._replace(image=image, boxes=tidy_boxes(example.boxes)), reason)


def tidy_boxes(boxes: np.ndarray) -> np.ndarray:
    """Orders corners, clamps to the image, and drops boxes without area: [M, 4] -> [<=M, 4]."""
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).clip(0, 1)
    # A comparison with NaN, which stands for a box that could not be read, is false.
    return corners[(corners[:, 1] > corners[:, 0]).all(axis=1)].reshape(-1, 4).astype(np.float32)


def _mend(data: bytes, file_name: str, decode: bool) -> tuple[bytes, str]:
    stream = io.BytesIO(data)
    with Image.open(stream) as image:
        named = image.format == "JPEG" or file_name.lower().endswith(f".{image.format}".lower())
        if image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L") and named:
            # Inside a scan 0xFF is always stuffed, so this marker can only be the end; looked
            # for after the header because a thumbnail in there has an end of its own.
            end, start = (b"\xff\xd9", stream.tell()) if image.format == "JPEG" else (b"IEND", 0)
            if data.rfind(end, start) < 0:
                raise ValueError("truncated: the end of the image is missing")
            if decode:
                image.load()
            return data, ""
        return _as_jpeg(image), f"{image.format} of mode {image.mode} re-encoded as RGB JPEG"


def _as_jpeg(image: Image.Image) -> bytes:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    encoded = io.BytesIO()
    image.convert("RGB").save(encoded, "JPEG", quality=_QUALITY, subsampling=0)
    return encoded.getvalue()


def _why(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image Pillow knows"
    return str(error) or type(error).__name__
