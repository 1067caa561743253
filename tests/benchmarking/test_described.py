"""Devices that are not there: what their compilers are told of them, and what people are told without compilers."""

import importlib.util
import types

import jax
import pytest
from jax.experimental import topologies

from imagenet_jax.benchmarking import described, peaks
from imagenet_jax.errors import UserError


def test_without_libtpu_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'libtpu==\d+\.\d+"):
        described.devices_of("v5e:4x4")


def test_a_topology_that_libtpu_does_not_know_is_one_message(monkeypatch):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Invalid TPU external name: TPU v9\nmore")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match="--topology=v9:2x2.*It says: Invalid TPU external name: TPU v9$"):
        described.devices_of("v9:2x2")


def test_without_the_plugin_for_gpus_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=="):
        described.devices_of("h100:8")


@pytest.mark.parametrize(("topology", "shape"), [("a100:1", "1x1x1"), ("h100:8", "1x1x8"), ("h200:4x8", "1x4x8")])
def test_gpus_are_described_by_hosts_and_what_each_has(topology, shape, monkeypatch):
    told = []

    def describe(*args, **options):
        told.append((args, options))
        return types.SimpleNamespace(devices=["the devices"])

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(topologies, "get_topology_desc", describe)
    assert described.devices_of(topology) == ["the devices"]
    (args, options), = told
    assert args == ("", "cuda") and options["topology"] == shape and "CUDA" in options["target_config"]


@pytest.mark.parametrize("gpu", described._GPUS.values(), ids=described._GPUS)
def test_a_described_gpu_is_the_one_whose_peaks_are_known(gpu):
    memory = peaks.memory(gpu.kind)
    assert gpu.memory / 2**30 == pytest.approx(memory.gib, rel=0.02)
    assert gpu.bandwidth / 1e9 == pytest.approx(memory.gb_per_s, rel=0.001)
    assert peaks.peak(gpu.kind, "bfloat16") is not None


@pytest.mark.parametrize("topology", ["h100", "h100:0", "h100:8x", "h100:8x8x8"])
def test_of_gpus_it_must_be_said_how_many(topology):
    with pytest.raises(UserError, match=f"--topology={topology}: how many. Write h100:8, or h100:4x8"):
        described.devices_of(topology)
