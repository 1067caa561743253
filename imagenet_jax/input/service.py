"""Input decoded by other machines: a tf.data service, with the same batches as without it.

The dispatcher hands out the numbers of steps, a worker makes the whole batch of a step, and the run puts the batches
back into order. A batch is a pure function of its step: what a lost worker took with it is made here instead.

Records are read by Python, which a graph cannot carry. Workers are therefore started by this package
(`launch/data_service.sh`): they know the function that the graph names, and open the dataset under the same path.
"""

import functools
import json
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader
from imagenet_jax.input.loader import ONE_HOST, Batch, Host, Part, Workers, tf

AHEAD = 16  # batches held for one that is missing; then it is taken to be lost
PATIENCE = 60.0  # seconds without any batch after which the service is given up
_TOKEN = "imagenet_jax.input.service.read"


def serve(port: int, dispatcher: str = "", address: str = "") -> Any:
    """Starts a dispatcher on `port`, or a worker for the `dispatcher` ('host:port'); it runs until it is let go.

    address: under which runs reach the worker, by default localhost; the port is added.

    Raises:
        UserError: it cannot be started.
    """
    service = tf.data.experimental.service
    try:
        if not dispatcher:
            return service.DispatchServer(service.DispatcherConfig(port=port))
        _register()
        return service.WorkerServer(service.WorkerConfig(
            dispatcher_address=dispatcher, worker_address=f"{address or 'localhost'}:%port%", port=port,
            heartbeat_interval_ms=1000, dispatcher_timeout_ms=int(PATIENCE * 1000)))
    except tf.errors.OpError as error:
        raise UserError(f"cannot serve on port {port}: {error.message}") from error


def train_batches(address: str, part: Part, *, seed: int, start_step: int, global_batch: int,
                  augment: Mapping[str, Any], host_slice: Host = ONE_HOST,
                  workers: Workers = loader.DEFAULT) -> Iterator[Batch]:
    """As loader.train_batches, decoded by the service whose dispatcher is at `address` ('host:port').

    Raises:
        UserError: as there; the service cannot be reached, sends nothing for a minute, or has no such dataset.
    """
    local = functools.partial(loader.train_batches, part, seed=seed, global_batch=global_batch, augment=augment,
                              host_slice=host_slice, workers=workers)
    directory, split = part.origin
    spec = {"directory": directory, "split": split} | loader.step_spec(
        seed=seed, global_batch=global_batch, augment=augment, host_slice=host_slice)
    batch = loader.share(global_batch, host_slice)
    batches = loader.pipeline(loader.endless(start_step), functools.partial(_fetch, json.dumps(spec), part.pool),
                              loader.train_example(augment), batch, workers)
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
                number = int(arrived.pop("step")[0])
                if number >= step:  # else it was late, and made here
                    waiting[number] = arrived | {"mask": np.ones(batch, np.float32)}
            yield waiting.pop(step) if step in waiting else _alone(local(start_step=step))
            step += 1
    except tf.errors.InvalidArgumentError as error:  # most likely an image, which our own input can name
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


def _fetch(spec: str, pool: np.ndarray, step: tf.Tensor) -> Sequence[tf.Tensor]:
    return tf.raw_ops.PyFuncStateless(input=[spec, pool, step], token=_TOKEN, Tout=[*loader.ROW.values()])


def _register() -> None:
    """Makes `_read` known in this process under the name that graphs call it by."""
    from tensorflow.python.ops import script_ops  # the public functions make up a name that no other process knows

    script_ops._py_funcs._funcs[_TOKEN] = _read


def _read(spec: bytes, pool: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, ...]:
    asked = json.loads(spec)
    records = _records(asked.pop("directory"), asked.pop("split"))
    return loader.read_step(records, pool, int(step), **asked)


@functools.lru_cache(maxsize=8)
def _records(directory: str, split: str) -> dataset.Records:
    return dataset.open_split(dataset.open_dataset(directory), split)
