"""Commands as they are typed, and weights to give them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imagenet_jax import models
from imagenet_jax.models import weights

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python -m imagenet_jax`, at the root of the repository."""
    return subprocess.run([sys.executable, "-m", "imagenet_jax", *arguments], cwd=ROOT, capture_output=True, text=True,
                          **options)


def weigh(folder: Path) -> str:
    """Writes drawn weights of a SqueezeNet for the classes a, b and c at 64 px; returns the file."""
    variables = jax.jit(models.make("squeezenet1_1", 3).init)(jax.random.key(0), np.zeros((1, 64, 64, 3)))
    file = str(folder / "drawn.safetensors")
    weights.write(file, weights.to_torch("squeezenet1_1", jax.device_get(variables["params"]), {}),
                  model="squeezenet1_1", classes='[["a", "b", "c"], ["", "", ""]]',
                  view='{"size": 64, "resize": 64}')
    return file
