"""Progressive resizing: when images grow, and that nothing but their size changes there."""

import contextlib
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from stepping import DropoutNet, compilations
from test_interruption import metrics, signal_at_step
from test_loop import assert_identical, state_at

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.benchmarking import timing
from imagenet_jax.config import recipes
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader
from imagenet_jax.training import evaluating, loop, parallel, recipe
from imagenet_jax.training.run import build, describe
from imagenet_jax.training.starting import start

pytestmark = pytest.mark.usefixtures("without_pictures")
EXAMPLES = 1_281_167
FFCV = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}  # start_ramp, end_ramp


@pytest.fixture
def growing(small_config):
    """24 px in two steps, 32 in two, 24 in the last two."""
    small_config.augment.size = 24
    small_config.augment.ramp = (("2 steps", 32), ("67%", 24))
    small_config.log_every = "1 steps"
    return small_config


def test_boundaries_are_steps_of_the_run():
    config = config_lib.base()
    config.duration, config.global_batch = "10 epochs", 100
    config.augment.size, config.augment.ramp = 160, (("2 epochs", 192), ("500 steps", 128), ("80%", 224))
    section = recipe.augment(config, 10_000)
    assert section["ramp"] == ((200, 192), (500, 128), (800, 224))
    assert loader.sizes(section, 0) == [(0, 160), (200, 192), (500, 128), (800, 224)]
    assert loader.sizes(section, 199) == [(199, 160), (200, 192), (500, 128), (800, 224)]
    assert loader.sizes(section, 500) == [(500, 128), (800, 224)] and loader.sizes(section, 999) == [(999, 224)]
    config.stretch = 2.0
    assert recipe.augment(config, 10_000)["ramp"] == ((400, 192), (1000, 128), (1600, 224))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("epochs", FFCV)
def test_the_ramp_of_ffcv(name, epochs):
    """As its train_imagenet.py has it: interpolated at the beginning of an epoch, rounded to 32 px, ends even."""
    path = Path(__file__).parents[2] / f"configs/resnet_ffcv.py:{name}_{epochs}"
    (found,) = recipes.load(str(path))
    section = recipe.augment(found.config, EXAMPLES)
    for epoch in range(epochs):
        wanted = 32 * np.round(np.interp(epoch, FFCV[epochs], (160, 192)) / 32)
        for at in (epoch, epoch + 0.9):
            step = round(at * EXAMPLES / found.config.global_batch)
            assert loader.sizes(section, step)[0][1] == wanted, epoch


@pytest.fixture
def whole(growing, tmp_path_factory):
    """The run on all devices that nothing interrupted, made once."""
    path = tmp_path_factory.getbasetemp() / "growing"
    if not path.exists():
        loop.train(growing, str(path))
    return path


@pytest.mark.parametrize("mode, devices", [("pmap", 1), ("shard_map", 2)])
def test_a_run_that_grows_is_the_same_on_any_hardware(growing, whole, tmp_path, monkeypatch, mode, devices):
    layout = parallel.Layout(mode, tuple(jax.devices()[:devices]))
    monkeypatch.setattr(parallel, "make_layout", lambda mode: layout)
    loop.train(growing, str(tmp_path / "run"))
    (ours, _), (theirs, _) = state_at(tmp_path / "run"), state_at(whole)
    for path, value in ours.items():
        np.testing.assert_allclose(value, theirs[path], rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("steps", [(1, 2), (3,), (4, 5)])
def test_interrupted_around_a_border_is_uninterrupted(growing, whole, tmp_path, steps):
    for step in steps:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="143"):
            signal_at_step(patch, step)
            loop.train(growing, str(tmp_path / "cut"))
    loop.train(growing, str(tmp_path / "cut"))
    assert metrics(whole) == metrics(tmp_path / "cut")
    assert_identical(whole, tmp_path / "cut")


