"""Processes that write shards."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from multiprocessing import forkserver

from imagenet_jax import runtime
from imagenet_jax.prepare.shard import Chunk, write_chunk

_PRELOAD = ["imagenet_jax.prepare.repair", "imagenet_jax.prepare.shard", "tensorflow_datasets.proto.tf_example_pb2"]


def warm_up() -> None:
    """Starts the process that workers are forked from, so that it imports meanwhile, and once for all of them."""
    multiprocessing.set_forkserver_preload(_PRELOAD)
    forkserver.ensure_running()


def work(chunks: Iterator[Chunk], workers: int) -> Iterator[int]:
    """Deals with chunks, few of them in flight at a time; yields how many images each was.

    Args:
        chunks: each of them may be the result of much reading, and is asked for only when a worker will soon be free.
        workers: processes; 1 does all the work in this one.

    Raises:
        BrokenProcessPool: a worker was killed. Otherwise what `write_chunk` and `chunks` raise.
    """
    if workers <= 1:
        yield from map(write_chunk, chunks)
        return
    warm_up()
    context = multiprocessing.get_context("forkserver")
    pool, pending = ProcessPoolExecutor(workers, context, initializer=_begin), set()
    try:
        for chunk in chunks:
            pending.add(pool.submit(write_chunk, chunk))
            if len(pending) > workers:  # one waits, so that nobody else has to
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in as_completed(pending))
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    runtime.quiet()
    runtime.follow_parent()
