"""The tf.data service on localhost: the same batches as without it, whatever happens to a worker."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ilsvrc
import numpy as np
import pytest

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader, service
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

N = 23
AUGMENT = {"size": 8, "area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3), "flip": True, "interpolation": "bilinear",
           "antialias": False}


def part(directory: Path, images: list[bytes]) -> loader.Part:
    examples = [Example(image, i % 3, f"{i}.JPEG") for i, image in enumerate(images)]
    writer.write_dataset(directory, Source("tiny", ("a", "b", "c"), ("ant", "bee", "cat"), {"train": examples}))
    records = dataset.open_split(dataset.open_dataset(directory), "train")
    return loader.Part(records, np.arange(len(images))[::-1].copy(), (str(directory), "train"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> loader.Part:
    return part(tmp_path_factory.mktemp("data") / "tiny", [ilsvrc.jpeg(i) for i in range(N)])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A dispatcher and a worker in this process."""
    dispatcher = service.serve(0)
    address = dispatcher.target.removeprefix("grpc://")
    worker = service.serve(0, address)
    yield address
    del worker


def assert_same(served: Iterator[loader.Batch], plain: Iterator[loader.Batch], steps: range, at: dict) -> None:
    with contextlib.closing(served), contextlib.closing(plain):
        for step, ours, theirs in zip(steps, served, plain, strict=False):
            at.get(step, lambda: None)()
            assert ours.keys() == theirs.keys()
            for key in ours:
                assert ours[key].dtype == theirs[key].dtype and np.array_equal(ours[key], theirs[key]), (step, key)


@pytest.mark.parametrize("host", [loader.Host(0, 1), loader.Host(1, 2)])
def test_batches_are_the_same_and_none_is_lost_with_a_killed_worker(tiny, address, host) -> None:
    command = [sys.executable, "-m", "imagenet_jax", "data_service", "--port=0", f"--dispatcher={address}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert b"is up" in other.stdout.readline()
        asked = {"seed": 3, "start_step": 7, "global_batch": 8, "augment": AUGMENT, "host_slice": host}
        assert_same(service.train_batches(address, tiny, **asked), loader.train_batches(tiny, **asked), range(60),
                    {10: other.kill})


def test_an_undecodable_image_is_named(tmp_path, address) -> None:
    bad = part(tmp_path / "bad", [*(ilsvrc.jpeg(i) for i in range(4)), b"no image"])
    batches = service.train_batches(address, bad, seed=0, start_step=0, global_batch=2, augment=AUGMENT)
    with contextlib.closing(batches), pytest.raises(UserError, match=r"could not be decoded: 4\.JPEG"):
        list(itertools.islice(batches, 5))


def test_a_service_without_workers_is_given_up(tiny, monkeypatch) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.5)
    lonely = service.serve(0)
    batches = service.train_batches(lonely.target, tiny, seed=0, start_step=0, global_batch=8, augment=AUGMENT)
    with pytest.raises(UserError, match="has sent nothing for.*launch/data_service.sh"):
        next(batches)
