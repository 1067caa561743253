"""One device-level function, run on all devices in one of two ways with one meaning.

The global batch is cut by host, each host's slice into K micro-batches, each micro-batch over the host's
devices: so consecutive examples lie on neighbouring devices of one micro-batch, and BatchNorm groups are
the same examples on any hardware.

On several hosts pmap makes global arrays of those of the host, and the other way round, at every call: with the 428
arrays of ResNet-50's state, but of four numbers each and a step that adds 1 to them, a call took 6.2 ms in each of two
processes with a CPU device, 11.3 with four (1.1 and 3.6 by shard_map; 0.8 and 2.2 by pmap in one process alone; medians
of 50). A step of few milliseconds would wait for that, so `auto` takes pmap on one host, shard_map on several.
"""

import collections
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import monitoring
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import AXIS

PyTree = Any
STEPS_IN_FLIGHT = 2  # dispatched ahead of the devices; more would only pile up batches there
_CACHE_EVENTS = {"/jax/compilation_cache/cache_hits": "cache", "/jax/compilation_cache/cache_misses": "cold"}


class Layout(NamedTuple):
    """How work lies on devices. mode: 'pmap' or 'shard_map'; devices: of all hosts."""

    mode: str
    devices: tuple[jax.Device, ...]

    @property
    def mesh(self) -> Mesh:
        """All devices on the one axis."""
        return Mesh(np.array(self.devices), (AXIS,))

    @property
    def local_devices(self) -> list[jax.Device]:
        """The devices of this host."""
        return [d for d in self.devices if d.process_index == jax.process_index()]


def make_layout(mode: str = "auto", devices: list[jax.Device] | None = None) -> Layout:
    """A layout over `devices`, by default all there are; 'auto' is the way that costs less, see above."""
    if mode == "auto":
        mode = "pmap" if jax.process_count() == 1 else "shard_map"
    return Layout(mode, tuple(devices or jax.devices()))


def micro_batches(layout: Layout, global_batch: int, max_per_device: int, bn_group: int | None = None) -> int:
    """The least number of equal micro-batches with which no device holds more than `max_per_device` examples.

    Raises:
        UserError: the devices cannot share the batch equally, or a BatchNorm group does not fit a micro-batch.
    """
    devices = len(layout.devices)
    share, left = divmod(global_batch, devices)
    if left or not share:
        nearest = max(1, round(global_batch / devices)) * devices
        raise UserError(f"global_batch={global_batch} cannot be shared by {devices} devices; the nearest that can is "
                        f"{nearest} (scale the learning rate with it), or use fewer devices")
    count = next(k for k in range(1, share + 1) if share % k == 0 and share // k <= max_per_device)
    size = share // count
    if bn_group is None:
        return count
    if size % bn_group and bn_group % size:
        raise UserError(f"model.bn_group={bn_group} neither divides nor is a multiple of the {size} examples that one "
                        f"of {devices} devices holds at a time (global_batch={global_batch}, {count} micro-batches)")
    together = size * (len(layout.local_devices) if count > 1 else devices)
    if together % bn_group:
        raise UserError(f"model.bn_group={bn_group} does not fit the {together} examples that are processed together; "
                        f"raise max_per_device_batch={max_per_device} or lower bn_group")
    return count


def compile_step(step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], layout: Layout,
                 options: Sequence[str] = ()) -> Callable[..., Any]:
    """Compiles step(state, batch) -> (state, metrics); the state is donated.

    Batch leaves are [K, M, ...] on each device; the metrics returned are replicated.

    options: of XLA, each 'NAME=VALUE'.

    Raises:
        UserError: options for pmap.
    """
    if layout.mode == "pmap":
        if options:
            raise UserError("config.compiler_options are for parallel='shard_map' alone: JAX's pmap takes none")
        return jax.pmap(step, AXIS, donate_argnums=0, devices=layout.devices)
    mapped = jax.shard_map(step, mesh=layout.mesh, in_specs=(P(), P(None, AXIS)), out_specs=P(), check_vma=False)
    return jax.jit(mapped, donate_argnums=0, compiler_options=dict(map(_option, options)))


def _option(text: str) -> tuple[str, bool | str]:
    name, _, value = text.partition("=")
    return name, {"true": True, "false": False}.get(value.lower(), value)


