"""A small dataset of images whose brightness pattern tells the class."""

import io

import numpy as np
from PIL import Image

from imagenet_jax.prepare.writer import Example, Source, write_dataset


def draw(count, classes, seed):
    """Examples of `classes` classes: dark or light halves and quarters under noise, in several sizes."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        label = i % classes
        height, width = rng.integers(30, 60, 2)
        image = rng.integers(0, 120, (height, width, 3))
        image[: height // 2] += 100 * (label & 1)
        image[:, : width // 2] += 35 * (label >> 1)
        file = io.BytesIO()
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, "JPEG")
        yield Example(file.getvalue(), label, f"image_{i}.JPEG")


def make_dataset(directory, train, validation, classes):
    names = tuple(f"n{i:08d}" for i in range(classes))
    write_dataset(directory, Source("small", names, names, {
        "train": draw(train, classes, 0), "validation": draw(validation, classes, 1)}))
    return str(directory)
