"""Batches of training made by several processes, for hosts of so many cores that one is bound by Python's lock.

A process makes the slice of every batch that a host would have of so many more hosts, and copies it into memory that
it shares with the run, which copies it into its batch. Only the time that a batch takes depends on all this.
"""

import collections
import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax import runtime
from imagenet_jax.errors import UserError
from imagenet_jax.input import chunks, loader, parts, width
from imagenet_jax.input.chunks import Batch, Executor, Workers
from imagenet_jax.input.loader import ONE_HOST, Host, Part

PLACES = 2  # slices that a process has room for: one is made while the other is copied out


class _Maker(NamedTuple):
    """A process. part: of a host's batch. places: uint8 [PLACES, bytes], shared. taker: a thread that waits for it."""

    process: BaseProcess
    part: slice
    places: np.ndarray
    pipe: Connection
    taker: Executor


def count(batch: int, workers: Workers = chunks.DEFAULT) -> int:
    """How many processes make a host's batches of so many examples: what its cores need, if they can share a batch.

    With records kept in memory it is one, which has them all.
    """
    wanted = 1 if workers.cache_gb else width.processes(workers.threads or chunks.cores())
    return next(n for n in range(wanted, 0, -1) if batch % n == 0)


def train_batches(part: Part, *, processes: int, start_step: int, global_batch: int, augment: Mapping[str, Any],
                  host_slice: Host = ONE_HOST, workers: Workers = chunks.DEFAULT, **asked: Any) -> Iterator[Batch]:
    """As loader.train_batches, made by so many processes, which share a host's batch equally.

    Raises:
        UserError: as there; a process was killed.
    """
    batch = loader.share(global_batch, host_slice)
    largest = max(size for _, size in loader.sizes(augment, start_step))
    share, threads = batch // processes, -(-(workers.threads or chunks.cores()) // processes)
    asked |= {"start_step": start_step, "global_batch": global_batch, "augment": dict(augment),
              "workers": workers._replace(threads=threads, ram_gb=workers.ram_gb / processes)}
    started = collections.deque()
    with contextlib.ExitStack() as stack:
        makers = [_start(slice(i * share, (i + 1) * share), 3 * largest**2, parts.closed(part), asked | {
            "host_slice": Host(host_slice.index * processes + i, host_slice.count * processes)})
                  for i in range(processes)]
        stack.callback(_stop, makers)
        for step in itertools.count(start_step):
            made = chunks.empty(batch, (*2 * loader.sizes(augment, step)[0][1:], 3))
            started.append((made, [maker.taker.submit(_take, maker, made, step % PLACES) for maker in makers]))
            if len(started) > chunks.AHEAD:
                yield chunks.finish(started.popleft())


def _start(part: slice, bytes_each: int, *task: Any) -> _Maker:
    context = multiprocessing.get_context("spawn")  # TensorFlow and JAX have threads, which a fork would lose
    room = (part.stop - part.start) * bytes_each
    shared, (pipe, its_end) = context.RawArray("B", PLACES * room), context.Pipe()
    process = context.Process(target=_make, args=(shared, its_end, *task), daemon=True)
    process.start()
    its_end.close()  # so that the pipe ends with the process
    for _ in range(PLACES):
        pipe.send(None)
    return _Maker(process, part, np.frombuffer(shared, np.uint8).reshape(PLACES, room), pipe, Executor(1, "take"))


def _stop(makers: list[_Maker]) -> None:
    for maker in makers:
        maker.process.kill()  # it owns nothing
    for maker in makers:
        maker.process.join()
        maker.taker.shutdown(cancel_futures=True)
        maker.pipe.close()


def _take(maker: _Maker, made: Batch, place: int) -> None:
    """Waits for a slice of a batch, and copies it there."""
    try:
        slices = maker.pipe.recv()
        if isinstance(slices, UserError):
            raise slices
        for key, values in slices.items():
            made[key][maker.part] = values
        image = made["image"][maker.part]
        np.copyto(image, maker.places[place, : image.size].reshape(image.shape))
        maker.pipe.send(None)
    except (EOFError, OSError):
        maker.process.join()
        raise UserError(f"a process that makes input has ended with {maker.process.exitcode} (-9: it was killed, when "
                        "memory runs out by the system). loader.threads=8 leaves it to a single one, which takes less."
                        ) from None


def _make(shared: Any, pipe: Connection, part: Part, asked: Mapping[str, Any]) -> None:
    """What a process does: whenever a place is empty, it is filled with the slice of the next step."""
    runtime.configure()
    runtime.follow_parent()
    places = np.frombuffer(shared, np.uint8).reshape(PLACES, -1)
    with contextlib.suppress(EOFError, OSError):  # the run is over
        try:
            with contextlib.closing(loader.train_batches(parts.opened(part), **asked)) as batches:
                for step, made in enumerate(batches, asked["start_step"]):
                    image = made.pop("image")
                    pipe.recv()
                    np.copyto(places[step % PLACES, : image.size].reshape(image.shape), image)
                    pipe.send(made)
        except UserError as error:
            pipe.send(error)
