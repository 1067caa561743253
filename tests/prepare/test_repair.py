"""Image checks: sound files keep their bytes, odd ones are mended, broken ones refused."""

import io

import ilsvrc
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from imagenet_jax.prepare import repair
from imagenet_jax.prepare.formats import HEAD, is_image
from imagenet_jax.prepare.writer import Checked, Example


def _check(image: bytes, file_name: str = "a.JPEG", decode: bool = False) -> Checked:
    return repair.check(Example(image, 0, file_name), decode)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def _png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    encoded = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(encoded, "PNG")
    return encoded.getvalue()


_RAMP = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
_THUMBNAIL = b"Exif\0\0" + b"x" * 40 + ilsvrc.jpeg(9)

_SOUND = {
    "jpeg": (ilsvrc.jpeg(0), "a.JPEG"),
    "grey jpeg": (ilsvrc.jpeg(0, "L"), "a.JPEG"),
    "progressive": (ilsvrc.jpeg(0, progressive=True), "a.JPEG"),
    "bytes after the end": (ilsvrc.jpeg(0) + b"\0" * 100, "a.JPEG"),
    "png that says so": (_png(_RAMP), "a.PNG"),
    "png that says nothing": (_png(_RAMP), "cat/a"),
}


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(("image", "name"), _SOUND.values(), ids=_SOUND.keys())
def test_sound_images_keep_their_bytes(image: bytes, name: str, decode: bool) -> None:
    checked = _check(image, name, decode)
    assert checked.reason == ""
    assert checked.example.image == image


