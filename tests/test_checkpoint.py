"""Checkpoints: complete or not there, equal to what was saved, strict about what fits."""

import asyncio
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from orbax.checkpoint._src.path import atomicity

from imagenet_jax import checkpoint, trees
from imagenet_jax.errors import UserError


def _items(step: int = 0, dtype: type = np.float32, size: int = 8) -> dict[str, Any]:
    """A training state in small; every number depends on the step."""
    rng = np.random.default_rng(step)
    params = {
        "conv1": {"kernel": rng.normal(size=(3, 3, size)).astype(dtype)},
        "head": {"kernel": rng.normal(size=(size, 5)).astype(dtype), "bias": np.zeros(5, dtype)},
    }
    flat = trees.flatten(params)
    sgd = optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(optax.constant_schedule(0.1)))
    return {
        "params": params,
        "batch_stats": {"bn1": {"mean": rng.normal(size=size).astype(dtype)}},
        "ema": None,
        "opt_state": jax.tree.map(np.asarray, sgd.init(flat)),
    }


def _write(directory: Path, items: dict[str, Any], *steps: int, keep: int = 9) -> None:
    manager = checkpoint.open_manager(str(directory), keep=keep)
    for step in steps:
        checkpoint.save(manager, step, items, {"step": step})
    checkpoint.finish(manager)


def _assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for ours, theirs in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jax.numpy.bfloat16])
def test_restores_the_same_structure_types_and_numbers(tmp_path: Path, dtype: type) -> None:
    items = _items(1, dtype)
    _write(tmp_path, items, 3)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), items)
    restored, meta = checkpoint.restore(str(tmp_path), like)
    _assert_same(restored, items)
    assert restored["ema"] is None
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))
    assert meta == {"step": 3}


def test_a_net_without_batch_stats_restores_and_reads(tmp_path: Path) -> None:
    items = _items() | {"batch_stats": {}}
    _write(tmp_path, items, 1)
    restored, _ = checkpoint.restore(str(tmp_path), items)
    assert restored["batch_stats"] == {}
    read, _ = checkpoint.read(str(tmp_path))
    _assert_same(read, {"params": items["params"], "batch_stats": {}})


def test_arrays_may_change_as_soon_as_save_returns(tmp_path: Path) -> None:
    array = np.ones(2_000_000, np.float32)
    manager = checkpoint.open_manager(str(tmp_path), keep=1)
    checkpoint.save(manager, 1, {"params": {"a": array}}, {})
    array[:] = 7
    checkpoint.finish(manager)
    read, _ = checkpoint.read(str(tmp_path))
    assert np.all(read["params"]["a"] == 1)


def test_keeps_the_last_ones_and_the_milestones(tmp_path: Path) -> None:
    manager = checkpoint.open_manager(str(tmp_path), keep=2, milestone_steps=40)
    for step in range(10, 101, 10):
        checkpoint.save(manager, step, {"params": {"a": np.ones(1)}}, {})
    checkpoint.finish(manager)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [40, 80, 90, 100]


def test_saving_a_step_twice_keeps_the_first(tmp_path: Path) -> None:
    _write(tmp_path, _items(1), 5)
    _write(tmp_path, _items(2), 5)
    _assert_same(checkpoint.restore(str(tmp_path), _items())[0], _items(1))


def test_a_mismatch_is_told_leaf_by_leaf(tmp_path: Path) -> None:
    _write(tmp_path, _items(), 5)
    like = _items()
    like["params"]["conv1"]["kernel"] = np.zeros((3, 3, 9), np.float32)
    like["params"]["conv1"]["bias"] = np.zeros(9, np.float32)
    like["batch_stats"] = {"bn1": {"mean": np.zeros(8, np.float64)}}
    like["opt_state"] = ()
    with pytest.raises(UserError) as error:
        checkpoint.restore(str(tmp_path), like)
    message = str(error.value)
    assert f"{tmp_path}/5" in message
    assert "params/conv1/kernel: float32[3,3,8] in the checkpoint, float32[3,3,9] wanted" in message
    assert "params/conv1/bias: missing in the checkpoint, wanted float32[9]" in message
    assert "batch_stats/bn1/mean: float32[8] in the checkpoint, float64[8] wanted" in message
    assert "opt_state/0/trace/conv1/kernel: unexpected" in message
    assert "params/head" not in message


def test_a_long_listing_is_capped_with_a_count() -> None:
    saved = {f"layer{index:03d}": np.zeros(1) for index in range(100)}
    lines = trees.diff(saved, {})
    listing = trees.listing(lines, most=7)
    assert len(lines) == 100
    assert listing.splitlines()[-1].strip() == "... and 93 more"
    assert len(listing.splitlines()) == 8


def test_ema_in_only_one_of_both_is_a_mismatch(tmp_path: Path) -> None:
    _write(tmp_path, _items() | {"ema": {"a": np.zeros(1)}}, 5)
    with pytest.raises(UserError, match="ema/a: unexpected"):
        checkpoint.restore(str(tmp_path), _items())


def test_two_leaves_under_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="share one path"):
        trees.flatten({"a/b": 1, "a": {"b": 2}})