def an_evaluator(run):
    return evaluating.make_evaluator(run.options.model, run.layout, batch=run.config.evaluation.batch,
                                     view=run.config.view)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_every_size_is_compiled_before_the_first_step_and_told(growing, mode):
    growing.parallel = mode
    run, told = build(growing, ""), []
    reporter = types.SimpleNamespace(timed=lambda part: contextlib.nullcontext(), say=told.append)
    state = start(run).state
    assert describe(run, state).endswith("\nimages of 24 px, 32 from step 2 on, 24 from step 4 on")
    state = parallel.put_state(state, run.layout)
    step = loop.compile_ahead(run, state, 0, an_evaluator(run), reporter)
    assert [line.split(" was compiled in ")[0] for line in told] == [
        "The step for images of 24 px", "The step for images of 32 px", "The evaluation"]
    with contextlib.closing(loop.device_batches(run, 0, {})) as batches:
        placed = [next(batches) for _ in range(6)]
    with compilations() as compiled:
        for batch in placed:
            state, _ = step(state, batch)
        jax.block_until_ready(state)
    assert not compiled and [batch["image"].shape[-2] for batch in placed] == [24, 24, 32, 32, 24, 24]


@pytest.mark.parametrize("first, sizes", [(1, 2), (3, 2), (4, 1), (6, 0)])
def test_what_is_past_is_not_compiled(growing, first, sizes, monkeypatch):
    run, told = build(growing, ""), []
    state = parallel.put_state(start(run).state, run.layout)
    monkeypatch.setattr(parallel, "compiled", lambda *_: parallel.Compiled(None, 1.0, "cold"))
    loop.compile_ahead(run, state, first, an_evaluator(run),
                       types.SimpleNamespace(timed=lambda _: contextlib.nullcontext(), say=told.append))
    assert len(told) == sizes + 1 and "evaluation" in told[-1]


@pytest.mark.parametrize("ramp, words", [
    ((("50%", 0),), r"augment.ramp=\(\('50%', 0\),\) makes no sense"),
    ((("soon", 32),), "augment.ramp=.* makes no sense.*a duration such as"),
    (("50%", 32), "augment.ramp=.* makes no sense"),
    ((("4 steps", 32), ("2 steps", 24)), r"boundaries at steps \[4, 2\], but they must rise from after step 0"),
    ((("50%", 32), ("3 steps", 24)), r"at steps \[3, 3\]"),
    ((("0.1 steps", 32),), r"at steps \[0\]"),
    ((("6 steps", 32),), r"at steps \[6\], but .* before the end of the run, step 6"),
])
def test_a_ramp_that_makes_no_sense_is_told(small_config, tmp_path, ramp, words):
    small_config.augment.ramp = ramp
    with pytest.raises(UserError, match=words):
        loop.train(small_config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_crops_of_the_largest_size_must_fit(small_config):
    small_config.augment.crop, small_config.augment.resize = "scale_jitter", (40, 48)
    small_config.augment.ramp = (("50%", 41),)
    with pytest.raises(UserError, match=r"augment.resize=\(40, 48\) makes no sense: both must be at least 41 px"):
        config_lib.check(models.fill_view(small_config))


def test_sizes_that_a_network_cannot_take_are_told(small_config, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "dropout", models.Spec(DropoutNet))
    small_config.model.name, small_config.model.bn_group = "dropout", None
    small_config.augment.ramp = (("50%", 48),)
    with pytest.raises(UserError, match="augment.ramp=.*dropout has other weights for 48 px than for 32"):
        build(small_config, "")
    small_config.model.name, small_config.augment.size, small_config.augment.ramp = "alexnet", 64, (("50%", 32),)
    with pytest.raises(UserError, match="takes images of 63 x 63 px and more, not 32 x 32; raise .*augment.ramp"):
        build(small_config, "")


def test_a_recipe_whose_ramp_ends_too_late_does_not_hold(small_config):
    assert timing.trial(small_config) == []
    small_config.augment.ramp = (("6 steps", 40),)
    assert "before the end of the run" in timing.trial(small_config)[0]
