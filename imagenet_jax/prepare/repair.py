"""Per-image checks: every example leaves readable, or is refused with a reason.

What ImageNet holds beyond plain JPEG: a PNG named .JPEG, CMYK and YCCK JPEGs, and in copies that
travelled far, truncated files. They are found by content, never by a list of names.
"""

import io

import numpy as np
from PIL import Image

from imagenet_jax.prepare.examples import Checked, Example

MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # where Pillow suspects a trap: 89 million, 270 MB when decoded
_QUALITY = 95  # of odd images kept at their size
# Formats that images travel in; Pillow knows others, and runs programs for some of them.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


def check(example: Example, decode: bool = False, max_side: int = 0, quality: int = 90) -> Checked:
    """Judges one example; mends what a plain RGB or grey decoder would stumble over.

    A sound JPEG, or a PNG that says so in its name, of one or three 8-bit channels keeps its
    bytes. Anything else Pillow can decode becomes an RGB JPEG (quality 95, full chroma); the rest
    is refused. Boxes are tidied by `tidy_boxes`.

    Args:
        example: the image as it came.
        decode: decode every pixel; otherwise headers, and that the image reaches its end.
        max_side: encode all images anew, those with a longer side at that size, and keep what has fewer bytes; most
            of the time that training spends on a JPEG goes with its bytes. 0 leaves images alone.
        quality: of these JPEGs (Pillow's scale, chroma at half resolution).
    """
    try:
        with Image.open(io.BytesIO(example.image), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px: the header is damaged, or it is a trap")
            odd, before = _oddity(image, example), image.size
            if max_side:
                data, size = _shrunk(image, max_side, quality)
                if not odd and size == before and len(data) >= len(example.image):
                    data = example.image
            elif odd:
                data, size = _as_jpeg(_rgb(image), _QUALITY, subsampling=0), image.size
            else:
                data, size = example.image, image.size
                if decode:
                    image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds over damaged files
        return Checked(None, _why(error))
    return Checked(example._replace(image=data, boxes=tidy_boxes(example.boxes)), odd, size)


def tidy_boxes(boxes: np.ndarray) -> np.ndarray:
    """Orders corners, clamps to the image, and drops boxes without area: [M, 4] -> [<=M, 4]."""
    if not len(boxes):
        return boxes
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).clip(0, 1)
    # A comparison with NaN, which stands for a box that could not be read, is false.
    return corners[(corners[:, 1] > corners[:, 0]).all(axis=1)].reshape(-1, 4).astype(np.float32)


def _oddity(image: Image.Image, example: Example) -> str:
    """Why the bytes cannot stay as they are, or nothing; raises ValueError where the end is missing."""
    kind = "JPEG" if image.format == "MPO" else image.format  # a JPEG with a second picture behind it
    named = kind == "JPEG" or example.file_name.lower().endswith(f".{kind}".lower())
    if kind not in ("JPEG", "PNG") or image.mode not in ("RGB", "L") or not named:
        return f"{image.format} of mode {image.mode} re-encoded as RGB JPEG"
    # Inside a scan 0xFF is always stuffed, so this marker can only be the end; looked
    # for after the header because a thumbnail in there has an end of its own.
    end, start = (b"\xff\xd9", image.fp.tell()) if kind == "JPEG" else (b"IEND", 0)
    if example.image.rfind(end, start) < 0:
        raise ValueError("truncated: the end of the image is missing")
    return ""


def _shrunk(image: Image.Image, max_side: int, quality: int) -> tuple[bytes, tuple[int, int]]:
    if image.mode not in ("RGB", "L"):
        image = _rgb(image)
    # The gap lets libjpeg decode at 1/2, 1/4 or 1/8 while at least twice the size is left for the filter.
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _as_jpeg(image, quality), image.size


def _as_jpeg(image: Image.Image, quality: int, **options: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, icc_profile=None, exif=b"", comment=b"", **options)
    return encoded.getvalue()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits, not scale them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _why(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image Pillow knows"
    return str(error) or type(error).__name__
