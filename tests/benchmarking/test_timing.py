"""Benchmark of the train step: its arithmetic, the batches that cannot be run, and what it says."""

import jax
import pytest

from imagenet_jax import config as config_lib
from imagenet_jax import models
from imagenet_jax.benchmarking import peaks, timing, timing_words
from imagenet_jax.benchmarking.timing import Figures, Refused
from imagenet_jax.errors import UserError
from imagenet_jax.training import parallel

H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_every_batch_is_measured_through_the_step_of_the_recipe(step_config, mode):
    step_config.parallel, step_config.ema_decay = mode, 0.9
    small, large = timing.measure(step_config, [32, 16], seconds=0.05)
    assert (small.batch, large.batch) == (16, 32)
    assert large.lowest <= large.img_per_s <= large.highest
    assert large.img_per_s_device == large.img_per_s / 8 and large.ms_per_step == 1e3 * 32 / large.img_per_s
    assert large.compile_s > 0 and large.compiled in ("cold", "cache", "uncached")
    assert large.memory_gib > 0 and large.memory_from == "compiler"
    assert large.tflops > 0 and large.mfu is None  # nobody publishes the peak of 'cpu'
    assert large.hours == pytest.approx(90 * timing.EXAMPLES / large.img_per_s / 3600, rel=1e-3)


def test_the_batch_of_the_recipe_is_accumulated_as_in_training_and_a_batch_to_try_is_not(step_config):
    step_config.max_per_device_batch = 4
    assert next(timing.measure(step_config, seconds=0.05)).micro_batches == 2
    assert next(timing.measure(step_config, [64], seconds=0.05)).micro_batches == 1


def test_two_steps_of_a_recipe_are_tried(step_config):
    assert timing.trial(step_config) == []
    step_config.schedule.peak = 1e30
    assert "not finite" in timing.trial(step_config)[0]
    step_config.freeze = ("nothing_like_this",)
    assert "nothing_like_this" in timing.trial(step_config)[0]


def test_the_rate_is_the_median_of_the_windows(step_config, monkeypatch):
    monkeypatch.setattr(timing, "_windows", lambda *_: [0.1, 0.2, 0.4, 0.8, 1.6])
    figures = next(timing.measure(step_config, [8], seconds=1))
    assert (figures.img_per_s, figures.lowest, figures.highest, figures.ms_per_step) == (20, 5, 80, 400)


def test_utilisation_is_three_passes_of_two_operations_over_the_peak():
    peak = peaks.peak(H100, "bfloat16")
    tflops, mfu = timing.utilisation(4_089_184_256, 3000, peak)
    assert tflops == pytest.approx(73.6, abs=0.01) and mfu == pytest.approx(73.6 / 989.4, rel=1e-3)
    assert timing.utilisation(4_089_184_256, 3000, None) == (tflops, None)
    assert timing.utilisation(None, 3000, peak) == (None, None)


def test_the_bandwidth_is_what_the_program_moves_over_the_published_rate(step_config):
    program = timing.ready(step_config, parallel.make_layout()).compiled.program
    memory = peaks.memory("TPU v5e")
    share = timing.bandwidth(program, 1e-3, memory)
    assert share == 2 * timing.bandwidth(program, 2e-3, memory)
    images = 8 * 32 * 32 * 3  # of each of 8 devices
    assert share * 1e-3 * 819e9 > images
    assert timing.bandwidth(program, 1e-3, None) is None


def test_what_binds_more_is_said_where_both_are_known(step_config):
    top = Figures(16, 1, 16, 5e3, 5e3, 4e3, 6e3, 1.0, 80.0, 0.14, 0.61, 1.0, "cold", 1.0, "device", 3.0)
    setting = timing.setting(step_config)
    said = timing_words.conclusion(setting, [top])
    assert "the memory binds more, at 61% of its published rate, arithmetic at 14%." in said
    assert "look for what waits" in timing_words.conclusion(setting, [top._replace(bandwidth=0.3)])
    assert "binds" not in timing_words.conclusion(setting, [top._replace(bandwidth=None)])
    assert "bandwidth is unknown" in timing_words.heading(setting)
    setting["memory"] = peaks.memory(H100)._asdict()
    assert "3,350 GB/s" in timing_words.heading(setting) and "61.0%" in timing_words.row(top)


