"""What libjpeg itself says of a JPEG, which Pillow and TensorFlow keep to themselves."""

import re

import numpy as np
import simplejpeg

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
_HARMLESS = ("unknown JFIF revision", "Unknown Adobe color transform", "Unsupported color conversion")  # CMYK to RGB


def complaint(encoded: bytes) -> str:
    """The first thing that libjpeg says while it decodes a JPEG (jerror.h), empty if it says nothing or it is no JPEG.

    The pixels are made at an eighth of the size, which takes half of the time: what is coded is read all the same.
    """
    if not encoded.startswith(_START):
        return ""
    try:
        simplejpeg.decode_jpeg(encoded, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return str(error).removeprefix("Corrupt JPEG data: ")
    return ""


def corruption(said: str, encoded: bytes) -> str:
    """What libjpeg said of a JPEG if it means that part of the picture is grey or noise, else nothing.

    Bytes left over where the picture ends are what a damaged one did not need, unless they are padding, all alike;
    before another marker they are no part of the picture. Of 22,000 photographs of ImageNet none is warned of.
    """
    if found := _LEFT_OVER.search(said):
        end, count = encoded.rfind(_END), int(found[1])
        harmless = found[2] != "d9" or len(set(encoded[max(end - count, 0) : end])) <= 1
    else:
        harmless = any(words in said for words in _HARMLESS)
    return "" if harmless else said


def decoded(encoded: bytes) -> np.ndarray | None:
    """As much of a JPEG as can be decoded, the rest grey: uint8 [H, W, 3]; None where nothing can."""
    try:
        return simplejpeg.decode_jpeg(encoded, strict=False)
    except ValueError:
        return None
