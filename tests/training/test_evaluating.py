"""Evaluation is exact: batch size, devices and the way they are driven change no metric."""

import jax
import numpy as np
import pytest
from small_net import SmallNet

from imagenet_jax.data import dataset as dataset_lib
from imagenet_jax.data import loader
from imagenet_jax.evaluation import exact
from imagenet_jax.training import evaluating, loop, parallel
from imagenet_jax.training.state import init_variables

VIEW = {"size": 32, "resize": 36, "interpolation": "bilinear", "antialias": True}


@pytest.fixture(scope="module")
def part(dataset_dir):
    records = dataset_lib.open_split(dataset_lib.open_dataset(dataset_dir), "validation")
    return loader.Part(records, np.arange(len(records)))


@pytest.fixture(scope="module")
def model():
    return SmallNet(4, 8)


@pytest.fixture(scope="module")
def variables(model):
    params, batch_stats = init_variables(model, 32, 0)
    return {"params": jax.device_get(params), "batch_stats": jax.device_get(batch_stats)}


def judge(model, variables, part, batch, devices, mode):
    layout = parallel.make_layout(mode, jax.devices()[:devices])
    evaluator = evaluating.make_evaluator(model, layout, batch=batch, view=VIEW)
    predictions, names = evaluating.evaluate(evaluator, parallel.put_state(variables, layout), part)
    assert names == [f"image_{i}.JPEG" for i in range(53)]
    return predictions


@pytest.mark.parametrize("mode, devices, batch", [
    ("pmap", 1, 64), ("pmap", 3, 7), ("pmap", 3, 500), ("pmap", 8, 64), ("shard_map", 8, 7), ("shard_map", 3, 64)])
def test_batch_and_devices_change_no_metric(model, variables, part, mode, devices, batch):
    predictions = judge(model, variables, part, batch, devices, mode)
    expected = judge(model, variables, part, 7, 1, "pmap")
    ours, theirs = exact.metrics(predictions), exact.metrics(expected)
    assert ours.pop("loss") == pytest.approx(theirs.pop("loss"), rel=1e-6)
    assert ours == theirs and ours["seen"] == 53
    np.testing.assert_array_equal(predictions.top5, expected.top5)


def test_the_command_s_evaluation_is_the_run_s(small_config, tmp_path):
    workdir = tmp_path / "run"
    results = loop.train(small_config, str(workdir))
    again = evaluating.evaluate_checkpoint(str(workdir), batch=5, out=str(tmp_path / "again"))
    assert again["metrics"]["correct1"] == results["val"]["correct1"]
    assert again["metrics"]["loss"] == pytest.approx(results["val"]["loss"], rel=1e-6)
    assert again["protocol"]["checkpoint"] == "checkpoints/6" and again["protocol"]["library"] == "tf"
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "results.json", "report.txt", "confusion.png", "predictions.csv"}