def test_float32_is_compared_with_what_jax_does_then():
    assert peaks.peak(H100, "float32")[:2] == (494.7, "TF32")
    assert peaks.peak(H100, "float32", "highest") is peaks.peak(H100, "float64") is None
    assert peaks.peak("TPU v4", "float32") == peaks.peak("TPU v4", "bfloat16", "highest")
    assert peaks.peak("TPU v3", "bfloat16").tflops == 61.5  # a device is one of two cores
    assert peaks.peak("cpu", "float32") is peaks.peak(f"{H100} MIG 1g.10gb", "bfloat16") is None


def test_nothing_is_said_of_the_operations_of_a_net_that_is_partly_frozen(step_config):
    step_config.freeze = ("!^head/",)
    assert next(timing.measure(step_config, [8], seconds=0.05)).tflops is None


@pytest.mark.parametrize("batch, group", [(128, 16), (64, 16), (96, 12), (8, 1), (16, 16), (40, 5)])
def test_groups_stay_where_they_fit_and_else_are_a_part_of_what_a_device_holds(step_config, batch, group):
    layout = parallel.make_layout()
    fitted = timing.with_batch(step_config, batch, layout)
    assert fitted.model.bn_group == group and step_config.model.bn_group == 16
    config_lib.check(models.fill_view(fitted))
    assert parallel.micro_batches(layout, batch, fitted.max_per_device_batch, group) == 1


def test_a_batch_that_cannot_be_run_is_told_and_the_next_is_tried(step_config, monkeypatch):
    real = timing._measure

    def measure(step_config, layout, seconds):
        if step_config.global_batch == 32:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
        return real(step_config, layout, seconds)

    monkeypatch.setattr(timing, "_measure", measure)
    results = list(timing.measure(step_config, [12, 16, 32], seconds=0.05))
    assert [type(each) for each in results] == [Refused, Figures, Refused]
    assert not results[0].too_large and "cannot be shared by 8 devices" in results[0].problem
    assert results[2] == Refused(32, "does not fit the memory of the devices", True)
    assert timing.best(results).batch == timing.largest(results) == 16
    said = timing_words.conclusion(timing.setting(step_config), results)
    assert "Best: batch 16" in said and "largest that fits is 16; 32 does not" in said
    assert "does not fit" in timing_words.row(results[2])
    assert "small, 32 px, float32" in timing_words.heading(timing.setting(step_config))
    step_config.augment.ramp = (("80%", 48),)
    assert "small, 32 px, the first size of augment.ramp" in timing_words.heading(timing.setting(step_config))
    assert "and all images have the first size" in timing_words.conclusion(timing.setting(step_config), results)


def test_what_training_must_be_told_to_hold_as_much_on_a_device_is_said(step_config):
    step_config.max_per_device_batch = 1
    results = list(timing.measure(step_config, [16], seconds=0.05))
    assert "--config.max_per_device_batch=2" in timing_words.conclusion(timing.setting(step_config), results)


def test_another_error_of_the_devices_is_not_hidden(step_config, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(timing, "_measure", fail)
    with pytest.raises(jax.errors.JaxRuntimeError):
        list(timing.measure(step_config, [16], seconds=0.05))


def test_a_recipe_that_contradicts_itself_is_refused(step_config):
    step_config.freeze = ("nothing_like_this",)
    refused = next(timing.measure(step_config, seconds=0.05))
    assert isinstance(refused, Refused) and "nothing_like_this" in refused.problem
    step_config.model.name = "smal"
    with pytest.raises(UserError):
        timing.setting(step_config)
