"""Per-image checks: every example leaves readable, or is refused with a reason.

What ImageNet holds beyond plain JPEG: a PNG named .JPEG, CMYK and YCCK JPEGs, and in copies that
travelled far, truncated files. They are found by content, never by a list of names. The judge is
Pillow; what only TensorFlow stumbles over is seen by how a file is put together.
"""

import io

import numpy as np
from PIL import ExifTags, Image

from imagenet_jax import jpeg
from imagenet_jax.prepare import structure
from imagenet_jax.prepare.examples import Checked, Example
from imagenet_jax.prepare.formats import FORMATS

MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # where Pillow suspects a trap: 89 million, 270 MB when decoded
MAX_SIDE = 65_500  # px, of a JPEG; TensorFlow takes a PNG up to a million
MAX_SCANS = 100  # encoders make about ten; each costs a pass over the whole picture, at every epoch
_QUALITY = 95  # of odd images kept at their size
_FEW_PIXELS = 128 * 128
_TURNS = dict(enumerate((Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
                         Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
                         Image.Transpose.ROTATE_90), 2))  # by EXIF orientation


def check(example: Example, decode: bool = False, max_side: int = 0, quality: int = 90,
          apply_exif: bool = False) -> Checked:
    """Judges one example; mends what a plain RGB or grey decoder would stumble over.

    A sound JPEG, or a PNG that is not called JPEG, of one or three 8-bit channels keeps its bytes.
    Anything else Pillow can decode is encoded anew (`_mended`), by its first frame where it
    has many; the rest is refused. Boxes are tidied by `tidy_boxes`.

    Args:
        example: the image as it came.
        decode: decode every pixel, mend what Pillow decodes but is not put together as encoders do it, and tell
            what libjpeg says of the others; otherwise headers, and that the image reaches its end.
        max_side: encode all images anew, those with a longer side at that size, and keep what has fewer bytes; most
            of the time that training spends on a JPEG goes with its bytes. 0 leaves images alone.
        quality: of these JPEGs (Pillow's scale, chroma at half resolution).
        apply_exif: turn the pixels, and the boxes, of images that EXIF says to turn. Else they are as stored, which
            is how torchvision and TensorFlow read them.
    """
    encoded = example.image
    try:
        with Image.open(io.BytesIO(encoded), formats=tuple(FORMATS)) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise ValueError(f"{image.width} x {image.height} px: the header is damaged, or it is a trap")
            if (decode or "progressive" in image.info) and (scans := structure.jpeg_scans(encoded)) > MAX_SCANS:
                raise ValueError(f"{scans:,} scans: it would take minutes to decode")
            odd, turn = _oddity(image, example, decode), orientation(image)
            complaint = jpeg.complaint(encoded) if decode else ""
            if apply_exif and turn > 1:
                odd = f"{odd.rstrip(',')}, turned by EXIF orientation {turn},".removeprefix(", ")
                image, example = _turned(image, turn), example._replace(boxes=turned_boxes(example.boxes, turn))
            if max_side:
                data, odd, size = _shrunk(image, encoded, odd, (max_side, quality))
            elif odd:
                data, odd, size = _mended(image, example.file_name, odd)
            else:
                data, size = encoded, image.size
                if decode and (complaint or image.format not in ("JPEG", "MPO")):
                    image.load()  # of a JPEG without fault libjpeg has just made every pixel
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds over damaged files
        return Checked(None, _why(error, encoded))
    return Checked(example._replace(image=data, boxes=tidy_boxes(example.boxes)), odd, size,
                   turn > 1 and not apply_exif, jpeg.corruption(complaint, encoded))


def orientation(image: Image.Image) -> int:
    """1 for an image that is stored as it should be seen, 2 to 8 for EXIF's other orientations."""
    # Pillow itself turns a TIFF and an AVIF. Most JPEGs of ImageNet have no EXIF; for the others it costs 2 us.
    if "exif" not in image.info or image.format in ("TIFF", "AVIF"):
        return 1
    try:
        stated = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no fault of the pixels
        return 1
    return stated if stated in _TURNS else 1


def turned_boxes(boxes: np.ndarray, turn: int) -> np.ndarray:
    """Boxes [M, 4] of an image as it is stored, in the image turned by EXIF orientation `turn`; corners may swap."""
    y, x = boxes[:, 0::2], boxes[:, 1::2]
    if turn >= 5:
        y, x = x, y
    if turn in (2, 3, 6, 7):
        x = 1 - x
    if turn in (3, 4, 7, 8):
        y = 1 - y
    return np.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], axis=1)


