"""Export: the weights of a run under torch's names, the moving average if there is one."""

import json

import jax
import numpy as np
import pytest
from safetensors import safe_open

from imagenet_jax import checkpoint, models
from imagenet_jax.models import weights
from imagenet_jax.transfer import export

CLASSES = [f"class {i}" for i in range(10)]


@pytest.mark.parametrize("with_ema", [False, True])
def test_what_is_exported_is_what_the_checkpoint_holds(tmp_path, with_ema) -> None:
    model = models.make("resnet18", 10, width=8)
    variables = jax.jit(lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3))))()
    ema = jax.tree.map(lambda x: x + 1, variables) if with_ema else None
    manager = checkpoint.open_manager(str(tmp_path / "checkpoints"), keep=1)
    checkpoint.save(manager, 7, {**variables, **({"ema": ema} if with_ema else {})},
                    {"step": 7, "classes": [CLASSES, CLASSES],
                     "config": {"model": {"name": "resnet18"}, "view": {"size": 96}}})
    checkpoint.finish(manager)
    told = export.to_torch(str(tmp_path), str(tmp_path / "out" / "weights.safetensors"))
    assert ("averaged weights of" in told) == with_ema and "torchvision" in told
    state = weights.read(str(tmp_path / "out" / "weights.safetensors"))
    wanted = weights.to_torch("resnet18", **(ema or variables))
    assert state.keys() == wanted.keys() and all(np.array_equal(state[key], wanted[key]) for key in state)
    with safe_open(str(tmp_path / "out" / "weights.safetensors"), "np") as file:
        assert json.loads(file.metadata()["view"]) == {"size": 96}
        assert json.loads(file.metadata()["classes"]) == [CLASSES, CLASSES]
        assert file.metadata()["model"] == "resnet18" and file.metadata()["checkpoint"].endswith("checkpoints/7")
