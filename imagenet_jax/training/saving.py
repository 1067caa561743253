"""When and where a run saves itself, and how it notices that it must stop."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils

from imagenet_jax import checkpoint
from imagenet_jax.training.state import TrainState

PyTree = Any


class Best(NamedTuple):
    """The best holdout top-1 so far and the step that reached it."""

    top1: float = -1.0
    step: int = 0


def items_of(state: TrainState) -> dict[str, PyTree]:
    """The checkpoint items of a state; its step goes into the meta."""
    return {name: getattr(state, name) for name in checkpoint.ITEMS}


class Saver:
    """Saves into `workdir`/checkpoints and `workdir`/best, which are opened when first needed."""

    def __init__(self, workdir: str, fetch: Callable[[PyTree], PyTree], meta: dict[str, Any], *, keep: int,
                 milestone_steps: int, minutes: float) -> None:
        """fetch: copies a state from the devices. meta: what every checkpoint says besides step and best."""
        self._workdir, self._fetch, self._meta = workdir, fetch, meta
        self._policy = {"checkpoints": {"keep": keep, "milestone_steps": milestone_steps}, "best": {"keep": 1}}
        self._seconds, self._last = minutes * 60, time.monotonic()
        self._managers: dict[str, Any] = {}

    def is_due(self) -> bool:
        """Whether the wall clock asks for a checkpoint; the hosts agree by following the first one's."""
        due = self._seconds > 0 and time.monotonic() - self._last >= self._seconds
        if jax.process_count() > 1:
            due = bool(multihost_utils.broadcast_one_to_all(due))
        return due

    def save(self, kind: str, state: TrainState, step: int, best: Best) -> None:
        """Starts to save the state after `step` steps into `kind`, 'checkpoints' or 'best'."""
        if kind not in self._managers:
            self._managers[kind] = checkpoint.open_manager(os.path.join(self._workdir, kind), **self._policy[kind])
        if kind == "checkpoints":
            self._last = time.monotonic()
        seen = step * self._meta["config"]["global_batch"]
        meta = self._meta | {"step": step, "examples_seen": seen, "best": list(best)}
        checkpoint.save(self._managers[kind], step, items_of(self._fetch(state)), meta)

    def finish(self) -> None:
        """Waits until all is on disk."""
        for manager in self._managers.values():
            checkpoint.finish(manager)
        self._managers = {}


@contextlib.contextmanager
def termination() -> Iterator[Callable[[int], bool]]:
    """Gives a function that says, after a step, whether SIGTERM or SIGINT came (on any host)."""
    asked = False

    def ask(signum: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}

    def is_asked(step: int) -> bool:
        if jax.process_count() > 1:  # JAX's own service then owns SIGTERM and makes the hosts agree
            return multihost_utils.reached_preemption_sync_point(step)
        return asked

    try:
        yield is_asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
