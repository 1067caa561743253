"""Where the time of a step goes: a trace for TensorBoard and Perfetto, and its costs by layer for a terminal."""

import collections
import contextlib
import glob
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from imagenet_jax.errors import UserError
from imagenet_jax.training import hlo

STEPS = 5  # that are traced
FIRST = 10  # of a run's, counted from its start: what is slow once is over then
LAST = FIRST + STEPS - 1
LARGEST = 10  # operations that are told by name
_AROUND = ("while", "call", "conditional")  # whose time is that of what they run


class Cost(NamedTuple):
    """What an operation takes. layer: see hlo.layer_of. ms: in a step, of all threads and devices of this host."""

    operation: str
    layer: str
    ms: float


@contextlib.contextmanager
def window(directory: str, number: int, first: int = FIRST) -> Iterator[None]:
    """What step `number` is done in: STEPS of them from `first` on are traced into directory/plugins/profile/TIME.

    Nothing is if the directory is ''.
    """
    if not directory:
        yield
        return
    if number == first:
        jax.profiler.start_trace(directory, create_perfetto_trace=True)
    with jax.profiler.StepTraceAnnotation("train", step_num=number):
        yield
    if number == first + STEPS - 1:
        jax.profiler.stop_trace()


def check(directory: str, steps: int) -> None:
    """Raises UserError if a run of so many steps has not those that would be traced into a directory."""
    if directory and steps < LAST:
        raise UserError(f"--profile records steps {FIRST} to {LAST} from the start, and {steps} are left of this run: "
                        "give it another --workdir, or a longer --config.duration")


def costs(directory: str, program: Any, steps: int = STEPS) -> list[Cost]:
    """What the operations of a compiled program took in the newest trace of a directory, of so many steps.

    The most expensive come first.
    """
    computations, _ = hlo.parse(program.as_text())
    known = {name: each for computation in computations.values() for name, each in computation.items()}
    traces = glob.glob(os.path.join(glob.escape(directory), "**/*.xplane.pb"), recursive=True)
    taken = collections.Counter()
    for name, nanoseconds in _events(jax.profiler.ProfileData.from_file(max(traces, key=os.path.getmtime))):
        if name in known and known[name].opcode not in _AROUND:
            taken[name] += nanoseconds
    return [Cost(name, known[name].layer, 1e-6 * total / steps) for name, total in taken.most_common()]


def _events(trace: Any) -> Iterator[tuple[str, float]]:
    """Name and nanoseconds of every operation that was run; TPUs have a line of them, others say it of each event."""
    for plane in trace.planes:
        lines = [*plane.lines]
        own = [line for line in lines if line.name == "XLA Ops"]
        for line in own or lines:
            for event in line.events:
                name = event.name if own else dict(event.stats).get("hlo_op", "")
                yield name.removeprefix("%").partition(" ")[0], event.duration_ns


def words(directory: str, found: list[Cost]) -> str:
    """The most expensive operations, for people."""
    total = sum(each.ms for each in found)
    lines = [f"{'ms a step':>11}{'share':>8}  what takes most, of all threads and devices of this host"]
    for each in found[:LARGEST]:
        lines.append(f"{each.ms:11.2f}{each.ms / total:8.1%}  {each.layer or 'of no layer'} ({each.operation})")
    share = sum(each.ms for each in found[:LARGEST]) / total if total else 0.0
    lines.append(f"{total:11.2f}{share:8.1%}  all {len(found)}, and the share of these {min(LARGEST, len(found))}")
    return "\n".join([*lines, f"The trace is in {directory}: `tensorboard --logdir={directory}` (with the package "
                      "xprof), or perfetto_trace.json.gz of it in ui.perfetto.dev."])
