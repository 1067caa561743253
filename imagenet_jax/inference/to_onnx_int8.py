"""An ONNX file whose convolutions and products are of 8 bits, by ONNX Runtime's own quantisation.

It runs as `to_onnx` says. Weights have a scale for each channel; activations a range each, the widest that was seen in
calibration.
"""

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from imagenet_jax.inference import to_onnx
from imagenet_jax.inference.program import Program

_OPERATIONS = ["Conv", "Gemm", "MatMul"]  # with all others, too, an EfficientNet-Lite0 kept the class of one in four
_AT_ONCE = 8


def write(program: Program, path: str) -> dict[str, Any]:
    """Writes a program, calibrated on `program.calibration`; returns what its card says of it.

    Raises:
        UserError: as `to_onnx.write`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        exact, cleaned = os.path.join(scratch, "exact.onnx"), os.path.join(scratch, "cleaned.onnx")
        said = to_onnx.write(program, exact)
        from onnxruntime import quantization
        from onnxruntime.quantization import shape_inference

        images = program.calibration
        batches = iter([images[first : first + _AT_ONCE] for first in range(0, len(images), _AT_ONCE)])
        with to_onnx.quiet():
            shape_inference.quant_pre_process(exact, cleaned)
            quantization.quantize_static(
                cleaned, path, _reader(quantization.CalibrationDataReader, batches), per_channel=True,
                op_types_to_quantize=_OPERATIONS, quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    return said | {"calibrated_on": len(images)}


def _reader(base: type, batches: Iterator[np.ndarray]) -> Any:
    """What ONNX Runtime asks for batches; `base` is its class for that."""
    return type("Reader", (base,), {"get_next": lambda self: next(({"image": batch} for batch in batches), None)})()
