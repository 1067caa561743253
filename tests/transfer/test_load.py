"""init_from: everything by path, a fresh head only where its size differs, else a diff."""

import copy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from imagenet_jax import checkpoint, models
from imagenet_jax.errors import UserError
from imagenet_jax.models import weights
from imagenet_jax.transfer import load


def _net(fill: float, classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    params = {
        "conv1": {"kernel": np.full((3, 3, 3, 4), fill, np.float32)},
        "head": {
            "kernel": np.full((4, classes), fill, np.float32),
            "bias": np.full(classes, fill, np.float32),
        },
    }
    return params, {"bn1": {"mean": np.full(4, fill, np.float32)}}


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A workdir with one checkpoint of a net of 10 classes, filled with ones."""
    params, batch_stats = _net(1, classes=10)
    manager = checkpoint.open_manager(str(tmp_path / "checkpoints"), keep=1)
    items = {"params": params, "batch_stats": batch_stats, "opt_state": {"a": np.ones(1)}}
    checkpoint.save(manager, 7, items, {"step": 7})
    checkpoint.finish(manager)
    return str(tmp_path)


def test_the_same_net_is_loaded_whole(source: str) -> None:
    params, batch_stats, report = load.init_from(*_net(0, classes=10), source)
    jax.tree.map(np.testing.assert_array_equal, (params, batch_stats), _net(1, classes=10))
    assert report.loaded == (
        "batch_stats/bn1/mean",
        "params/conv1/kernel",
        "params/head/bias",
        "params/head/kernel",
    )
    assert report.reinitialised == ()


def test_a_head_of_another_size_stays_fresh_and_is_reported(source: str) -> None:
    params, batch_stats, report = load.init_from(*_net(0, classes=3), source)
    assert params["head"]["kernel"].shape == (4, 3)
    assert not params["head"]["kernel"].any()
    assert not params["head"]["bias"].any()
    assert params["conv1"]["kernel"].all()
    assert batch_stats["bn1"]["mean"].all()
    assert "loaded 2 of 4 arrays" in str(report)
    assert "params/head/kernel, [4, 10] there, [4, 3] here" in str(report)
    assert f"{source}/checkpoints/7" in str(report)


def test_any_other_difference_is_a_diff(source: str) -> None:
    other, batch_stats = copy.deepcopy(_net(0, classes=3))
    other["conv1"]["kernel"] = np.zeros((5, 5, 3, 4), np.float32)
    with pytest.raises(UserError) as error:
        load.init_from(other, {}, source)
    message = str(error.value)
    assert "params/conv1/kernel: float32[3,3,3,4] in the checkpoint, float32[5,5,3,4]" in message
    assert "batch_stats/bn1/mean: unexpected" in message
    assert "head" not in message.split("\n", 1)[1]


def test_a_head_of_another_build_is_a_difference(source: str) -> None:
    other, batch_stats = _net(0, classes=3)
    del other["head"]["bias"]
    with pytest.raises(UserError, match="params/head/bias: unexpected"):
        load.init_from(other, batch_stats, source)


def test_weights_are_never_cast(source: str) -> None:
    other, batch_stats = _net(0, classes=10)
    other["conv1"]["kernel"] = other["conv1"]["kernel"].astype(np.float64)
    with pytest.raises(UserError, match=r"float64\[3,3,3,4\] wanted"):
        load.init_from(other, batch_stats, source)


def _variables(name: str, classes: int, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables of a narrow model, numbered through."""
    model = models.make(name, classes, **options)
    tree = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 96, 96, 3), np.float32))
    leaves, structure = jax.tree.flatten(tree)
    filled = [np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape) + i for i, leaf in enumerate(leaves)]
    variables = jax.tree.unflatten(structure, filled)
    return variables["params"], variables["batch_stats"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A narrow ResNet-18 of 10 classes under torchvision's names."""
    path = str(tmp_path / "weights.safetensors")
    weights.write(path, weights.to_torch("resnet18", *_variables("resnet18", 10, width=8)))
    return path


def test_a_file_of_torch_weights_is_loaded_but_for_a_head_of_another_size(file: str) -> None:
    theirs, stats = _variables("resnet18", 10, width=8)
    zeros = jax.tree.map(np.zeros_like, _variables("resnet18", 3, width=8))
    params, batch_stats, report = load.init_from(*zeros, file, "resnet18")
    fresh = params.pop("head")
    assert fresh["kernel"].shape == (64, 3) and not fresh["kernel"].any()
    theirs.pop("head")
    jax.tree.map(np.testing.assert_array_equal, (params, batch_stats), (theirs, stats))
    assert "params/head/kernel, [64, 10] there, [64, 3] here" in str(report) and file in str(report)


def test_a_file_of_another_network_is_a_diff(file: str) -> None:
    with pytest.raises(UserError, match="is of another model") as error:
        load.init_from(*_variables("resnet34", 10, width=8), file, "resnet34")
    assert "missing in the checkpoint" in str(error.value)


def test_pickled_weights_need_torch(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"torch|not a file of weights alone"):
        load.init_from({}, {}, str(tmp_path / "weights.pth"), "resnet18")
