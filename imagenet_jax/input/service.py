"""Input decoded by other machines: a tf.data service, with the same batches as without it.

The dispatcher hands out the numbers of steps, a worker makes the whole batch of a step, and the run puts the batches
back into order. A batch is a pure function of its step: what a lost worker took with it is made here instead.

Records are read by Python, which a graph cannot carry. Workers are therefore started by this package
(`launch/data_service.sh`): they know the function that the graph names, and open the dataset under the same path.
"""

import contextlib
import functools
import json
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import chunks, loader
from imagenet_jax.input.chunks import Batch, Workers, tf
from imagenet_jax.input.loader import ONE_HOST, Host, Part

AHEAD = 16  # batches held for one that is missing; then it is taken to be lost
PATIENCE = 60.0  # seconds without any batch after which the service is given up
CLOSED = "Closed to other machines. Whoever can log in to this one can connect, and it runs whatever it is sent."
OPEN = ("Other machines can connect, and it runs whatever it is sent: keep it in a private network or behind a "
        "firewall, or serve on --address=localhost and reach it through an ssh tunnel.")
_TOKEN = "imagenet_jax.input.service.make"
_MADE = {"image": tf.uint8, "label": tf.int32, "file_name": tf.string, "index": tf.int64,
         "fault": tf.string}  # by a worker, for a step
_AT_A_TIME = 2  # batches that a worker makes: one begins while the other ends
_KNOWN_RELEASES = "2.21"  # of TensorFlow, whose private table of functions _register writes into
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_DESCRIPTORS = "/proc/self/fd"


def serve(port: int, dispatcher: str = "", address: str = "localhost") -> tuple[Any, bool]:
    """Starts a dispatcher on `port`, or a worker for the `dispatcher` ('host:port').

    TensorFlow runs whatever graph it is sent, asks nobody who they are, and listens on every address. What is to be
    reached as localhost is therefore closed to other machines, where the system can do that (Linux since 5.7).

    Args:
        port: 0 for any that is free.
        dispatcher: of the worker.
        address: under which runs reach the worker; the port is added.

    Returns:
        The server, which runs until it is let go; whether it is closed to other machines.

    Raises:
        UserError: it cannot be started.
    """
    service, before = tf.data.experimental.service, set(_listening())
    try:
        if port:
            socket.create_server(("", port)).close()  # gRPC would share one that another server has, in silence
        if dispatcher:
            _register()
            server = service.WorkerServer(service.WorkerConfig(
                dispatcher_address=dispatcher, worker_address=f"{address}:%port%", port=port,
                heartbeat_interval_ms=1000, dispatcher_timeout_ms=int(PATIENCE * 1000)))
        else:
            server = service.DispatchServer(service.DispatcherConfig(port=port))
    except (OSError, OverflowError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"cannot serve on port {port}: {error}") from error
    return server, address in _LOOPBACK and _close_to_others([fd for fd in _listening() if fd not in before])


def _listening() -> list[int]:
    """Descriptors of the internet sockets that this process listens on; none where the system does not tell."""
    found = []
    for name in os.listdir(_DESCRIPTORS) if os.path.isdir(_DESCRIPTORS) else ():
        with contextlib.suppress(OSError):  # it was that of this very listing
            if os.readlink(f"{_DESCRIPTORS}/{name}").startswith("socket:"):
                with _copy(int(name)) as copy:
                    if copy.family != socket.AF_UNIX and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.append(int(name))
    return found


def _copy(descriptor: int) -> socket.socket:
    return socket.socket(fileno=os.dup(descriptor))


def _close_to_others(listening: Sequence[int]) -> bool:
    """Ties sockets to the loopback device, to which no other machine has a way; False if that cannot be done."""
    try:
        for fd in listening:
            with _copy(fd) as copy:
                copy.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    except (OSError, AttributeError):  # an older Linux; another system
        return False
    return bool(listening)


