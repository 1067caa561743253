"""BatchNorm statistics of the weights that are judged: the mean over groups, whatever the devices."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from small_net import SmallNet

from imagenet_jax import dataset as dataset_lib
from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader
from imagenet_jax.models.layers import Conv
from imagenet_jax.training import evaluating, loop, parallel, recalibrating
from imagenet_jax.training.run import build
from imagenet_jax.training.state import init_variables
from imagenet_jax.training.step import normalize

GROUP, VIEW = 8, {"size": 32, "resize": 36, "interpolation": "bilinear", "antialias": True}


@pytest.fixture(scope="module")
def model():
    return SmallNet(num_classes=4, bn_group=GROUP, dropout=0.5)


@pytest.fixture(scope="module")
def variables(model):
    params, _ = init_variables(model, 32, 0)
    return jax.device_get({"params": params, "batch_stats": {  # far from the truth, which must not matter
        f"bn{i}": {"mean": np.full(8, 3, np.float32), "var": np.full(8, 7, np.float32)} for i in range(2)}})


@pytest.fixture(scope="module")
def part(dataset_dir):
    records = dataset_lib.open_split(dataset_lib.open_dataset(dataset_dir), "train")
    return loader.Part(records, np.arange(95, -1, -1)[: 5 * GROUP])


def by_hand(params, model, groups):
    """Means and unbiased variances of both layers, a group [GROUP, 32, 32, 3] at a time, averaged."""
    found = []
    for image in groups:
        x, stats = normalize(image, model), {}
        for i, stride in enumerate((2, 1)):
            x = Conv(8, 3, stride).apply({"params": params[f"conv{i}"]}, x)
            flat = np.asarray(x, np.float64).reshape(-1, 8)
            stats[f"bn{i}"] = {"mean": flat.mean(axis=0), "var": flat.var(axis=0, ddof=1)}
            x = nn.relu((x - flat.mean(axis=0)) / jnp.sqrt(flat.var(axis=0) + model.bn_epsilon))
        found.append(stats)
    return jax.tree.map(lambda *values: np.mean(values, axis=0), *found)


@pytest.mark.parametrize("mode, devices", [("pmap", 1), ("pmap", 2), ("pmap", 8), ("shard_map", 3)])
def test_statistics_are_the_mean_over_groups_on_any_devices(model, variables, part, mode, devices):
    layout = parallel.make_layout(mode, jax.devices()[:devices])
    found = recalibrating.mean_statistics(model, layout, variables, part, VIEW)
    (batch,) = loader.eval_batches(part, batch=5 * GROUP, view=VIEW)
    expected = by_hand(variables["params"], model, batch["image"].reshape(5, GROUP, 32, 32, 3))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5), found, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_evaluate_takes_them_anew_and_says_so(small_config, tmp_path):
    small_config.duration = "2 steps"
    small_config.dataset.holdout = 0.5
    loop.train(small_config, str(tmp_path / "run"))
    judge = functools.partial(evaluating.evaluate_checkpoint, str(tmp_path / "run"), out=str(tmp_path / "out"))
    kept, taken = judge(), judge(bn_examples=20, view={"crops": 10})
    assert "batch_norm" not in kept["protocol"] and kept["metrics"]["loss"] != taken["metrics"]["loss"]
    assert taken["protocol"]["batch_norm"] == (
        "statistics of 24 examples of 'train' in groups of 8, centre crops of 32 px at 32 px")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["protocol"]["batch_norm"]


def test_they_are_of_the_beginning_of_the_training_order(small_config, model, variables, monkeypatch):
    small_config.dataset.holdout = 0.25
    run, seen = build(small_config, ""), []
    monkeypatch.setattr(recalibrating, "mean_statistics", lambda *arguments: seen.append(arguments[3].pool))
    recalibrating.recalibrate(small_config, run.dataset, model, run.layout, variables, 20)
    batch = next(loader.train_batches(run.train_part, seed=small_config.seed, start_step=0, global_batch=24,
                                      augment=small_config.augment))
    assert seen[0].tolist() == batch["index"].tolist()


def test_a_network_without_batchnorm_is_told(small_config, dataset_dir, variables):
    small_config.model.name = "alexnet"
    with pytest.raises(UserError, match="alexnet has no BatchNorm"):
        recalibrating.recalibrate(models.fill_view(small_config), dataset_lib.open_dataset(dataset_dir), None,
                                  parallel.make_layout(), {"params": {}, "batch_stats": {}}, 8)