class Compiled(NamedTuple):
    """A program and where it came from.

    seconds: from the Python function on. source: 'cold', 'cache' (read from JAX's compilation cache), or 'uncached'
    (nothing was kept there, either).
    """

    program: jax.stages.Compiled
    seconds: float
    source: str


def compiled(step: Callable[..., Any], state: PyTree, batch: PyTree) -> Compiled:
    """The program of a step of `compile_step` for arguments like these; its calls with such use it, too."""
    events = []

    def listen(event: str, **_: Any) -> None:
        if event in _CACHE_EVENTS:
            events.append(_CACHE_EVENTS[event])

    monitoring.register_event_listener(listen)
    begun = time.perf_counter()
    try:
        program = compile_lowered(step.lower(state, batch))
    finally:
        monitoring.unregister_event_listener(listen)
    return Compiled(program, time.perf_counter() - begun, events[-1] if events else "uncached")


def compile_lowered(lowered: Any) -> jax.stages.Compiled:
    """Compiles a step of `compile_step` that was lowered.

    Raises:
        UserError: an option that this XLA has not, or not with that value.
        jax.errors.JaxRuntimeError: what else the compiler says, such as that the memory is too small.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if found := re.search("No such compile option: .*|While setting option .*", str(error)):
            raise UserError(f"config.compiler_options: {found[0].rstrip('.')}") from error
        raise


def compile_eval(evaluate: Callable[[PyTree, PyTree], PyTree], layout: Layout) -> Callable[..., PyTree]:
    """Compiles evaluate(variables, batch) -> per-example arrays; batch leaves are [B, ...] on each device."""
    if layout.mode == "pmap":
        return jax.pmap(evaluate, AXIS, devices=layout.devices)
    return jax.jit(jax.shard_map(evaluate, mesh=layout.mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS),
                                 check_vma=False))


def put_state(tree: PyTree, layout: Layout) -> PyTree:
    """Copies host arrays to every device."""
    if layout.mode == "pmap":
        # device_put_replicated in effect; a stack of references, not of copies, on the host.
        sharding = NamedSharding(Mesh(np.array(layout.local_devices), (AXIS,)), P(AXIS))
        count = len(layout.local_devices)
        return jax.tree.map(
            lambda x: jax.device_put(np.broadcast_to(np.asarray(x), (count, *np.shape(x))), sharding), tree)
    return jax.tree.map(lambda x: jax.device_put(np.asarray(x), NamedSharding(layout.mesh, P())), tree)


def get_state(tree: PyTree, layout: Layout) -> PyTree:
    """Copies replicated arrays back to this host as numpy."""
    here = jax.device_get(jax.tree.map(lambda x: x.addressable_shards[0].data, tree))
    return jax.tree.map(lambda x: x[0], here) if layout.mode == "pmap" else here


def dispatched(results: Iterable[PyTree]) -> Iterator[PyTree]:
    """The results of steps in their order, each when STEPS_IN_FLIGHT of them are under way, or all."""
    running: collections.deque[PyTree] = collections.deque()
    for each in results:
        running.append(each)
        if len(running) >= STEPS_IN_FLIGHT:
            yield running.popleft()
    yield from running


def put_batch(batch: Mapping[str, np.ndarray], layout: Layout, micro: int | None = None) -> dict[str, jax.Array]:
    """Lays this host's slice [B, ...] over its devices, cut into `micro` micro-batches (None: no such axis)."""
    count = len(layout.local_devices)

    def put(x: np.ndarray) -> jax.Array:
        cut = x.reshape(micro or 1, -1, *x.shape[1:])  # [K, devices * M, ...]
        if layout.mode == "pmap":
            cut = cut.reshape(micro or 1, count, -1, *x.shape[1:]).swapaxes(0, 1)  # [devices, K, M, ...]
            cut = cut if micro else cut[:, 0]
            return jax.device_put(cut, NamedSharding(Mesh(np.array(layout.local_devices), (AXIS,)), P(AXIS)))
        cut, spec = (cut, P(None, AXIS)) if micro else (cut[0], P(AXIS))
        return jax.make_array_from_process_local_data(NamedSharding(layout.mesh, spec), cut)

    return {key: put(value) for key, value in batch.items()}


def get_examples(tree: PyTree, layout: Layout) -> PyTree:
    """This host's per-example results of `compile_eval` as numpy [B, ...], in the order they were put."""
    if layout.mode == "pmap":
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(tree))
    return jax.tree.map(lambda x: np.concatenate(jax.device_get(
        [s.data for s in sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)])), tree)
