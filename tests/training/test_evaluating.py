"""Evaluation is exact: batch size, devices and the way they are driven change no metric."""

import jax
import numpy as np
import pytest
import scipy.special
from small_net import SmallNet
from stepping import compilations

from imagenet_jax import config as config_lib
from imagenet_jax import dataset as dataset_lib
from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact
from imagenet_jax.input import loader, pixels
from imagenet_jax.training import evaluating, loop, parallel
from imagenet_jax.training.run import build
from imagenet_jax.training.state import init_variables
from imagenet_jax.training.step import make_apply

LOOK = {"size": 32, "interpolation": "bilinear", "antialias": True}
VIEW = LOOK | {"resize": 36}


@pytest.fixture(scope="module")
def part(dataset_dir):
    records = dataset_lib.open_split(dataset_lib.open_dataset(dataset_dir), "validation")
    return loader.Part(records, np.arange(len(records)))


@pytest.fixture(scope="module")
def model():
    return SmallNet(num_classes=4, bn_group=8)


@pytest.fixture(scope="module")
def variables(model):
    params, batch_stats = init_variables(model, 32, 0)
    return {"params": jax.device_get(params), "batch_stats": jax.device_get(batch_stats)}


def judge(model, variables, part, batch, devices, mode, **view):
    layout = parallel.make_layout(mode, jax.devices()[:devices])
    evaluator = evaluating.make_evaluator(model, layout, batch=batch, view=VIEW | view)
    variables = parallel.put_state(variables, layout)
    evaluating.compile_ahead(evaluator, variables)
    with compilations() as compiled:
        predictions, names = evaluating.evaluate(evaluator, variables, part)
    assert not compiled
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


@pytest.mark.parametrize("mode, devices, batch, asked",
                         [("pmap", 1, 64, 10), ("pmap", 2, 7, 10), ("shard_map", 2, 64, 10), ("pmap", 1, 64, 50)])
def test_probabilities_are_averaged_over_crops_scales_and_mirror_images(model, variables, part, mode, devices, batch,
                                                                        asked, monkeypatch):
    monkeypatch.setattr(evaluating, "_BATCH_BYTES", 1_000_000)  # 32 examples of ten crops at two scales, 6 of 50
    predictions = judge(model, variables, part, batch, devices, mode, crops=asked, scales=(32, 40))
    apply = jax.jit(make_apply(model))
    for i in (0, 30, 52):
        record = part.records.read(np.array([i]))[0]
        image = pixels.tf.constant(record[slice(*dataset_lib.row(record).image)])
        crops = [np.asarray(pixels.eval_example(image, resize_to=scale, crops=asked, **LOOK)) for scale in (32, 40)]
        crops = np.concatenate([*crops, *(each[:, :, ::-1] for each in crops)])
        mean = scipy.special.softmax(np.asarray(apply(variables, crops), np.float64), axis=1).mean(axis=0)
        assert predictions.top5[i].tolist() == np.argsort(-mean).tolist()
        np.testing.assert_allclose(predictions.confidence[i], mean.max(), rtol=1e-5)
        np.testing.assert_allclose(predictions.loss[i], -np.log(mean[predictions.label[i]]), rtol=1e-5)


def test_the_command_s_evaluation_is_the_run_s(small_config, tmp_path):
    workdir = tmp_path / "run"
    results = loop.train(small_config, str(workdir))
    again = evaluating.evaluate_checkpoint(str(workdir), batch=5, out=str(tmp_path / "again"))
    assert again["metrics"]["correct1"] == results["val"]["correct1"]
    assert again["metrics"]["loss"] == pytest.approx(results["val"]["loss"], rel=1e-6)
    with pytest.raises(UserError, match="--model=resnet50 is for a file of weights"):
        evaluating.evaluate_checkpoint(str(workdir), model_name="resnet50")
    seen_otherwise = evaluating.evaluate_checkpoint(str(workdir), out=str(tmp_path / "otherwise"), view={
        "crops": 10, "scales": [36, 40], "size": 36})["protocol"]
    assert [seen_otherwise[key] for key in ("crop", "crops", "resize", "scales")] == [36, 10, None, (36, 40)]
    with pytest.raises(UserError, match=r"view.resize=24 .* at least view.size = 32"):
        evaluating.evaluate_checkpoint(str(workdir), view={"resize": 24})
    protocol = again["protocol"]
    assert (protocol["checkpoint"], protocol["library"], protocol["variant"]) == ("checkpoints/6", "tf", "original")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {
        "results.json", "report.md", "report.html", "report.txt", "confusion.png", "mistakes", "predictions.csv"}


def test_a_variant_is_warned_of_and_stamped(dataset_dir):
    dataset = dataset_lib.open_dataset(dataset_dir)
    assert evaluating.variant_warning(dataset) == ""
    small = dataset._replace(variant="max_side=512, quality=90")
    assert "max_side=512, quality=90" in evaluating.variant_warning(small)
    config = models.fill_view(config_lib.base())
    told = evaluating.protocol(small, "validation", config, SmallNet(num_classes=4), "1", "weights")
    assert told["variant"] == small.variant and (told["crop"], told["resize"]) == (224, 256) and told["mean"][0] > 1


def test_folds_give_every_training_example_out_of_fold_probabilities(small_config, tmp_path):
    small_config.dataset.holdout = 0.5
    small_config.duration = "2 steps"
    seen = []
    for fold in (0, 1):
        small_config.dataset.fold = fold
        run = str(tmp_path / f"run{fold}")
        held = build(small_config, run).judged["holdout"].pool
        loop.train(small_config, run)
        results = evaluating.evaluate_checkpoint(run, split="holdout", batch=7, out=f"{run}/out", probabilities=True)
        assert results["protocol"]["split"] == "holdout" and results["protocol"]["fold"] == fold
        kept = np.load(f"{run}/out/probabilities.npy", mmap_mode="r")
        assert kept["index"].tolist() == held.tolist() and kept["probabilities"].dtype == np.float16
        np.testing.assert_allclose(kept["probabilities"].astype(np.float32).sum(axis=1), 1, atol=2e-3)
        correct = (kept["probabilities"].argmax(axis=1) == kept["label"]).sum()
        assert abs(correct - results["metrics"]["correct1"]) <= 1  # float16 can make two classes equal
        seen += held.tolist()
    assert sorted(seen) == list(range(96))


def test_a_run_without_a_holdout_says_so(small_config, tmp_path):
    small_config.duration = "2 steps"
    loop.train(small_config, str(tmp_path / "run"))
    with pytest.raises(UserError, match="no holdout"):
        evaluating.evaluate_checkpoint(str(tmp_path / "run"), split="holdout")