def train_batches(address: str, part: Part, *, seed: int, start_step: int, global_batch: int,
                  augment: Mapping[str, Any], host_slice: Host = ONE_HOST,
                  workers: Workers = chunks.DEFAULT) -> Iterator[Batch]:
    """As loader.train_batches, decoded by the service whose dispatcher is at `address` ('host:port').

    Raises:
        UserError: as there; the service cannot be reached, sends nothing for a minute, or has no such dataset.
    """
    local = functools.partial(loader.train_batches, part, seed=seed, global_batch=global_batch, augment=augment,
                              host_slice=host_slice, workers=workers)
    directory, split = part.origin
    spec = {"directory": directory, "split": split, "seed": seed, "global_batch": global_batch,
            "augment": dict(augment), "host_slice": host_slice}
    batch = loader.share(global_batch, host_slice)
    batches = _pipeline(json.dumps(spec), part.pool, start_step, batch)
    served = batches.apply(tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
        service=address if "://" in address else f"grpc://{address}", max_outstanding_requests=AHEAD // 2))
    waiting: dict[int, Batch] = {}
    arrivals = _arrivals(served, address)
    try:
        step = start_step
        while True:
            while step not in waiting and len(waiting) < AHEAD:
                arrived = next(arrivals)
                number = int(arrived.pop("step"))
                if number >= step:  # else it was late, and made here
                    waiting[number] = arrived | {"mask": np.ones(batch, np.float32)}
            yield waiting.pop(step) if step in waiting else _alone(local(start_step=step))
            step += 1
    except tf.errors.InvalidArgumentError as error:  # most likely a lost shard, which our own input can name
        for suspect in range(step, step + 2 * AHEAD):
            _alone(local(start_step=suspect))
        raise UserError(f"the tf.data service at {address} failed: {error.message}") from error
    finally:
        arrivals.close()


def _alone(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    finally:
        batches.close()


def _arrivals(served: tf.data.Dataset, address: str) -> Iterator[Batch]:
    """Batches as they come, in whatever order."""
    arrived, over = queue.Queue(2), threading.Event()

    def pull() -> None:
        try:
            for batch in served.as_numpy_iterator():
                while not over.is_set():
                    try:
                        arrived.put(batch, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if over.is_set():
                    return
        except Exception as error:  # noqa: BLE001 it is raised where batches are taken
            arrived.put(error)

    thread = threading.Thread(target=pull, daemon=True)
    thread.start()
    try:
        while True:
            batch = arrived.get(timeout=PATIENCE)
            if isinstance(batch, tf.errors.InvalidArgumentError):
                raise batch
            if isinstance(batch, Exception):
                raise UserError(f"the tf.data service at {address} failed: {batch}")
            yield batch
    except queue.Empty:
        raise UserError(f"the tf.data service at {address} has sent nothing for {PATIENCE:.0f} s: is its dispatcher "
                        "there, and has it workers? launch/data_service.sh starts both; without dataset.service the "
                        "run goes on from its last checkpoint with its own input.") from None
    finally:
        over.set()
        thread.join(timeout=1)


def _pipeline(spec: str, pool: np.ndarray, start_step: int, batch: int) -> tf.data.Dataset:
    """What each worker runs: a batch and its `step` for each step that it is given."""

    def made(step: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.raw_ops.PyFuncStateless(input=[spec, pool, step], token=_TOKEN, Tout=[*_MADE.values()])
        return {key: tf.ensure_shape(array, [batch, *[None] * (3 if key == "image" else 0)])
                for key, array in zip(_MADE, arrays, strict=True)} | {"step": step}

    options = tf.data.Options()
    options.threading.private_threadpool_size = 2 * _AT_A_TIME  # of which some wait for the threads that decode
    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    return steps.map(made, num_parallel_calls=_AT_A_TIME).with_options(options)


def _register() -> None:
    """Makes `_make` known in this process under the name that graphs call it by.

    The public functions make up a name that no other process knows.

    Raises:
        UserError: this release of TensorFlow keeps its functions elsewhere.
    """
    try:
        from tensorflow.python.ops import script_ops

        functions = script_ops._py_funcs._funcs
        known = isinstance(functions, MutableMapping) and callable(script_ops._py_funcs.get)
    except (ImportError, AttributeError):
        known = False
    if not known:
        raise UserError(f"a worker of the tf.data service needs TensorFlow {_KNOWN_RELEASES}, and here is "
                        f"{tf.__version__}, which keeps Python functions elsewhere: install tensorflow-cpu=="
                        f"{_KNOWN_RELEASES}.*, or train without dataset.service")
    functions[_TOKEN] = _make


def _make(spec: bytes, pool: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, ...]:
    asked = json.loads(spec)
    records, augment = _records(asked.pop("directory"), asked.pop("split")), asked["augment"]
    plan = loader.train_plan(Part(records, pool), **asked)
    batch = loader.share(asked["global_batch"], loader.Host(*asked["host_slice"]))
    try:
        (_, size), *_ = loader.sizes(augment, int(step))
        transform = loader.train_transform({**augment, "size": size})
        made = chunks.finish(chunks.start(_crew(), records, int(step), plan, transform, batch))
    except UserError as error:
        raise ValueError(str(error)) from error  # which reaches the run as an InvalidArgumentError
    return tuple(made[key] for key in _MADE)


@functools.cache
def _crew() -> chunks.Crew:
    return chunks.hire(chunks.cores())


@functools.lru_cache(maxsize=8)
def _records(directory: str, split: str) -> dataset.Records:
    return dataset.open_split(dataset.open_dataset(directory), split)