def test_a_path_may_be_a_workdir_its_directories_or_one_checkpoint(tmp_path: Path) -> None:
    _write(tmp_path / "checkpoints", _items(), 2, 10)
    _write(tmp_path / "best", _items(), 4)
    checkpoints = str(tmp_path / "checkpoints")
    assert checkpoint.resolve(str(tmp_path)) == (checkpoints, 10)
    assert checkpoint.resolve(checkpoints) == (checkpoints, 10)
    assert checkpoint.resolve(f"{checkpoints}/2") == (checkpoints, 2)
    assert checkpoint.resolve(str(tmp_path / "best")) == (str(tmp_path / "best"), 4)
    for wrong in (tmp_path / "nowhere", tmp_path / "checkpoints" / "3"):
        with pytest.raises(UserError, match=f"{wrong} does not exist"):
            checkpoint.resolve(str(wrong))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        checkpoint.resolve(str(tmp_path / "empty"))


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    _write(tmp_path, _items(), 5)
    leftover = tmp_path / "6.orbax-checkpoint-tmp"
    (leftover / "params").mkdir(parents=True)
    (leftover / "params" / "manifest.ocdbt").write_bytes(b"half")
    assert checkpoint.latest_step(str(tmp_path)) == 5
    _write(tmp_path, _items(), 6)
    assert not leftover.exists()
    assert checkpoint.latest_step(str(tmp_path)) == 6


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    _write(tmp_path, _items(), 5)
    for data in (tmp_path / "5" / "params").rglob("d/*"):
        data.write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(str(tmp_path))


def _damage(data: bytes, kind: str, rng: np.random.Generator) -> bytes | None:
    at = int(rng.integers(len(data))) if data else 0
    if kind == "flip" and data:
        return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
    return {"zero": data[:at] + bytes(len(data[at : at + 4096])) + data[at + 4096 :], "cut": data[:at],
            "gone": None, "flip": data}[kind]


@pytest.mark.parametrize("kind", ["flip", "zero", "cut", "gone"])
def test_what_is_read_is_what_was_written_or_nothing(tmp_path: Path, kind: str) -> None:
    rng, items = np.random.default_rng(0), _items(size=3_000)
    _write(tmp_path, items, 5)
    whole, meta = checkpoint.read(str(tmp_path), checkpoint.ITEMS)
    files = sorted(path for path in (tmp_path / "5").rglob("*") if path.is_file())
    refused = 0
    for path in [*files, *[max(files, key=lambda path: path.stat().st_size)] * 5]:
        data = path.read_bytes()
        damaged = _damage(data, kind, rng)
        path.unlink() if damaged is None else path.write_bytes(damaged)
        try:
            found, found_meta = checkpoint.read(str(tmp_path / "5"), checkpoint.ITEMS)
        except UserError:
            refused += 1
        else:
            assert found_meta == meta, path
            _assert_same(found, whole)
        path.write_bytes(data)
    assert refused > len(files) // 4


@pytest.fixture
def full_disk() -> Iterator[Callable[[bool], None]]:
    """No file may grow beyond 256 KiB, which the storage reports like a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda full: resource.setrlimit(resource.RLIMIT_FSIZE, (2**18 if full else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads
def test_a_full_disk_names_the_last_good_checkpoint(
    tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    big = _items(2, size=40_000)
    _write(tmp_path, big, 1, keep=1)
    manager = checkpoint.open_manager(str(tmp_path), keep=1)
    full_disk(True)
    with pytest.raises(UserError, match=rf"last good: {tmp_path}/1\): File too large"):
        checkpoint.save(manager, 2, big, {})
        checkpoint.save(manager, 3, big, {})
    checkpoint.save(manager, 4, big, {})
    with pytest.raises(UserError, match=rf"last good: {tmp_path}/1\)"):
        checkpoint.finish(manager)
    full_disk(False)
    _assert_same(checkpoint.restore(str(tmp_path), big)[0], big)
    _write(tmp_path, big, 2, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_a_store_that_stands_still_is_not_waited_for_before_the_next_save(tmp_path: Path, monkeypatch) -> None:
    done, rename = threading.Event(), atomicity.AtomicRenameTemporaryPath.finalize

    async def finalize(self: Any, *args: Any, **options: Any) -> None:
        await asyncio.to_thread(done.wait)
        await rename(self, *args, **options)

    monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", finalize)
    manager = checkpoint.open_manager(str(tmp_path), keep=2)
    checkpoint.save(manager, 1, _items(1), {"step": 1})
    assert checkpoint.latest_step(tmp_path) is None  # and training goes on
    threading.Timer(0.5, done.set).start()
    checkpoint.save(manager, 2, _items(2), {"step": 2})
    assert done.is_set() and checkpoint.latest_step(tmp_path) is not None
    checkpoint.finish(manager)
    assert checkpoint.complete_steps(tmp_path) == [1, 2]


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot keep checkpoints"):
        checkpoint.open_manager(str(tmp_path / "file" / "checkpoints"), keep=1)


def _save_without_end(directory: str) -> None:
    manager = checkpoint.open_manager(directory, keep=2)
    step = checkpoint.latest_step(directory) or 0
    while True:
        step += 1
        checkpoint.save(manager, step, _items(step, size=5_000), {"step": step})


def test_killed_at_any_moment_the_latest_checkpoint_is_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imagenet_jax.checkpoint", "optax"])
    rng = np.random.default_rng()
    latest = 0
    for _ in range(8):
        process = context.Process(target=_save_without_end, args=(str(tmp_path),))
        process.start()
        before = latest
        while (checkpoint.latest_step(str(tmp_path)) or 0) <= before:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid, 9)
        process.join()
        latest = checkpoint.latest_step(str(tmp_path))
        restored, meta = checkpoint.restore(str(tmp_path), _items(size=5_000))
        assert meta == {"step": latest}
        _assert_same(restored, _items(latest, size=5_000))
