"""Benchmark of the input: every stage runs, costs add up, and the table says which binds."""

from pathlib import Path

import ilsvrc
import numpy as np
import pytest

from imagenet_jax import config as config_lib
from imagenet_jax import dataset
from imagenet_jax.input import benchmark, loader
from imagenet_jax.input.benchmark import Stage
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny"
    examples = [Example(ilsvrc.jpeg(i), 0, f"{i}.JPEG") for i in range(5)]
    writer.write_dataset(path, Source("tiny", ("a",), ("ant",), {"train": examples}))
    return path


def test_every_stage_is_measured_and_the_device_gets_whole_batches(directory) -> None:
    records = dataset.open_split(dataset.open_dataset(directory), "train")
    config, put = config_lib.base(), []
    config.augment.size = 16
    stages = benchmark.measure(loader.Part(records, np.arange(5)), config.augment, batch=7, workers=loader.Workers(),
                               seconds=0.03, put=lambda images: put.append(images.shape))
    assert [stage.name for stage in stages] == ["read", "whole", "decode", "resize", "undecoded", "python",
                                              "batch", "device"]
    assert all(stage.rate > 0 and stage.own >= 0 and stage.processor > 0 for stage in stages)
    assert set(put) == {(7, 16, 16, 3)}


STAGES = [Stage("read", 1e4, 100, 60), Stage("whole", 1e3, 1000, 1000), Stage("decode", 5e3, 200, 400),
          Stage("resize", 4e3, 50, 500), Stage("undecoded", 8e3, 125, 110), Stage("python", 9e3, 111, 50),
          Stage("batch", 3e3, 83, 570), Stage("device", 2e3, 300, 600)]


def test_the_binding_stage_is_the_one_with_the_largest_cost_of_its_own() -> None:
    assert benchmark.binding(STAGES).name == "device"


def test_processor_time_is_counted_once_and_what_is_left_without_reading_is_under_the_lock() -> None:
    found = benchmark.extrapolate(STAGES)
    assert found.stages == {"decode": 400, "resize": 100, "batch": 70, "device": 30} and found.lock == 50
