"""A dataset of drawn pictures in which every defect that cleaning looks for was planted, and is known."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from imagenet_jax.prepare.shapes import KINDS, draw_image
from imagenet_jax.prepare.writer import Example, Source, write_dataset

Truth = dict[str, set[int]]  # by flag: indices in the training split


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def png(image: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(image)).save(file, "PNG")
    return file.getvalue()


def opened(image: bytes) -> Image.Image:
    return Image.open(io.BytesIO(image))


def noise(size: tuple[int, int], level: int, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(level - 3, level + 4, (*size, 3)).astype(np.uint8))


def with_a_lamp(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top = rng.integers(0, 40, 2).tolist()
    image.paste("white", (left, top, left + 8, top + 8))
    return image


# By flag, what is made of a picture of its own.
DEFECTS: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "undecodable": lambda image, rng: jpeg(image)[:-300],
    "corrupt": lambda image, rng: jpeg(image)[:-300] + b"\xff\xd9",
    "tiny": lambda image, rng: jpeg(image.resize((24, 20))),
    "extreme_aspect": lambda image, rng: jpeg(image.resize((400, 80))),
    "uniform": lambda image, rng: jpeg(noise((60, 70), int(rng.integers(40, 200)), rng)),
    "grey": lambda image, rng: jpeg(image.convert("L").convert("RGB")),
    "blurred": lambda image, rng: jpeg(image.resize((300, 280), Image.Resampling.BICUBIC).filter(
        ImageFilter.GaussianBlur(6))),
    "dark": lambda image, rng: jpeg(with_a_lamp(ImageEnhance.Brightness(image).enhance(0.04), rng)),
}
COPIES: dict[str, list[Callable[[bytes], bytes]]] = {
    "exact_duplicate": [lambda image: image, png],
    "near_duplicate": [
        lambda image: jpeg(opened(image), 50),
        lambda image: jpeg(opened(image).resize((64, 64), Image.Resampling.LANCZOS)),
        lambda image: jpeg(ImageEnhance.Brightness(opened(image)).enhance(0.9)),
        lambda image: jpeg(opened(image).resize((150, 140), Image.Resampling.BICUBIC), 80),
    ],
}


def plant(directory: Path, bases: int, each: int, seed: int = 0, wrong: float = 0.05) -> tuple[Truth, np.ndarray]:
    """Writes the dataset; returns what was planted, and the true labels int64 [n] of the training split.

    Args:
        bases: sound pictures in train, and half as many in validation.
        each: how many of every defect, of every kind of copy, and of leaks.
        wrong: share of the training labels that are of another class.
    """
    rng, classes = np.random.default_rng(seed), 4
    draw = lambda label: draw_image(KINDS[3 * label], rng).image
    sound = lambda count: [(jpeg(draw(i % classes)), i % classes) for i in range(count)]
    train, validation = sound(bases), sound(bases // 2)
    truth: Truth = {flag: set() for flag in (*DEFECTS, *COPIES, "label_conflict", "leak", "label_error")}

    # No picture is copied twice: both copies would rightly be duplicates of each other.
    originals = iter([train[i] for i in rng.permutation(bases)])
    leaked = iter([validation[i] for i in rng.permutation(len(validation))])

    def add(flag: str, image: bytes, label: int) -> None:
        truth[flag].add(len(train))
        train.append((image, label))

    for i in range(each):
        for flag, defect in DEFECTS.items():
            add(flag, defect(draw(i % classes), rng), i % classes)
        for flag, copies in COPIES.items():
            for copy in copies:
                image, label = next(originals)
                add(flag, copy(image), label)
        image, label = next(originals)
        add("exact_duplicate", image, (label + 1) % classes)
        truth["label_conflict"].add(len(train) - 1)
        for copy in (COPIES["exact_duplicate"][1], COPIES["near_duplicate"][1]):
            image, label = next(leaked)
            add("leak", copy(image), label)
    true = np.array([label for _, label in train])
    given = true.copy()
    truth["label_error"] = set(rng.choice(bases, round(wrong * bases), replace=False).tolist())
    for i in truth["label_error"]:
        given[i] = (true[i] + rng.integers(1, classes)) % classes
    write = lambda images, labels: (Example(image, int(label), f"{i:05d}.JPEG")
                                    for i, ((image, _), label) in enumerate(zip(images, labels, strict=True)))
    names = tuple(f"n{i:08d}" for i in range(classes))
    write_dataset(directory, Source("planted", names, names, {
        "train": write(train, given), "validation": write(validation, [label for _, label in validation])}))
    return truth, true
