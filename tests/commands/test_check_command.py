"""`check`: all is read, and what is not as it was written is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imagenet_jax import checkpoint
from imagenet_jax.commands import check
from imagenet_jax.prepare.writer import Example, Source, write_dataset

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "imagenet_jax", "check", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_dataset_is_read_whole(tmp_path: Path) -> None:
    examples = [Example(bytes(np.random.default_rng(i).bytes(3000)), i % 2, f"{i}.JPEG") for i in range(100)]
    write_dataset(tmp_path / "data", Source("tiny", ("a", "b"), ("a", "b"), {
        "train": examples, "validation": examples[:10]}), shard_bytes=150_000)
    whole = run(str(tmp_path / "data"))
    assert whole.returncode == 0 and whole.stdout == (
        "train, 100 examples: as written\nvalidation, 10 examples: as written\n")
    flip(sorted((tmp_path / "data").glob("tiny-train*"))[1])
    broken = run(str(tmp_path / "data"))
    assert broken.returncode == 2 and "train, 100 examples: DAMAGED\n  examples 64 to 99: A shard in" in broken.stdout
    assert "validation, 10 examples: as written" in broken.stdout and "1 damaged. Copy it again" in broken.stderr


def test_every_checkpoint_of_a_run_is_read(tmp_path: Path) -> None:
    for kind, steps in (("checkpoints", (2, 4)), ("best", (2,))):
        manager = checkpoint.open_manager(str(tmp_path / kind), keep=2)
        for step in steps:
            params = {"a": np.random.default_rng(0).normal(size=5000)}
            checkpoint.save(manager, step, {"params": params}, {"step": step})
        checkpoint.finish(manager)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    names = ("checkpoints/2", "checkpoints/4", "best/2", "config.json", "metrics.jsonl")
    assert dict(check.look(str(tmp_path))) == {str(tmp_path / name): [] for name in names}
    for one in ("best", "checkpoints/2"):
        assert list(check.look(str(tmp_path / one))) == [(str(tmp_path / one.split("/")[0] / "2"), [])]
    flip(max((tmp_path / "checkpoints/4/params").rglob("d/*"), key=lambda path: path.stat().st_size))
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "metrics.jsonl").write_text('{"step"\n{"step": 2}\n')
    found = dict(check.look(str(tmp_path)))
    assert "params/a is not what was written" in found[str(tmp_path / "checkpoints/4")][0]
    assert "config.json is damaged" in found[str(tmp_path / "config.json")][0]
    assert found[str(tmp_path / "metrics.jsonl")] == ["1 damaged line, passed over"]
    assert sorted(map(len, found.values())) == [0, 0, 1, 1, 1]


def test_nothing_to_check_is_told(tmp_path: Path) -> None:
    with pytest.raises(check.UserError, match="holds no complete checkpoint"):
        list(check.look(str(tmp_path)))
