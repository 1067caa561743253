"""Devices that are not there, as their compilers describe them: slices of TPU pods, and GPUs."""

import importlib.util
import re
from importlib import metadata
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from imagenet_jax.errors import UserError

_SUCH_AS = "v3:4x4, v4:2x2x1, v5e:16x16, v5p:8x8x8, v6e:4x4, tpu7x:2x2x1, h100:8 or h100:4x8"


class _Gpu(NamedTuple):
    """What the compiler asks of a GPU. Sizes in bytes; those of a multiprocessor, and what one block may have of it."""

    kind: str  # as JAX calls it
    capability: int  # CUDA's, the whole number of it
    multiprocessors: int
    fpus: int  # of a multiprocessor
    shared: int
    shared_of_a_block: int
    l2: int
    ghz: float
    memory: int
    bandwidth: int  # bytes a second


# https://github.com/openxla/xla/tree/main/xla/backends/gpu/target_config/specs, of the SXM modules.
_GPUS = {
    "a100-40": _Gpu("NVIDIA A100-SXM4-40GB", 8, 108, 64, 167936, 166912, 41943040, 1.41, 42331013120, 1555200000000),
    "a100": _Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 64, 167936, 166912, 41943040, 1.41, 85100068864, 2039040000000),
    "h100": _Gpu("NVIDIA H100 80GB HBM3", 9, 132, 128, 233472, 232448, 52428800, 1.98, 84942979072, 3352320000000),
    "h200": _Gpu("NVIDIA H200", 9, 132, 128, 233472, 232448, 52428800, 1.98, 151397597184, 4800000000000),
}
_COUNTS = re.compile(r"(?:([1-9]\d*)x)?([1-9]\d*)")  # hosts, GPUs of each


def devices_of(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice, 'v5e:4x4' perhaps: chips; or of hosts with GPUs, 'h100:8' or 'h100:4x8': 4 hosts.

    Raises:
        UserError: their compiler is not installed, or knows no such topology.
    """
    gpu = _GPUS.get(topology.partition(":")[0])
    return _gpus(topology, gpu) if gpu else _tpus(topology)


def _tpus(topology: str) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("benchmark pod needs the compiler for TPUs, which needs no TPU: pip install "
                        f"'libtpu=={libtpu_release()}' (or jax[tpu], which brings it)")
    extra: dict[str, Any] = {}
    if topology.startswith("v4:"):
        extra["chip_config_name"] = "megacore"  # both cores are one device, as they are on Cloud TPU
    if topology.endswith(":1x1"):
        extra["chips_per_host_bounds"] = (1, 1, 1)
    return _described(topology, "libtpu", topology, "tpu", **extra)


def libtpu_release() -> str:
    """The libtpu that the installed JAX was made with, '0.0.42.*' perhaps."""
    wanted = (re.match(r"libtpu==([\w.*]+)", line) for line in metadata.requires("jax") or ())
    return next((found[1] for found in wanted if found), "*")


def _gpus(topology: str, gpu: _Gpu) -> list[jax.Device]:
    name, _, counts = topology.partition(":")
    found = _COUNTS.fullmatch(counts)
    if found is None:
        raise UserError(f"--topology={topology}: how many? Write {name}:8, or {name}:4x8 for four hosts of eight")
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        release = metadata.version("jax")
        raise UserError("benchmark pod needs the compiler for GPUs, which needs no GPU: pip install "
                        f"jax-cuda12-plugin=={release} jax-cuda12-pjrt=={release} (or jax[cuda12], which brings them)")
    return _described(topology, "XLA", "", "cuda", topology=f"1x{found[1] or 1}x{found[2]}",
                      target_config=_target(gpu))


def _target(gpu: _Gpu) -> str:
    """What XLA calls a GpuTargetConfigProto, as text. What is the same for all of these is CUDA's, not a table's."""
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.kind}"
        dnn_version_info {{ major: 9 minor: 8 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {gpu.capability} }}
          core_count: {gpu.multiprocessors} fpus_per_core: {gpu.fpus} clock_rate_ghz: {gpu.ghz}
          device_memory_size: {gpu.memory} memory_bandwidth: {gpu.bandwidth} l2_cache_size: {gpu.l2}
          shared_memory_per_core: {gpu.shared} shared_memory_per_block_optin: {gpu.shared_of_a_block}
          shared_memory_per_block: 49152 registers_per_core_limit: 65536 registers_per_block_limit: 65536
          threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
        }}"""


def _described(asked: str, compiler: str, *description: str, **options: Any) -> list[jax.Device]:
    try:
        return topologies.get_topology_desc(*description, **options).devices
    except jax.errors.JaxRuntimeError as error:
        said = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
        raise UserError(f"--topology={asked}: {compiler} does not know it; write what it is and how many, such as "
                        f"{_SUCH_AS}. It says: {said}") from error
