"""Eight virtual CPU devices, made before JAX is imported; one compilation cache; small data, and a recipe for them."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from imagenet_jax import runtime  # noqa: E402

runtime.configure()

import pytest  # noqa: E402
from small_data import make_dataset  # noqa: E402
from small_net import SmallNet  # noqa: E402

from imagenet_jax import config as config_lib  # noqa: E402
from imagenet_jax import models  # noqa: E402


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "small", 96, 53, 4)


@pytest.fixture(scope="session")
def six_classes_dir(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "six", 48, 18, 6)


@pytest.fixture
def without_pictures(monkeypatch):
    """A third of the time of a small run."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **options: None)


@pytest.fixture
def step_config(monkeypatch):
    """A small recipe without a dataset, as `benchmark step` takes it."""
    monkeypatch.setitem(models.REGISTRY, "small", models.Spec(SmallNet))
    config = config_lib.base()
    config.global_batch = 64
    config.augment.size = config.view.size = config.view.resize = 32
    config.model.name = "small"
    config.model.bn_group = 16
    return config


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
