"""A small dataset of images whose brightness pattern tells the class, and a small recipe for it."""

import io

import numpy as np
import pytest
from PIL import Image
from small_net import SmallNet

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.data.writer import Example, Source, write_dataset


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


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "small", 96, 53, 4)


@pytest.fixture(scope="session")
def six_classes_dir(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "six", 48, 18, 6)


@pytest.fixture
def small_config(dataset_dir, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "small", models.Spec(SmallNet))
    config = config_lib.base()
    config.duration = "6 steps"
    config.global_batch = 16
    config.log_every = "2 steps"
    config.dataset.dir = dataset_dir
    config.augment.size = config.view.size = config.view.resize = 32
    config.model.name = "small"
    config.model.bn_group = 8
    config.evaluation.every = "3 steps"
    config.evaluation.batch = 24
    config.checkpoint.every = "2 steps"
    return config
