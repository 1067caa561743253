"""Published peak rates of devices, dense (not sparse), for what a train step multiplies with."""

from typing import NamedTuple

_TPU = "https://docs.cloud.google.com/tpu/docs"
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


# JAX's device_kind: (bfloat16, TF32, source); TFLOP/s. NVIDIA prints most of its rates with sparsity, which is twice
# the dense ones that are here.
_GPUS = {
    "NVIDIA A100-SXM4-40GB": (312, 156, f"{_NVIDIA}/a100"),
    "NVIDIA A100-SXM4-80GB": (312, 156, f"{_NVIDIA}/a100"),
    "NVIDIA A100-PCIE-40GB": (312, 156, f"{_NVIDIA}/a100"),
    "NVIDIA A100 80GB PCIe": (312, 156, f"{_NVIDIA}/a100"),
    "NVIDIA H100 80GB HBM3": (989.4, 494.7, f"{_NVIDIA}/h100"),  # SXM
    "NVIDIA H200": (989.4, 494.7, f"{_NVIDIA}/h200"),  # SXM
}
# JAX's device_kind: (bfloat16 TFLOP/s of a chip, devices that a chip is to JAX, page). Where the two cores of a chip
# are two devices, each has half.
_TPUS = {
    "TPU v3": (123, 2, "v3"),
    "TPU v4": (275, 1, "v4"),
    "TPU v5e": (197, 1, "v5e"),
    "TPU v5 lite": (197, 1, "v5e"),
    "TPU v5": (459, 1, "v5p"),
    "TPU v5p": (459, 1, "v5p"),
    "TPU v6e": (918, 1, "v6e"),
    "TPU v6 lite": (918, 1, "v6e"),
    "TPU7x": (2307, 2, "tpu7x"),
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
    if device_kind in _TPUS:
        chip, devices, page = _TPUS[device_kind]
        return Peak(chip / devices, "bfloat16", f"{_TPU}/{page}")
    if device_kind in _GPUS:
        bfloat16, tf32, source = _GPUS[device_kind]
        return Peak(*((bfloat16, "bfloat16") if dtype == "bfloat16" else (tf32, "TF32")), source)
    return None
