"""Verify that datasets, runs, checkpoints or indices are what was written: all is read, after a copy perhaps."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from imagenet_jax.errors import UserError

ARGUMENTS = "DIR ..."

Found = Iterator[tuple[str, list[str]]]  # what was looked at, and its damages


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds its name and the directories."""
    if not argv[1:]:
        raise UserError("check what? Name datasets, runs (--workdir of `train`), checkpoints, or indices of `search`")
    damaged = 0
    for directory in argv[1:]:
        for what, damages in look(directory):
            print(f"{what}: {'as written' if not damages else 'DAMAGED'}", *damages, sep="\n  ", flush=True)
            damaged += bool(damages)
    if damaged:
        raise UserError(f"not everything is what was written: {damaged} damaged. Copy it again, or make it anew")


def look(directory: str) -> Found:
    """Reads everything in a directory.

    Raises:
        UserError: nothing there can be verified.
    """
    from imagenet_jax import dataset

    if dataset.is_dataset(directory):
        return _dataset(directory)
    from imagenet_jax.inference import index

    return _index(directory) if index.is_index(directory) else _run(directory)


def _dataset(directory: str) -> Found:
    from imagenet_jax.dataset import verify

    for split, count, damages in verify.damages(directory):
        yield f"{split}, {count:,} examples", damages


def _index(directory: str) -> Found:
    from imagenet_jax.inference import index

    yield directory, _damages(lambda: index.open_index(directory))


def _run(directory: str) -> Found:
    from tqdm import tqdm

    from imagenet_jax import checkpoint
    from imagenet_jax.training import reporting, workdirs

    found = [os.path.join(directory, kind, str(step)) for kind in ("checkpoints", "best")
             for step in checkpoint.complete_steps(os.path.join(directory, kind))]
    found = found or [os.path.join(*map(str, checkpoint.resolve(directory)))]
    for path in tqdm(found, "check", unit=" checkpoints", disable=None):
        yield path, _damages(lambda path=path: checkpoint.read(path, checkpoint.ITEMS))
    config, metrics = workdirs.config_path(directory), os.path.join(directory, "metrics.jsonl")
    if os.path.exists(config):
        yield config, _damages(lambda: workdirs.read_config(config))
    if os.path.exists(metrics):
        _, damaged = reporting.parse_metrics(metrics)
        yield metrics, [f"{damaged} damaged line{'s' * (damaged > 1)}, passed over"] if damaged else []


def _damages(read: Callable[[], Any]) -> list[str]:
    try:
        read()
    except UserError as error:
        return [str(error)]
    return []
