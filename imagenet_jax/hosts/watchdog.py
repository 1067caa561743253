"""Ends a run that stands still: what hangs costs a night, what has ended is started again and goes on.

The main thread says what it does (`doing`) and when a step or a batch is done (`passed`); a thread looks on. Nothing
here waits for a device or for another host before it is known that the run stands.
"""

import collections
import contextlib
import faulthandler
import itertools
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from imagenet_jax.hosts import store

STALLED = 75  # the exit code; in sysexits.h that of a failure after which one may try again
FLOOR, FACTOR = 600.0, 20.0  # a step may take so many seconds, or so many times the median of the last hundred
_REMEDY = ("The stacks of all threads are above, each host's in its own log. The same command goes on from the last "
           "checkpoint.")
_KNOWN = 3  # steps after which their median is known; until then there is patience
_SUSPECTED = 1 / 30  # of FLOOR, after which the others are asked, and again: a host that hangs is named before JAX
# aborts with a stack trace, within a minute when its network is gone, after 100 seconds without a sign of life
_ANSWERED_WITHIN = 10.0  # seconds in which a host says what it does, if it can


class Now(NamedTuple):
    """What the main thread does.

    what: in words. kind: 'step' or 'batch', of which the next one is due; '' for what has no usual duration: compiling,
    saving. since: when the last one was done, in seconds. after: which that was.
    """

    what: str
    kind: str
    since: float
    after: str = "the start"


_rounds = itertools.count()
_now = Now("nothing", "", 0.0)
_took: dict[str, collections.deque[float]] = collections.defaultdict(lambda: collections.deque(maxlen=100))


@contextlib.contextmanager
def watched(kind: str) -> Iterator[None]:
    """Ends all hosts with exit code STALLED and one message if no `kind` is done inside for far longer than usual."""
    global _now
    _took.clear()
    _now = Now(f"between two {kind}{'es' if kind == 'batch' else 's'}", kind, time.monotonic())
    over = threading.Event()
    threading.Thread(target=_watch, args=[over], name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def doing(what: str, kind: str | None = None) -> Iterator[None]:
    """Says what is done inside; kind: as in `Now`, None for a part of the same step or batch."""
    global _now
    before = _now
    _now = before._replace(what=what) if kind is None else Now(what, kind, time.monotonic(), before.after)
    try:
        yield
    finally:
        _now = before._replace(since=_now.since if kind is None else time.monotonic(), after=_now.after)


def passed(after: str) -> None:
    """Says that a step or a batch is done, and which."""
    global _now
    now = time.monotonic()
    _took[_now.kind].append(now - _now.since)
    _now = _now._replace(since=now, after=after)


def standing() -> str:
    """What this host does, for all of them."""
    return f"{_now.what}, after {_now.after}"


def dump_stacks() -> None:
    """Writes the stacks of all threads of Python to stderr."""
    with contextlib.suppress(Exception):
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)


def end(code: int, message: str = "") -> NoReturn:
    """Ends this process, whatever its main thread waits for."""
    with contextlib.suppress(Exception):
        if message:
            print(message, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _watch(over: threading.Event) -> None:
    tick, stood, asked, since = FLOOR / 120, 0.0, 0.0, 0.0
    while not over.wait(tick):
        now = _now
        if now.since != since:
            stood, asked, since = 0.0, 0.0, now.since
            continue
        stood += tick  # in which this process itself was stopped is not counted
        is_over = stood > _limit(now.kind)
        if is_over or (store.several() and stood - asked > _SUSPECTED * FLOOR):
            asked = stood
            _judge(f"nothing has gone on for {stood:.0f} s{_usual(now.kind)}", is_over)


def _limit(kind: str) -> float:
    """Seconds that may pass without any progress."""
    took = tuple(_took[kind])
    return max(FLOOR, FACTOR * statistics.median(took)) if kind and len(took) >= _KNOWN else store.PATIENCE


def _usual(kind: str) -> str:
    took = tuple(_took[kind])
    return f" (a {kind} takes {statistics.median(took):.2g} s as a rule)" if kind and took else ""


def _judge(stands: str, is_over: bool) -> None:
    """Ends all hosts if it is over or if one of them does not answer; this one alone, if they cannot be told."""
    found: list[str] = []
    if store.several():
        asking = threading.Thread(target=_ask, args=[stands, is_over, found], daemon=True)
        asking.start()
        asking.join(1.5 * _ANSWERED_WITHIN)
        if not asking.is_alive() and not found:
            return
        if not asking.is_alive():
            time.sleep(30)  # in which this process is ended
        found = found or [f"{stands}: {standing()}.\n  host 0: no answer; the process or its machine hangs"]
    dump_stacks()
    end(STALLED, f"error: {found[0] if found else f'{stands}: {standing()}.'}\n{_REMEDY}")


def _ask(stands: str, is_over: bool, found: list[str]) -> None:
    """Has all hosts end, if so, and appends to `found` what is said then."""
    question = f"stalled {store.index()} {next(_rounds)}"
    store.post(question)
    store.answer(question, standing())  # the thread that does it may wait for another host
    time.sleep(_ANSWERED_WITHIN)
    said: dict[str, list[int]] = collections.defaultdict(list)
    for host, words in store.answers(question).items():
        said[words].append(host)
    silent = set(range(store.count())) - {host for hosts in said.values() for host in hosts}
    if not silent and not is_over:
        return
    lines = [f"{store.these(hosts)}: {words}" for words, hosts in sorted(said.items(), key=lambda item: len(item[1]))]
    if silent:
        lines.insert(0, f"{store.these(silent)}: no answer; the process or its machine hangs")
    found.append("\n  ".join([f"{stands}:", *lines[:10]]))
    store.post(f"ended {STALLED} host {store.index()}: {found[0]}\n{_REMEDY}")
