"""One example on the host: what is drawn, what is decoded, and PIL as the referee."""

import io

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from imagenet_jax.input import crops, order, pixels
from imagenet_jax.prepare import repair
from imagenet_jax.prepare.examples import Example

tf = pixels.tf
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def picture(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with detail: what JPEG keeps well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def train_example(encoded: bytes, position: int = 0, area=AREA, aspect=ASPECT, flip=True, **options) -> np.ndarray:
    asked = {"size": 24, "interpolation": "bilinear", "antialias": True} | options
    sizes = np.array([pixels.image_size(encoded)])
    (crop,) = crops.random_resized(order.draws(0, position, 1, crops.DRAWS), sizes, area=area, aspect=aspect, flip=flip)
    return pixels.train_example(tf.constant(encoded), tf.constant(crop), **asked).numpy()


def windows(height: int, width: int, count: int, area=AREA, aspect=ASPECT) -> np.ndarray:
    """Windows [count, 4]: top, left, height, width."""
    sizes = np.tile([height, width], (count, 1))
    drawn = order.draws(0, 1, count, crops.DRAWS)
    return crops.random_resized(drawn, sizes, area=area, aspect=aspect, flip=False)[:, :4]


def torchvision_windows(height: int, width: int, count: int, area=AREA, aspect=ASPECT) -> np.ndarray:
    """RandomResizedCrop.get_params of torchvision, told in numpy, with draws of its own."""
    rng, out = np.random.default_rng(0), []
    for _ in range(count):
        for _ in range(10):
            target, ratio = height * width * rng.uniform(*area), np.exp(rng.uniform(*np.log(aspect)))
            w, h = round((target * ratio) ** 0.5), round((target / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                out.append((rng.integers(height - h + 1), rng.integers(width - w + 1), h, w))
                break
        else:
            w = round(height * aspect[1]) if width / height > aspect[1] else width
            h = round(width / aspect[0]) if width / height < aspect[0] else height
            out.append(((height - h) // 2, (width - w) // 2, h, w))
    return np.array(out)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3), (9, 2000), (375, 500), (4000, 3000)])
@pytest.mark.parametrize(("area", "aspect"), [(AREA, ASPECT), ((1.0, 1.0), (1.0, 1.0)), ((0.001, 0.01), (0.1, 10.0))])
def test_windows_lie_inside_the_image(height, width, area, aspect) -> None:
    top, left, h, w = windows(height, width, 100, area, aspect).T
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_area_and_aspect_are_distributed_as_asked() -> None:
    """Where every draw fits: area is uniform, the aspect uniform in its logarithm, the place uniform."""
    top, left, h, w = windows(2000, 2000, 2000, area=(0.1, 0.4)).T.astype(float)
    for values, low, high in ((h * w / 2000**2, 0.1, 0.4), (np.log(w / h), *np.log(ASPECT)),
                              (top / (2000 - h), 0, 1), (left / (2000 - w), 0, 1)):
        assert scipy.stats.kstest((values - low) / (high - low), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("height", "width"), [(375, 500), (200, 1500), (500, 334)])
def test_windows_are_distributed_as_torchvisions(height, width) -> None:
    """Also where many draws do not fit, and where all ten may fail."""
    ours, theirs = windows(height, width, 2000), torchvision_windows(height, width, 2000)
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert scipy.stats.ks_2samp(a, b).pvalue > 0.01


@pytest.mark.parametrize(("height", "width", "window"), [
    (100, 1000, [0, 433, 100, 133]), (1000, 100, [433, 0, 133, 100]), (101, 1000, [0, 432, 101, 135])])
def test_where_no_draw_fits_the_window_is_central(height, width, window) -> None:
    assert windows(height, width, 3, area=(1.0, 1.0)).tolist() == [window] * 3
    assert torchvision_windows(height, width, 1, area=(1.0, 1.0)).tolist() == [window]


@pytest.mark.parametrize(("options", "border"), [({"subsampling": 0}, 0), ({"subsampling": 2}, 32),
                                                 ({"subsampling": 2, "progressive": True}, 32)])
def test_a_decoded_window_is_a_window_of_the_decoded(options, border) -> None:
    """Bit by bit; but where chroma is stored at half size, the outer columns lack neighbours to blend it with."""
    encoded = encode(picture(97, 131), quality=90, **options)
    full = pixels.decode(encoded).numpy().astype(int)
    for top, left, height, width in ((0, 0, 97, 131), (13, 17, 40, 51), (90, 3, 7, 128), (5, 130, 92, 1)):
        window = tf.constant([top, left, height, width])
        got = pixels.decode_window(encoded, window).numpy()
        difference = abs(got - full[top : top + height, left : left + width])
        assert difference.max() <= border
        assert not difference[:, 1:-1].any()


@pytest.mark.parametrize(("mode", "format"), [("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"),
                                              ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG")])
def test_every_mode_becomes_rgb_and_pngs_are_cropped_like_jpegs(mode, format) -> None:
    image = picture(40, 60).convert(mode)
    encoded = encode(image, format)
    wanted = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    decoded = pixels.decode(encoded).numpy()
    assert decoded.shape == wanted.shape and abs(decoded - wanted).max() <= (3 if format == "JPEG" else 0)
    got = pixels.decode_window(encoded, tf.constant([3, 5, 37, 55])).numpy()
    assert abs(got - wanted[3:, 5:]).max() <= (3 if format == "JPEG" else 0)
    assert train_example(encoded).shape == (24, 24, 3)


@pytest.mark.parametrize(("size", "ratio"), [(41, 1), (40, 2), (21, 2), (20, 4), (10, 8), (3, 8)])
def test_a_large_window_is_decoded_at_a_fraction_that_is_still_large_enough(size, ratio) -> None:
    image = picture(120, 150)
    window = tf.constant([11, 33, 80, 97])
    got = pixels.decode_window(encode(image, quality=95, subsampling=0), window, size).numpy()
    assert got.shape == (80 // ratio, 97 // ratio, 3) and (ratio == 1 or min(got.shape[:2]) >= size)
    top, left = 11 // ratio * ratio, 33 // ratio * ratio
    whole = np.asarray(image, float)[top : top + 80 // ratio * ratio, left : left + 97 // ratio * ratio]
    means = whole.reshape(80 // ratio, ratio, 97 // ratio, ratio, 3).mean((1, 3))
    assert abs(got - means).mean() < 3


@pytest.mark.parametrize(("format", "options"), [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0" + bytes(40_000)}),
    ("JPEG", {"comment": b"\xff\xc0 is no frame"}), ("PNG", {}), ("GIF", {})])
def test_the_header_tells_the_size(format, options) -> None:
    encoded = encode(picture(37, 301), format, **options)
    assert pixels.image_size(encoded) == (37, 301)
    padded = encoded[:2] + b"\xff\xff" + encoded[2:] if format == "JPEG" else encoded
    assert pixels.image_size(padded) == (37, 301)


def test_a_size_that_cannot_be_read_is_left_to_the_decoder() -> None:
    encoded = encode(picture(37, 301))
    for broken in (b"", b"no image", encoded[:2], encoded[:20], encoded[:2] + bytes(60)):
        assert pixels.image_size(broken) == (1, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_odd_jpegs_become_rgb_crops(mode) -> None:
    """CMYK never reaches the loader, as `prepare` mends it; should one, it must not look like another picture."""
    whole = {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": False}
    image = picture(24, 24, mode)
    got = train_example(encode(image, quality=95), **whole)
    assert abs(got.astype(int) - np.asarray(image.convert("RGB"))).mean() < 10


def test_the_seed_alone_decides_the_crop() -> None:
    encoded = encode(picture(80, 100))
    first = [train_example(encoded, position) for position in range(8)]
    again = [train_example(encoded, position) for position in reversed(range(8))][::-1]
    assert np.array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 8


def test_half_of_the_crops_are_flipped_and_none_when_not_asked() -> None:
    encoded = encode(picture(24, 24), "PNG")
    whole = {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}
    straight = train_example(encoded, flip=False, **whole)
    assert np.array_equal(straight, picture(24, 24))
    images = [train_example(encoded, position, **whole) for position in range(64)]
    flipped = [np.array_equal(image, straight[:, ::-1]) for image in images]
    assert all(np.array_equal(image, straight) for image, turned in zip(images, flipped, strict=True) if not turned)
    assert 20 < sum(flipped) < 44


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "area"])
def test_every_interpolation_gives_uint8_up_and_down(interpolation) -> None:
    for side in (5, 100):
        image = train_example(encode(picture(side, side), "PNG"), interpolation=interpolation)
        assert (image.shape, image.dtype) == ((24, 24, 3), np.uint8)


PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def torchvision_view(image: Image.Image, size: int, resize_to: int, interpolation: str) -> np.ndarray:
    """Resize(resize_to) and CenterCrop(size) of torchvision, told in PIL."""
    short, long = sorted(image.size)
    longer = int(resize_to * long / short)
    width, height = (resize_to, longer) if image.width <= image.height else (longer, resize_to)
    top, left = int(round((height - size) / 2.0)), int(round((width - size) / 2.0))
    resized = np.asarray(image.resize((width, height), PIL_FILTERS[interpolation]))
    return resized[top : top + size, left : left + size]


# Sides whose scaled longer side is a fraction (rounded down), and margins that are odd (halves round to even).
@pytest.mark.parametrize(("height", "width", "size", "resize_to"), [
    (64, 64, 32, 32), (375, 500, 56, 64), (500, 375, 57, 64), (61, 97, 32, 35), (97, 61, 33, 36), (30, 200, 31, 32),
    (20, 31, 48, 53), (333, 34, 28, 32), (64, 95, 31, 32), (2, 64, 31, 32)])
@pytest.mark.parametrize("interpolation", PIL_FILTERS)
def test_the_evaluation_view_is_torchvisions(height, width, size, resize_to, interpolation) -> None:
    image = picture(height, width)
    got = pixels.eval_example(encode(image, "PNG"), size=size, resize_to=resize_to, interpolation=interpolation,
                            antialias=True).numpy()
    wanted = torchvision_view(image, size, resize_to, interpolation)
    difference = abs(got.astype(int) - wanted)
    exact = pixels.eval_example(encode(image, "PNG"), size=size, resize_to=resize_to, interpolation=interpolation,
                              antialias=True, library="pil").numpy()
    assert np.array_equal(exact, wanted)
    # PIL rounds to uint8, and so clips what bicubic overshoots, between its horizontal and vertical pass.
    assert difference.max() <= (1 if interpolation == "bilinear" else 4) and difference.mean() < 0.5


@pytest.mark.parametrize(("height", "width"), [(375, 500), (97, 61), (64, 64), (32, 100)])
@pytest.mark.parametrize("library", ["tf", "pil"])
def test_crops_are_torchvisions_five_of_every_scale(height, width, library) -> None:
    encoded = encode(picture(height, width), "PNG")
    options = {"size": 32, "interpolation": "bilinear", "antialias": True, "library": library}
    got = pixels.eval_example(encoded, resize_to=35, crops=10, scales=(32, 41), **options).numpy()
    assert got.shape == (10, 32, 32, 3)  # a mirror image is made where it is seen
    for scale, five in zip((32, 41), got.reshape(2, 5, 32, 32, 3), strict=True):
        sides = [scale * side // min(height, width) for side in (width, height)]
        whole = picture(height, width).resize(sides, Image.Resampling.BILINEAR)
        bottom, right = whole.height - 32, whole.width - 32
        wanted = [whole.crop((left, top, left + 32, top + 32)) for top in (0, bottom) for left in (0, right)]
        assert abs(five[:4].astype(int) - np.array(list(map(np.asarray, wanted)))).max() <= (library == "tf")
        alone = pixels.eval_example(encoded, resize_to=scale, **options).numpy()
        assert alone.shape == (32, 32, 3) and np.array_equal(five[4], alone)
    centres = pixels.eval_example(encoded, resize_to=1, scales=(32, 41), **options).numpy()
    assert np.array_equal(centres, got[[4, 9]])


@pytest.mark.parametrize("library", ["tf", "pil"])
def test_25_crops_are_a_grid_from_corner_to_corner(library) -> None:
    whole = picture(48, 61)
    got = pixels.eval_example(encode(whole, "PNG"), size=32, resize_to=48, interpolation="bilinear", antialias=True,
                              crops=50, library=library).numpy()
    corners = [(top, left) for top in (0, 4, 8, 12, 16) for left in (0, 7, 14, 21, 29)]
    assert np.array_equal(got, [np.asarray(whole)[top : top + 32, left : left + 32] for top, left in corners])


@pytest.mark.parametrize("library", ["tf", "pil"])
@pytest.mark.parametrize(("height", "width"), [(1, 4001), (4000, 1), (3, 400)])
def test_of_a_line_evaluation_resizes_the_middle(height, width, library) -> None:
    """All of it would take gigabytes at 256 px; what is seen is what the middle alone would show."""
    image = picture(height, width)
    left, top = (max(side - pixels.LONGEST * min(height, width), 0) // 2 for side in image.size)
    view = {"size": 224, "resize_to": 256, "interpolation": "bilinear"}
    wanted = torchvision_view(image.crop((left, top, width - left, height - top)), **view)
    got = pixels.eval_example(encode(image, "PNG"), antialias=True, library=library, **view).numpy()
    assert abs(got.astype(int) - wanted).max() <= (library == "tf")


def damaged(encoded: bytes, rng: np.random.Generator) -> bytes:
    """Noise over a few bytes, a piece lost or put in twice, or a marker where none was."""
    at, length = rng.integers(2, len(encoded) - 60), int(rng.integers(1, 50))
    piece = [rng.bytes(length), b"", encoded[at : at + 2 * length],
             b"\xff" + rng.choice([0xD8, 0xD9, 0xC0, 0xC4, 0xDA, 0xDB, 0xD0, 0xE0, 0x01]).astype(np.uint8).tobytes()]
    return encoded[:at] + piece[rng.integers(4)] + encoded[at + length :]


@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}),
                                                 ("JPEG", {"restart_marker_rows": 1})])
def test_what_prepare_calls_sound_every_decoder_takes(format, options) -> None:
    rng, image = np.random.default_rng(0), encode(picture(60, 80), format, **options)
    name, kept = "a.jpg" if format == "JPEG" else "a.png", 0
    for _ in range(150):
        checked = repair.check(Example(damaged(image, rng), 0, name), decode=True)
        if checked.example:
            kept, encoded = kept + 1, checked.example.image
            assert pixels.decode(encoded).shape[:2] == pixels.image_size(encoded) == checked.size[::-1]
            train_example(encoded, kept)
            train_example(encoded, kept, antialias=False, size=8)
            pixels.pil_crops(encoded, 24, (32,), "bilinear")
    assert kept > 10 or format == "PNG"


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize(("height", "width", "size"), [
    (301, 200, 224), (150, 90, 224), (447, 300, 224), (224, 224, 224), (1, 1, 32), (1, 400, 32), (3, 60_000, 32),
    (9, 7, 1)])
def test_opencv_resizes_a_window_as_tensorflow_does_but_for_a_level(height, width, size, flip) -> None:
    window, placed = np.asarray(picture(height, width)), np.empty((2, size, size, 3), np.uint8)
    pixels.place_window(window, np.array([0, 0, height, width, flip], np.int32), placed[1])
    wanted = pixels.resize(window, (size, size), "bilinear", False).numpy()[:, :: -1 if flip else 1]
    difference = np.abs(placed[1].astype(int) - wanted)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.25