def _ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that its colours are transformed."""
    data = bytearray(ilsvrc.jpeg(0, "CMYK"))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


_ODD = {
    "png named jpeg": (_png(_RAMP), "a.JPEG", "PNG of mode RGB"),
    "palette": (_png(_RAMP, "P"), "a.png", "PNG of mode P"),
    "alpha": (_png(_RAMP, "RGBA"), "a.png", "PNG of mode RGBA"),
    "16 bit": (_png(_RAMP[..., 0].astype(np.uint16) * 257), "a.png", "PNG of mode I;16"),
    "cmyk": (ilsvrc.jpeg(0, "CMYK"), "a.JPEG", "JPEG of mode CMYK"),
    "ycck": (_ycck(), "a.JPEG", "JPEG of mode CMYK"),
    "gif named jpeg": (_encoded(Image.fromarray(_RAMP), "GIF"), "a.JPEG", "GIF of mode P"),
}


@pytest.mark.parametrize(("image", "name", "reason"), _ODD.values(), ids=_ODD.keys())
def test_odd_images_become_rgb_jpeg(image: bytes, name: str, reason: str) -> None:
    checked = _check(image, name)
    assert checked.reason.startswith(reason)
    mended = Image.open(io.BytesIO(checked.example.image))
    assert (mended.format, mended.mode) == ("JPEG", "RGB")
    original = Image.open(io.BytesIO(image))
    if name.endswith("png"):
        seen = _RAMP[..., :1].repeat(3, -1) if "16" in reason else original.convert("RGB")
        assert np.abs(np.asarray(mended, int) - np.asarray(seen, int)).mean() < 4
    assert mended.size == original.size


_FRAMES = {"save_all": True, "append_images": [Image.fromarray(_RAMP[::-1]), Image.fromarray(255 - _RAMP)]}
_OTHER_FORMATS = {
    "gif": ("GIF", _FRAMES, "GIF of mode P, first of 3 frames, re-encoded as RGB PNG"),
    "webp": ("WEBP", _FRAMES | {"lossless": True}, "WEBP of mode RGBA, first of 3 frames, re-encoded as RGB PNG"),
    "tiff": ("TIFF", _FRAMES, "TIFF of mode RGB, first of 3 frames, re-encoded as RGB PNG"),
    "bmp": ("BMP", {}, "BMP of mode RGB re-encoded as RGB PNG"),
    "ppm": ("PPM", {}, "PPM of mode RGB re-encoded as RGB PNG"),
    "jpeg2000": ("JPEG2000", {}, "JPEG2000 of mode RGB re-encoded as RGB PNG"),
    "avif": ("AVIF", {"quality": 100}, "AVIF of mode RGB re-encoded as RGB PNG"),
}


@pytest.mark.parametrize(("kind", "options", "reason"), _OTHER_FORMATS.values(), ids=_OTHER_FORMATS.keys())
def test_other_formats_become_what_tensorflow_decodes(kind: str, options: dict[str, object], reason: str) -> None:
    image = Image.fromarray(_RAMP)
    encoded = _encoded(image, kind, **options)
    assert is_image(encoded[:HEAD])
    checked = _check(encoded, "a.x")
    assert checked.reason == reason
    seen = np.asarray(Image.open(io.BytesIO(checked.example.image)), int)
    assert np.abs(seen - _RAMP).max() <= {"GIF": 40, "AVIF": 12}.get(kind, 0)
    large = _check(_encoded(image.resize((400, 300)), kind), "a.x")
    assert large.reason.endswith("re-encoded as RGB JPEG")
    assert large.example.image.startswith(b"\xff\xd8")


def test_pixels_without_a_stated_range_are_refused() -> None:
    for pixels in (_RAMP[..., 0].astype(np.float32), _RAMP[..., 0].astype(np.int32) * 2**16):
        assert "range that is not stated" in _check(_encoded(Image.fromarray(pixels), "TIFF"), "a.tif").reason


def test_text_is_no_image() -> None:
    for head in (b"", b"BMW is a maker of cars, and has been one", b"P4 is a text", b"II. The second part", b"RIFF"):
        assert not is_image(head)


def test_cmyk_keeps_its_colours() -> None:
    smooth = Image.fromarray(_RAMP)
    mended = _check(_encoded(smooth.convert("CMYK"), "JPEG", quality=95)).example.image
    seen = np.asarray(Image.open(io.BytesIO(mended)), int)
    assert np.abs(seen - np.asarray(smooth, int)).mean() < 6


# The images of ILSVRC2012 known to be odd: github.com/cytsai/ilsvrc-cmyk-image-list, and the one PNG.
_KNOWN_PNG = ("n02105855_2933",)
_KNOWN_CMYK = (
    "n01739381_1309", "n02077923_14822", "n02447366_23489", "n02492035_15739", "n02747177_10752", "n03018349_4028",
    "n03062245_4620", "n03347037_9675", "n03467068_12171", "n03529860_11437", "n03544143_17228", "n03633091_5218",
    "n03710637_5125", "n03961711_5286", "n04033995_2932", "n04258138_17003", "n04264628_27969", "n04336792_7448",
    "n04371774_5854", "n04596742_4225", "n07583066_647", "n13037406_4650", "ILSVRC2012_val_00019877")


@pytest.mark.parametrize("name", _KNOWN_PNG + _KNOWN_CMYK)
def test_known_oddities_are_found_by_content_and_not_by_name(name: str) -> None:
    odd = _png(_RAMP) if name in _KNOWN_PNG else ilsvrc.jpeg(0, "CMYK")
    assert _check(odd, f"{name}.JPEG").reason.endswith("re-encoded as RGB JPEG")
    assert _check(odd, "n99999999_1.JPEG").reason == _check(odd, f"{name}.JPEG").reason
    assert _check(ilsvrc.jpeg(0), f"{name}.JPEG").example.image == ilsvrc.jpeg(0)


_BROKEN = {
    "cut in half": (ilsvrc.jpeg(0)[: len(ilsvrc.jpeg(0)) // 2], "truncated"),
    "cut, thumbnail whole": (ilsvrc.jpeg(0, exif=_THUMBNAIL)[:-20], "truncated"),
    "cut in the header": (ilsvrc.jpeg(0)[:30], ""),
    "cut png": (_png(_RAMP)[:-20], "truncated"),
    "cut cmyk": (ilsvrc.jpeg(0, "CMYK")[:-200], "truncated"),
    "a web page": (b"<html>not found</html>", "begins with '<html>not found<"),
    "empty": (b"", "an empty file"),
}


@pytest.mark.parametrize(("image", "reason"), _BROKEN.values(), ids=_BROKEN.keys())
def test_broken_images_are_refused_with_a_reason(image: bytes, reason: str) -> None:
    checked = _check(image, "a.png" if image.startswith(b"\x89PNG") else "a.JPEG")
    assert checked.example is None
    assert checked.reason
    assert reason in checked.reason.lower()


def test_decoding_finds_what_headers_hide() -> None:
    damaged = bytearray(_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    damaged[len(damaged) // 2] ^= 0xFF
    assert _check(bytes(damaged), "a.png").example is not None
    assert _check(bytes(damaged), "a.png", decode=True).example is None


def test_decoding_tells_what_libjpeg_does() -> None:
    """Of pictures that are kept as they are, and of what comes of others."""
    whole = _encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    cut = whole[: len(whole) // 2] + b"\xff\xd9"
    assert _check(cut).corrupt == _check(whole, decode=True).corrupt == ""
    kept, shrunk = _check(cut, decode=True), repair.check(Example(cut, 0, "a.JPEG"), decode=True, max_side=32)
    assert kept.corrupt == shrunk.corrupt == "premature end of data segment"
    tables = whole.index(b"\xff\xdb")
    odd = whole[:2] + b"\xff\xe0\0\x10JFIF\0\x0d\1\0\0\1\0\1\0\0" + whole[20:tables]  # which is harmless
    assert _check(odd + whole[tables:], decode=True).example.image == odd + whole[tables:]
    assert _check(odd + whole[whole.index(b"\xff\xc0") :], decode=True).example is None
    assert kept.example.image == cut and kept.size == (64, 64) and shrunk.size == (32, 32)


def _put(image: bytes, at: int, piece: bytes) -> bytes:
    return image[:at] + piece + image[at:]


_FORGIVEN = {  # by Pillow; what TensorFlow says differs from case to case
    "stray marker": (_put(ilsvrc.jpeg(0), -40, b"\xff\x01"), "a.JPEG", "a stray marker FF01"),
    "restart": (_put(ilsvrc.jpeg(0), -40, b"\xff\xd3"), "a.JPEG", "a restart out of turn"),
    "segment": (_put(ilsvrc.jpeg(0), -40, b"\xff\xe0\xff\xff"), "a.JPEG", "a segment at byte"),
    "no marker": (_put(ilsvrc.jpeg(0), 20, b"\0" * 5), "a.JPEG", "no marker at byte"),
    "checksum": (_png(_RAMP)[:-16] + bytes(4) + _png(_RAMP)[-12:], "a.png", "a damaged chunk at byte 33"),
}


@pytest.mark.parametrize(("image", "name", "reason"), _FORGIVEN.values(), ids=_FORGIVEN.keys())
def test_what_only_some_decoders_forgive_is_mended(image: bytes, name: str, reason: str) -> None:
    assert _check(image, name).example.image == image
    checked = _check(image, name, decode=True)
    assert reason in checked.reason and checked.reason.endswith("re-encoded as RGB JPEG")
    assert _check(checked.example.image, "a.JPEG", decode=True).reason == ""


def test_arithmetic_coding_is_mended_and_endless_scans_are_refused() -> None:
    """Seen in headers, as TensorFlow decodes no arithmetic coding and would take minutes over the latter."""
    progressive = ilsvrc.jpeg(0, progressive=True)
    last = progressive.rindex(b"\xff\xda")
    endless = progressive[:last] + progressive[last:-2] * 200 + progressive[-2:]
    for decode in (False, True):
        coded = _check(ilsvrc.jpeg(0).replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"), decode=decode)
        assert coded.reason == "JPEG with arithmetic coding, re-encoded as RGB JPEG"
        assert _check(endless, decode=decode).reason.endswith("scans: it would take minutes to decode")


def test_of_a_moving_png_the_first_picture_is_kept() -> None:
    checked = _check(_encoded(Image.fromarray(_RAMP), "PNG", **_FRAMES), "a.png")
    assert checked.reason == "PNG of mode RGB, first of 3 frames, re-encoded as RGB JPEG"
    assert np.abs(np.asarray(Image.open(io.BytesIO(checked.example.image)), int) - _RAMP).mean() < 4


def test_a_side_beyond_what_jpeg_holds_is_refused() -> None:
    assert "70000 x 1 px" in _check(_encoded(Image.new("L", (70_000, 1)), "PNG"), "a.png").reason


def test_boxes_are_ordered_clamped_and_dropped_without_area() -> None:
    boxes = np.array(
        [
            [0.5, 0.75, 0.25, 0.25],  # corners swapped
            [-0.5, 0.5, 0.5, 1.5],  # beyond the image
            [0.5, 0.0, 0.5, 1.0],  # no height
            [1.1, 0.0, 1.2, 1.0],  # outside
            [np.nan, 0.0, 1.0, 1.0],
        ],
        np.float32,
    )
    tidy = repair.check(Example(ilsvrc.jpeg(0), 0, "a.JPEG", boxes)).example.boxes
    np.testing.assert_array_equal(tidy, [[0.25, 0.25, 0.5, 0.75], [0, 0.5, 0.5, 1]])
    assert repair.tidy_boxes(np.zeros((0, 4), np.float32)).shape == (0, 4)


def _stored(turn: int) -> tuple[Image.Image, bytes]:
    """A picture with a red corner, and a JPEG that looks so when turned by an EXIF orientation."""
    upright = Image.new("RGB", (64, 32), "blue")
    upright.paste("red", (0, 0, 32, 16))
    backward = {6: 8, 8: 6}.get(turn, turn)
    stored = ImageOps.exif_transpose(_oriented(upright, backward))
    return upright, _encoded(stored, "JPEG", exif=_exif(turn), quality=95)


def _exif(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    return exif


def _oriented(image: Image.Image, turn: int) -> Image.Image:
    return Image.open(io.BytesIO(_encoded(image, "PNG", exif=_exif(turn))))


@pytest.mark.parametrize("turn", range(2, 9))
def test_exif_turns_pixels_and_boxes_when_asked(turn: int) -> None:
    upright, stored = _stored(turn)
    kept = _check(stored)
    assert (kept.example.image, kept.reason, kept.unturned) == (stored, "", True)
    with Image.open(io.BytesIO(stored)) as image:
        red = np.argwhere(np.asarray(image)[..., 0] > 128)
        height, width = image.height, image.width
    box = (np.concatenate([red.min(axis=0), red.max(axis=0) + 1]) / [height, width, height, width])[None]
    turned = repair.check(Example(stored, 0, "a.JPEG", box), apply_exif=True)
    np.testing.assert_allclose(turned.example.boxes, [[0, 0, 0.5, 0.5]], atol=0.04)
    assert turned.reason == f"turned by EXIF orientation {turn}, re-encoded as RGB JPEG"
    assert (turned.size, turned.unturned) == (upright.size, False)
    with Image.open(io.BytesIO(turned.example.image)) as image:
        assert "exif" not in image.info
        assert np.abs(np.asarray(image, int) - np.asarray(upright, int)).mean() < 6
    small = repair.check(Example(stored, 0, "a.JPEG"), max_side=16, apply_exif=True)
    assert small.size == (16, 8)


def test_exif_that_says_nothing_changes_nothing() -> None:
    for exif in (_exif(1), _exif(9), b"Exif\0\0MM\0*damaged"):
        sound = ilsvrc.jpeg(0, exif=exif)
        for apply_exif in (False, True):
            checked = repair.check(Example(sound, 0, "a.JPEG"), apply_exif=apply_exif)
            assert (checked.example.image, checked.reason, checked.unturned) == (sound, "", False)
