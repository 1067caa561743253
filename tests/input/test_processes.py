"""Batches of several processes are those of one; what ends a process is told, and none is left behind."""

import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from augmenting import augment

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import chunks, loader, processes
from imagenet_jax.input.loader import Host, Part, Workers
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

N = 23


def written(directory: Path, images: list[bytes]) -> Part:
    examples = [Example(image, i % 3, f"{i}.JPEG") for i, image in enumerate(images)]
    writer.write_dataset(directory, Source("tiny", ("a", "b", "c"), ("ant", "bee", "cat"), {"train": examples}))
    return Part(dataset.open_split(dataset.open_dataset(directory), "train"), np.arange(N)[::2], (directory, "train"))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return written(tmp_path_factory.mktemp("data") / "tiny", [ilsvrc.jpeg(i) for i in range(N)])


def test_batches_are_those_of_one_process(part) -> None:
    asked = {"seed": 5, "start_step": 3, "global_batch": 12, "host_slice": Host(1, 2),
             "augment": augment(policy="randaugment", ramp=((4, 12),))}
    alone, several = loader.train_batches(part, **asked), processes.train_batches(part, processes=2, **asked)
    try:
        for one, other in itertools.islice(zip(alone, several, strict=True), 6):
            assert one.keys() == other.keys()
            for key in one:
                assert one[key].dtype == other[key].dtype and np.array_equal(one[key], other[key]), key
        assert len(multiprocessing.active_children()) == 2
    finally:
        several.close(), alone.close()
    assert not multiprocessing.active_children()


def test_what_ends_a_process_is_told(part, tmp_path) -> None:
    batches = processes.train_batches(part, processes=2, seed=0, start_step=0, global_batch=4, augment=augment())
    next(batches)
    os.kill(multiprocessing.active_children()[1].pid, signal.SIGKILL)
    with pytest.raises(UserError, match="has ended with -9"):
        list(batches)
    assert not multiprocessing.active_children()
    lost = written(tmp_path / "lost", [ilsvrc.jpeg(i) for i in range(N)])
    (shard,) = (tmp_path / "lost").glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[:64] + bytes(shard.stat().st_size - 64))
    with pytest.raises(UserError, match="damaged.*Copy the dataset again"):
        list(processes.train_batches(lost, processes=1, seed=0, start_step=0, global_batch=4, augment=augment()))


@pytest.mark.parametrize(("batch", "workers", "count"), [
    (256, Workers(threads=2), 1), (256, Workers(threads=24), 2), (256, Workers(threads=96), 8), (250, Workers(96), 5),
    (7, Workers(threads=96), 7), (13, Workers(threads=96), 1), (256, Workers(threads=96, cache_gb=1.0), 1)])
def test_a_batch_is_shared_by_as_many_processes_as_the_cores_need(batch, workers, count) -> None:
    assert processes.count(batch, workers) == count
    assert chunks.cores() >= 24 or processes.count(batch) == 1
