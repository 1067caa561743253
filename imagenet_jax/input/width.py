"""How wide input is: what it would give on other machines, from the processor time of its stages and Python's lock."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

LOCK = "lock"  # beside the names of stages
CORES = (16, 64, 192)  # of hosts that accelerators are rented with
CORES_EACH = 12  # of a process: with JPEGs of 110 KB they keep its lock for two thirds of the time


class Width(NamedTuple):
    """Microseconds an image takes.

    stages: of the processor, over all threads, by what each stage adds. lock: of those, under Python's lock, which one
    thread has at a time.
    """

    stages: Mapping[str, float]
    lock: float

    @property
    def total(self) -> float:
        """Of the processor, by all stages."""
        return sum(self.stages.values())

    @property
    def ceiling(self) -> float:
        """Images a second at which a process has the lock all the time, however many cores there are."""
        return 1e6 / self.lock if self.lock else math.inf


def processes(cores: int) -> int:
    """Those that make input on so many cores."""
    return max(1, cores // CORES_EACH)


def rate(width: Width, cores: int) -> float:
    """Images a second on so many cores."""
    return min(1e6 * cores / width.total, width.ceiling * processes(cores))


def binding(width: Width, cores: int) -> str:
    """The stage that takes most of so many cores, or LOCK where they wait for that."""
    if 1e6 * cores / width.total > width.ceiling * processes(cores):
        return LOCK
    return max(width.stages, key=width.stages.__getitem__)


def cores_for(width: Width, wanted: float) -> int:
    """Cores of a host that makes so many images a second."""
    return next(cores for cores in itertools.count(1) if rate(width, cores) >= wanted)


def words(width: Width, wanted: float, names: Mapping[str, str]) -> str:
    """All of that for people. names: of the stages."""
    lines = [f"An image takes {width.total:,.0f} us of the processor. Python holds its lock, which one thread has at a "
             f"time, for about {width.lock:,.0f} us of them ({width.lock / width.total:.0%}): one process makes up to "
             f"{width.ceiling:,.0f} img/s. Training has one for {CORES_EACH} cores."]
    for cores in CORES:
        bound, count = names.get(binding(width, cores), "Python's lock"), processes(cores)
        by = f"{count} process{'es' if count > 1 else ''}"
        lines.append(f"{cores:4} cores: {rate(width, cores):9,.0f} img/s by {by}, {bound!r} binds")
    lines.append("That assumes cores like these, each as fast when all are busy, storage and memory that keep up, and "
                 "that reading and a recipe's operations, which let go of the lock, take nothing of it.")
    if wanted:
        cores = cores_for(width, wanted)
        lines.append(f"{wanted:,.0f} img/s need {cores:,} core{'s' if cores > 1 else ''}.")
    return "\n".join(lines)


def figures(width: Width, wanted: float) -> dict[str, Any]:
    """The same for JSON."""
    return {"processor_us": width.total, "lock_us": width.lock,
            "at": [{"cores": cores, "processes": processes(cores), "img_per_s": rate(width, cores),
                    "binds": binding(width, cores)} for cores in CORES],
            "want": {"img_per_s": wanted, "cores": cores_for(width, wanted)} if wanted else None}