def tidy_boxes(boxes: np.ndarray) -> np.ndarray:
    """Orders corners, clamps to the image, and drops boxes without area: [M, 4] -> [<=M, 4]."""
    if not len(boxes):
        return boxes
    corners = np.sort(boxes.reshape(-1, 2, 2), axis=1).clip(0, 1)
    # A comparison with NaN, which stands for a box that could not be read, is false.
    return corners[(corners[:, 1] > corners[:, 0]).all(axis=1)].reshape(-1, 4).astype(np.float32)


def _oddity(image: Image.Image, example: Example, thorough: bool) -> str:
    """Why the bytes cannot stay as they are, or nothing; raises ValueError where they cannot be an image."""
    kind = "JPEG" if image.format == "MPO" else image.format  # a JPEG with a second picture behind it
    misnamed = kind == "PNG" and _is_called_jpeg(example.file_name)
    moving = kind != "JPEG" and getattr(image, "n_frames", 1) > 1
    if kind not in ("JPEG", "PNG") or image.mode not in ("RGB", "L") or misnamed or moving:
        frames = getattr(image, "n_frames", 1)
        return f"{image.format} of mode {image.mode}" + (f", first of {frames} frames," if frames > 1 else "")
    # Inside a scan 0xFF is always stuffed, so this marker can only be the end; looked
    # for after the header because a thumbnail in there has an end of its own.
    end, start = (b"\xff\xd9", image.fp.tell()) if kind == "JPEG" else (b"IEND", 0)
    if example.image.rfind(end, start) < 0:
        raise ValueError("truncated: the end of the image is missing")
    if kind == "JPEG" and structure.jpeg_frame(example.image) not in structure.HUFFMAN | {0}:
        return "JPEG with arithmetic coding,"
    fault = ""
    if thorough:
        fault = (structure.jpeg_fault if kind == "JPEG" else structure.png_fault)(example.image)
    return f"{kind} with {fault}," if fault else ""


def _is_called_jpeg(file_name: str) -> bool:
    return file_name.lower().endswith((".jpg", ".jpeg", ".jpe", ".jfif"))


def _turned(image: Image.Image, turn: int) -> Image.Image:
    turned = image.transpose(_TURNS[turn])
    turned.format = image.format
    return turned


def _shrunk(image: Image.Image, encoded: bytes, odd: str,
            options: tuple[int, int]) -> tuple[bytes, str, tuple[int, int]]:
    """The image as a JPEG of a longest side and a quality, or its own bytes if it is sound and they are fewer."""
    max_side, quality = options
    if image.mode not in ("RGB", "L"):
        image = _rgb(image)
    before = image.size
    # The gap lets libjpeg decode at 1/2, 1/4 or 1/8 while at least twice the size is left for the filter.
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    data = _as_jpeg(image, quality)
    if odd:
        return data, f"{odd} re-encoded as RGB JPEG", image.size
    return encoded if image.size == before and len(data) >= len(encoded) else data, "", image.size


def _mended(image: Image.Image, file_name: str, odd: str) -> tuple[bytes, str, tuple[int, int]]:
    """The image at its size as RGB JPEG or PNG.

    As a JPEG the same photograph takes a fraction of the bytes, and training decodes only the window it sees. But a
    picture that is neither JPEG nor PNG, nor called JPEG, and has at most 128 x 128 px becomes a PNG: so few pixels
    take no room, and among them are icons and digits, on which a JPEG would leave marks.
    """
    small = image.width * image.height <= _FEW_PIXELS and not _is_called_jpeg(file_name)
    kind = "PNG" if small and image.format not in ("JPEG", "MPO", "PNG") else "JPEG"
    rgb = _rgb(image)
    data = _as_png(rgb) if kind == "PNG" else _as_jpeg(rgb, _QUALITY, subsampling=0)
    return data, f"{odd} re-encoded as RGB {kind}", image.size


def _as_png(image: Image.Image) -> bytes:
    encoded, image.info = io.BytesIO(), {}
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _as_jpeg(image: Image.Image, quality: int, **options: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, icc_profile=None, exif=b"", comment=b"", **options)
    return encoded.getvalue()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are floats, of a range that is not stated")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits, not scale them
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() >= 2**16:
            raise ValueError("pixels are 32 bits, of a range that is not stated")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    return image.convert("RGB")


def _why(error: Exception, data: bytes) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        begins = data[:16].decode("ascii", "backslashreplace")
        return f"not an image Pillow knows: it begins with {ascii(begins)}" if data else "an empty file"
    return str(error) or type(error).__name__
