"""Published peak rates of devices: what a train step multiplies with (dense, not sparse), their memory, their links."""

from typing import NamedTuple

_TPU = "https://docs.cloud.google.com/tpu/docs"
_JAX = "https://docs.jax.dev/en/latest/pallas/tpu/hardware.html"
_NVIDIA = "https://www.nvidia.com/en-us/data-center"


class Peak(NamedTuple):
    """What a device of JAX can do at most.

    Attributes:
        tflops: 1e12 operations a second, a multiply-add being two.
        arithmetic: of what kind.
        source: who says so.
    """

    tflops: float
    arithmetic: str
    source: str


class Memory(NamedTuple):
    """Of a device of JAX: gib, 2^30 bytes that it holds; gb_per_s, 1e9 bytes a second that it reads and writes."""

    gib: float
    gb_per_s: float
    source: str


class Links(NamedTuple):
    """Of a chip: gb_per_s, 1e9 bytes a second that it sends to others over all its links."""

    gb_per_s: float
    source: str


# JAX's device_kind: (bfloat16, TF32, GB of memory, GB/s, source); TFLOP/s. NVIDIA prints most of its rates with
# sparsity, which is twice the dense ones that are here.
_GPUS = {
    "NVIDIA A100-SXM4-40GB": (312, 156, 40, 1555, f"{_NVIDIA}/a100"),
    "NVIDIA A100-SXM4-80GB": (312, 156, 80, 2039, f"{_NVIDIA}/a100"),
    "NVIDIA A100-PCIE-40GB": (312, 156, 40, 1555, f"{_NVIDIA}/a100"),
    "NVIDIA A100 80GB PCIe": (312, 156, 80, 1935, f"{_NVIDIA}/a100"),
    "NVIDIA H100 80GB HBM3": (989.4, 494.7, 80, 3350, f"{_NVIDIA}/h100"),  # SXM
    "NVIDIA H200": (989.4, 494.7, 141, 4800, f"{_NVIDIA}/h200"),  # SXM
}
# Generation: (bfloat16 TFLOP/s, GiB, GB/s, GB/s that it sends, all of a chip; devices that a chip is to JAX, page).
# Where the two cores of a chip are two devices, each has half. What a chip sends is half of the bidirectional bandwidth
# of its interconnect where the page has that; of v3 and v4, the all-reduce bandwidth of a pod over its chips, which is
# the same figure where a page has both. Of v2 nothing is known here.
_TPUS = {
    "v2": (46, 16e9 / 2**30, 716, None, 2, _JAX),
    "v3": (123, 32, 900, 340e3 / 1024, 2, f"{_TPU}/v3"),
    "v4": (275, 32, 1200, 1.1e6 / 4096, 1, f"{_TPU}/v4"),
    "v5e": (197, 16, 819, 200, 1, f"{_TPU}/v5e"),
    "v5p": (459, 95, 2765, 600, 1, f"{_TPU}/v5p"),
    "v6e": (918, 32, 1638, 400, 1, f"{_TPU}/v6e"),
    "tpu7x": (2307, 192, 7380, 600, 2, f"{_TPU}/tpu7x"),
}
_GENERATIONS = {  # JAX's device_kind: of which generation
    "TPU v2": "v2",
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5e": "v5e",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6e": "v6e",
    "TPU v6 lite": "v6e",
    "TPU7x": "tpu7x",
}


def peak(device_kind: str, dtype: str, matmul_precision: str | None = None) -> Peak | None:
    """The peak of a device for what JAX does there by default with a compute type; None where that is not known.

    Args:
        device_kind: as JAX calls it.
        dtype: 'bfloat16' or 'float32', see `models.make`. By default JAX multiplies float32 numbers as TF32 on GPUs
            that have it and as bfloat16 on TPUs (see `jax.lax.Precision`), so that is what they are compared with.
        matmul_precision: jax_default_matmul_precision; with any but the default nothing is known of float32.
    """
    if dtype not in ("float32", "bfloat16") or dtype == "float32" and matmul_precision not in (None, "default"):
        return None
    if device_kind in _GENERATIONS:
        chip, _, _, _, devices, source = _TPUS[_GENERATIONS[device_kind]]
        return Peak(chip / devices, "bfloat16", source)
    if device_kind in _GPUS:
        bfloat16, tf32, _, _, source = _GPUS[device_kind]
        return Peak(*((bfloat16, "bfloat16") if dtype == "bfloat16" else (tf32, "TF32")), source)
    return None


def memory(device_kind: str) -> Memory | None:
    """The memory of a device, None where it is not known."""
    if device_kind in _GENERATIONS:
        _, gib, gb_per_s, _, devices, source = _TPUS[_GENERATIONS[device_kind]]
        return Memory(gib / devices, gb_per_s / devices, source)
    if device_kind in _GPUS:
        _, _, size, gb_per_s, source = _GPUS[device_kind]
        return Memory(size, gb_per_s, source)
    return None


def links(device_kind: str) -> Links | None:
    """What joins the chips of a TPU slice, None where it is not known, and of GPUs."""
    if device_kind not in _GENERATIONS:
        return None
    _, _, _, gb_per_s, _, source = _TPUS[_GENERATIONS[device_kind]]
    return None if gb_per_s is None else Links(gb_per_s, source)
