"""When and where a run saves itself, what it must remember besides its state, and how it notices that it must stop."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from imagenet_jax import checkpoint, hosts
from imagenet_jax.training.run import Cadence
from imagenet_jax.training.state import TrainState

PyTree = Any


class Progress(NamedTuple):
    """How far a run has come, besides its TrainState: every checkpoint has it, so that an interruption changes nothing.

    best_top1, best_step: of the holdout, and after which step. evaluated: the last step whose evaluation is done, -1
    for none. finished: why the run ended before its last step, '' if it did not. damaged: how many examples shown were.
    sums: (sum, count) by name of the training metrics that no line of metrics.jsonl has told yet.
    """

    best_top1: float = -1.0
    best_step: int = 0
    evaluated: int = -1
    finished: str = ""
    damaged: int = 0
    sums: Mapping[str, tuple[float, float]] = {}

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "Progress":
        """What a checkpoint says of it."""
        if "progress" in meta:
            return cls(**meta["progress"])
        top1, step = meta["best"]  # of a checkpoint older than this class, which was saved after its evaluation
        return cls(top1, step, meta["step"])


def items_of(state: TrainState) -> dict[str, PyTree]:
    """The checkpoint items of a state; its step goes into the meta."""
    return {name: getattr(state, name) for name in checkpoint.ITEMS}


class Saver:
    """Saves into `workdir`/checkpoints and `workdir`/best, which are opened when first needed.

    All hosts hold the same state, so the first one writes. The others wait until it has the state and the save before
    stands: if that failed it ends, and tells them why.
    """

    def __init__(self, workdir: str, fetch: Callable[[PyTree], PyTree], meta: dict[str, Any], cadence: Cadence, *,
                 keep: int, minutes: float) -> None:
        """fetch: copies a state from the devices. meta: what every checkpoint says besides step and progress."""
        self._workdir, self._fetch, self._meta, self._cadence = workdir, fetch, meta, cadence
        self._policy = {"checkpoints": {"keep": keep, "milestone_steps": cadence.milestone}, "best": {"keep": 1}}
        self._seconds, self._last, self._clock = minutes * 60, time.monotonic(), hosts.agreement("save")
        self._managers: dict[str, Any] = {}

    def is_due(self, step: int) -> bool:
        """Whether the step or the wall clock, which is the first host's, asks for a checkpoint; asked at every step."""
        if hosts.is_first() and 0 < self._seconds <= time.monotonic() - self._last:
            self._clock.want()
        due = self._seconds > 0 and self._clock.reached()
        return due or any(every and step % every == 0 for every in (self._cadence.save, self._cadence.milestone))

    def save(self, kind: str, state: TrainState, step: int, progress: Progress) -> None:
        """Starts to save the state after `step` steps into `kind`, 'checkpoints' or 'best'."""
        if kind == "checkpoints":
            self._last = time.monotonic()
        hosts.from_first("that a checkpoint is begun", lambda: self._begin(kind, state, step, progress))

    def finish(self) -> None:
        """Waits until all is on disk."""
        hosts.from_first("that all is saved", self._close)

    def _begin(self, kind: str, state: TrainState, step: int, progress: Progress) -> None:
        if kind not in self._managers:
            self._managers[kind] = checkpoint.open_manager(os.path.join(self._workdir, kind), **self._policy[kind])
        seen = step * self._meta["config"]["global_batch"]
        meta = self._meta | {"step": step, "examples_seen": seen, "progress": progress._asdict()}
        checkpoint.save(self._managers[kind], step, items_of(self._fetch(state)), meta)

    def _close(self) -> None:
        for manager in self._managers.values():
            checkpoint.finish(manager)
        self._managers = {}


@contextlib.contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM or SIGINT came, on any host: all hosts stop at the same call of it.

    It must be called equally often on all of them: after every step, before every batch of an evaluation.
    """
    stop = hosts.agreement("stop")
    stop.withdraw()

    def ask(signum: int, frame: Any) -> None:
        stop.want()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop.reached
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
