"""The tf.data service on localhost: the same batches as without it, whatever happens to a worker."""

import contextlib
import itertools
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from augmenting import augment
from tensorflow.python.ops import script_ops

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader, service
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

N = 23
AUGMENT = augment(repeats=2, policy="trivialaugment", jitter=(0.4, 0.4, 0.4, 0.1), ramp=((20, 12), (40, 10)))


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
    dispatcher, _ = service.serve(0)
    address = dispatcher.target.removeprefix("grpc://")
    worker, _ = service.serve(0, address)
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


def test_damage_comes_with_the_batches_and_a_lost_shard_is_an_error(tmp_path, address) -> None:
    bad = part(tmp_path / "bad", [*(ilsvrc.jpeg(i) for i in range(4)), b"no image"])
    asked = {"seed": 0, "start_step": 0, "global_batch": 2, "augment": AUGMENT}
    assert_same(service.train_batches(address, bad, **asked), loader.train_batches(bad, **asked), range(5), {})
    (shard,) = (tmp_path / "bad").glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[:64] + bytes(shard.stat().st_size - 64))
    batches = service.train_batches(address, bad, **asked | {"seed": 1})
    with contextlib.closing(batches), pytest.raises(UserError, match="damaged.*Copy the dataset again"):
        list(itertools.islice(batches, 5))


def test_a_service_without_workers_is_given_up(tiny, monkeypatch) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.5)
    lonely, _ = service.serve(0)
    batches = service.train_batches(lonely.target, tiny, seed=0, start_step=0, global_batch=8, augment=AUGMENT)
    with pytest.raises(UserError, match="has sent nothing for.*launch/data_service.sh"):
        next(batches)


@pytest.mark.parametrize("name, works, told", [("localhost", True, service.CLOSED),
                                               ("0.0.0.0", False, service.OPEN)])
def test_who_can_connect_is_told_at_the_start(address, name, works, told) -> None:
    command = [sys.executable, "-m", "imagenet_jax", "data_service", "--port=0", f"--address={name}"]
    command += [f"--dispatcher={address}"] * works
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        first, second = server.stdout.readline(), server.stdout.readline()
        server.kill()
        assert ("worker of" if works else "dispatcher:") in first and second == f"{told}\n"
        assert server.stderr.read() == ""


def test_localhost_is_closed_to_other_machines(monkeypatch) -> None:
    def devices(fds) -> list[bytes]:
        """That the sockets take connections from; none is all."""
        copies = [service._copy(fd) for fd in fds]
        return [copy.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") for copy in copies]

    before = set(service._listening())
    dispatcher, is_closed = service.serve(0)
    worker, worker_is_closed = service.serve(0, dispatcher.target.removeprefix("grpc://"))
    mine = set(service._listening()) - before
    assert is_closed and worker_is_closed and devices(mine) == [b"lo"] * 2
    for make in (lambda: service.serve(0, address="0.0.0.0"),
                 lambda: monkeypatch.delattr(socket, "SO_BINDTODEVICE") or service.serve(0)):  # not on every system
        _, is_closed = make()
        assert not is_closed
    del worker


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("", 0)) as taken, pytest.raises(UserError, match="cannot serve on port .*in use"):
        service.serve(taken.getsockname()[1])
    dispatcher, _ = service.serve(0)
    with pytest.raises(UserError, match="cannot serve on port .*in use"):
        service.serve(int(dispatcher.target.rpartition(":")[2]))


@pytest.mark.parametrize("registry", [None, types.SimpleNamespace(), types.SimpleNamespace(_funcs=())])
def test_a_tensorflow_that_keeps_functions_elsewhere_is_named(address, monkeypatch, registry) -> None:
    monkeypatch.setattr(script_ops, "_py_funcs", registry)
    with pytest.raises(UserError, match=r"needs TensorFlow 2\.21, and here is \d+\.\d+"):
        service.serve(0, address)
