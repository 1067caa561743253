"""The step compiled for devices that are not there: what follows from it, what is refused, what is said."""

import json
import types

import jax
import pytest

from imagenet_jax import models
from imagenet_jax.benchmarking import peaks, pod, pod_words, timing
from imagenet_jax.models import counting

V5E = peaks.memory("TPU v5 lite"), peaks.peak("TPU v5 lite", "bfloat16"), peaks.links("TPU v5 lite")


def test_the_least_time_is_what_takes_longest():
    least = pod.bound(819e9, 98.5e12, 1e9, 4, V5E)
    assert least == (1.0, 0.5, pytest.approx(2 * 3 / 4 * 1e9 / 200e9))
    assert least.seconds == 1.0 and least.binds == "memory"
    assert pod.bound(1e9, 394e12, 1e9, 4, V5E).binds == "arithmetic"
    assert pod.bound(1e9, None, 1e9, 4, V5E).arithmetic is None
    assert pod.bound(1e9, 1e9, 1e9, 1, V5E).interconnect == 0  # one chip sends nothing
    unknown = pod.bound(1e9, 1e9, 1e9, 4, (None, None, None))
    assert unknown.seconds is unknown.binds is None


def test_a_device_has_its_share_of_its_chip():
    assert peaks.memory("TPU v3")[:2] == (16, 450) and peaks.memory("TPU v5p")[:2] == (95, 2765)
    assert peaks.memory("TPU7x")[:2] == (96, 3690) and peaks.peak("TPU7x", "bfloat16").tflops == 2307 / 2
    assert peaks.links("TPU v6 lite").gb_per_s == 400 and peaks.links("TPU v2") is None
    assert peaks.memory("cpu") is peaks.links("NVIDIA H200") is None


def test_the_step_of_the_recipe_is_compiled_and_nothing_of_it_is_made(step_config):
    step_config.parallel, step_config.ema_decay = "pmap", 0.9
    devices = jax.devices()
    before = len(jax.live_arrays())
    compiled = pod.compile_for(step_config, devices, 4)
    assert len(jax.live_arrays()) == before
    assert (compiled.batch, compiled.devices, compiled.chips) == (4, len(devices), len(devices))
    assert compiled.steps == round(90 * timing.EXAMPLES / (4 * len(devices)))
    params = counting.params_and_macs(models.make(num_classes=timing.CLASSES, **step_config.model), 32)[0]
    assert params * 4 <= compiled.program.collective_bytes["all-reduce"] <= params * 4 + 10_000
    assert compiled.plan.total > compiled.plan.arguments > 2 * params * 4 / 2**30  # params, momentum, averages
    assert compiled.plan.fits is None and compiled.hours is None  # nobody knows what 'cpu' has
    said = pod_words.words(step_config, "cpu:8", compiled)
    assert "how much there is, is not known" in said and "the time is unknown" in said and "conv" in said
    figures = json.loads(json.dumps(pod_words.figures(step_config, "cpu:8", [compiled])))
    assert figures["batches"][0]["device_hours"] is None


def test_hours_are_those_of_all_steps(step_config, monkeypatch):
    for name, value in (("memory", V5E[0]), ("links", V5E[2])):
        monkeypatch.setattr(peaks, name, lambda kind, value=value: value)
    monkeypatch.setattr(peaks, "peak", lambda *_: V5E[1])
    compiled = pod.compile_for(step_config, jax.devices())
    assert compiled.batch == 8 and compiled.plan.fits  # its share of the recipe's own batch
    least = compiled.program.bound.seconds
    assert least >= compiled.program.hbm_bytes / 819e9
    assert compiled.hours == pytest.approx(90 * timing.EXAMPLES / 64 * least / 3600, rel=1e-3)
    assert "device-hours" in pod_words.words(step_config, "v5e:2x4", compiled)


def test_a_program_that_is_too_large_is_told_with_what_it_needs(step_config, monkeypatch):
    message = ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
               "Used 20.51G of 15.75G hbm. Exceeded hbm capacity by 4.76G.")
    assert pod.refused(message)[:2] == (20.51, 15.75) and not pod.refused(message).fits
    assert pod.refused("INTERNAL: something else") is None

    def fail(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(pod, "lower", lambda *_: types.SimpleNamespace(compile=fail))
    compiled = pod.compile_for(step_config, jax.devices())
    assert compiled.program is compiled.hours is None
    said = pod_words.words(step_config, "v5e:2x4", compiled)
    assert "does not fit: 20.51 GiB are needed, and a device has 15.75" in said and "--batch_per_device" in said
    assert json.dumps(pod_words.figures(step_config, "v5e:2x4", [compiled]))


def test_of_several_batches_the_largest_that_fits_is_told(step_config, monkeypatch):
    for name, value in (("memory", V5E[0]), ("links", V5E[2])):
        monkeypatch.setattr(peaks, name, lambda kind, value=value: value)
    monkeypatch.setattr(peaks, "peak", lambda *_: V5E[1])
    fits = pod.compile_for(step_config, jax.devices(), 4)
    half, too_large = fits._replace(batch=2), fits._replace(batch=8, plan=pod.Plan(20.5, 16.0), program=None)
    tight = fits._replace(batch=6, plan=fits.plan._replace(total=16.5))  # the compiler took it, the memory does not
    assert pod.largest([half, fits, too_large, tight]) == 4
    assert pod.largest([too_large]) is None
    said = pod_words.several([half, fits, too_large, tight]).splitlines()
    assert said[3].split() == ["8", str(8 * fits.devices), "20.50", "does", "not", "fit"]
    assert float(said[2].split()[-1]) == pytest.approx(fits.hours, rel=0.05) and said[4].endswith("does not fit")
    assert said[5] == "The largest of these that fits is 4 a device."
    assert json.loads(json.dumps(pod_words.figures(step_config, "v5e:2x4", [fits, too_large])))["largest"] == 4
