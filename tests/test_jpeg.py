"""What libjpeg says of a JPEG: nothing of sound ones, whatever lies around the picture, and which are corrupt."""

import io

import numpy as np
import pytest
from PIL import Image

from imagenet_jax import jpeg

END = b"\xff\xd9"


def encoded(mode: str = "RGB", **options: object) -> bytes:
    file, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


WHOLE = encoded()


def corruption(image: bytes) -> str:
    return jpeg.corruption(jpeg.complaint(image), image)


@pytest.mark.parametrize("image", [
    WHOLE, encoded("L"), encoded("CMYK"), encoded(progressive=True), encoded(quality=5), encoded(subsampling=0),
    encoded(exif=b"Exif\0\0" + WHOLE), WHOLE + b"trailer", WHOLE[:-2] + bytes(7) + END,
    WHOLE[:2] + b"\xff\xe0\0\x10JFIF\0\7\7\0\0\1\0\1\0\0" + WHOLE[20:], b"GIF89a", b""])
def test_what_is_sound_or_no_jpeg(image) -> None:
    assert corruption(image) == ""


@pytest.mark.parametrize("kind", [{}, {"progressive": True}])
@pytest.mark.parametrize("damage, said", [
    (lambda data: data[: len(data) // 2] + END, "premature end of data segment"),
    (lambda data: data[:-900] + data[-600:], ""),
    (lambda data: data[:-900] + np.random.default_rng(0).bytes(400).replace(b"\xff", b"") + data[-900:], ""),
    (lambda data: data[:-900] + bytes(800) + data[-100:], "")])
def test_what_is_corrupt(kind, damage, said) -> None:
    found = corruption(damage(encoded(**kind)))
    assert found and said in found and "Corrupt JPEG data" not in found


def test_as_much_as_can_be_decoded() -> None:
    whole, cut = jpeg.decoded(WHOLE), jpeg.decoded(WHOLE[: len(WHOLE) // 2])
    assert whole.shape == cut.shape == (70, 90, 3)
    assert np.array_equal(whole[:14], cut[:14]) and np.ptp(cut[-16:]) == 0
    assert np.array_equal(whole, np.asarray(Image.open(io.BytesIO(WHOLE))))
    assert jpeg.decoded(b"no image") is jpeg.decoded(WHOLE[:100]) is None
