"""init_from: everything by path, a fresh head only where its size differs, else a diff."""

import copy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from imagenet_jax import checkpoint
from imagenet_jax.errors import UserError
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
