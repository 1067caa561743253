"""Hosts become one run and part again: whoever leaves early tells the others why, and none is left waiting."""

import atexit
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import jax

from imagenet_jax.errors import UserError, out_of_memory
from imagenet_jax.hosts import meeting, store, watchdog
from imagenet_jax.hosts.agreement import agreement

_GRACE = 3.0  # seconds that a host has to say itself why it ends, once another one has
_ANSWERED = 0.5  # seconds for the answer to reach who departs; JAX aborts those who find the first host gone


@contextlib.contextmanager
def joined(*, coordinator: str = "", processes: int | None = None, process: int | None = None, detect: bool = False,
           seconds: float = 300) -> Iterator[None]:
    """Inside it JAX's devices are those of all hosts, if this process is one of several.

    Whatever ends one host inside ends all of them, within seconds and with one message.

    Args:
        coordinator, processes, process: 'HOST:PORT' of process 0, how many there are, and which this is; what is left
            out is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. Without any: a single host.
        detect: JAX finds out instead (TPU pods, GKE, Slurm, Open MPI).
        seconds: how long the others are waited for.

    Raises:
        UserError: it is not known who meets where, or somebody did not come; or another host ended inside.
    """
    place = meeting.place(coordinator, processes, process, detect, seconds)
    if place is None:
        yield
        return
    _start(place, seconds)
    watch = _Watch()
    try:
        yield
        watch.leave()
    except BaseException as error:
        if isinstance(error, SystemExit) and agreement("stop").was_reached:
            watch.leave()
            raise
        told = watch.give_up(error)
        if told is not error:
            raise told from error
        raise


def _start(place: meeting.Place, seconds: float) -> None:
    """Joins through JAX, once all are known to be there."""
    address = meeting.meet(place, seconds)
    # JAX ends the process with a stack trace where it does not come about; so it is ended before.
    message = f"error: all {place.processes} processes met at {place.coordinator}, but JAX did not join them in "
    timer = threading.Timer(seconds, watchdog.end, [2, f"{message}{seconds:.0f} s"])
    timer.daemon = True
    timer.start()
    jax.config.update("jax_enable_preemption_service", False)  # see Agreement
    jax.config.update("jax_check_proxy_envs", False)  # meeting.meet has seen to them
    try:
        jax.distributed.initialize(
            place.coordinator, place.processes, place.process, place.local_devices, "deactivate",
            initialization_timeout=int(seconds) + 60)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"could not join at {place.coordinator}: {error}") from error
    finally:
        timer.cancel()
    if jax.config.jax_cpu_collectives_implementation == "gloo":
        _exchange_at(address)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the others are told


def _exchange_at(address: str) -> None:
    """Has CPU devices meet those of other hosts at `address`; JAX takes the host's name, often that of 127.0.0.1.

    It has no public way to say so: a release that keeps these elsewhere takes the name.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src.lib import _jax
        from jax._src.xla_bridge import make_cpu_client, register_backend_factory

        register_backend_factory("cpu", lambda: make_cpu_client(_jax.make_gloo_tcp_collectives(
            store.distributed.global_state.client, hostname=address)), fail_quietly=False)


class _Watch:
    """Reads in a thread what hosts post to all, and ends this one when another has ended."""

    def __init__(self) -> None:
        self._left = self._telling = False
        self._ended: tuple[int, str] | None = None  # exit code and reason of the host that ended first
        self._thread = threading.Thread(target=self._read, name="hosts", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Parts from the others when all are done."""
        store.gather("the end of the run", None)
        if store.is_first():
            store.post("left")
        self._thread.join(_GRACE)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.distributed.shutdown()

    def give_up(self, error: BaseException) -> BaseException:
        """Tells the others why this host ends without them; returns what is to be raised."""
        self._telling = True
        if message := out_of_memory(error):
            error = UserError(message)
        elif isinstance(error, jax.errors.JaxRuntimeError):  # most likely what is seen here of another's end
            time.sleep(_GRACE)
            reason = self._ended[1] if self._ended else str(error).splitlines()[0][:300]
            error = UserError(f"lost the other hosts: {reason}\nThe same command on all hosts goes on from the last "
                              "checkpoint.")
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else \
            2 if isinstance(error, UserError | OSError) else 1
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            store.post(f"ended {code} host {store.index()}: {error if str(error) else type(error).__name__}")
        atexit.register(_depart, code)
        return error

    def _read(self) -> None:
        seen, title = set(), "ended by"
        try:
            for number in range(sys.maxsize):
                text = store.entry(number)
                word, _, rest = text.partition(" ")
                if word == "left":
                    return
                if word == "ended":
                    code, _, reason = rest.partition(" ")
                    self._ended = int(code), reason
                    break
                if word == "stalled" and text not in seen:
                    seen.add(text)
                    store.answer(text, watchdog.standing())
                if text not in seen:  # several may have asked for the same
                    seen.add(text)
                    agreement(word).settle()
        except Exception as error:
            self._ended, title = (1, str(error).splitlines()[0]), "lost the other hosts:"
        time.sleep(_GRACE)
        code, reason = self._ended
        if code == watchdog.STALLED:
            watchdog.dump_stacks()
        _depart(code, "" if self._telling else f"error: {title} {reason}")


def _depart(code: int, message: str = "") -> NoReturn:
    """Ends this process; the first host ends last, for without it the others could not even read why."""
    with contextlib.suppress(Exception):
        client = store.distributed.global_state.client
        if store.is_first():  # in two threads perhaps, neither of which may end before the others have
            deadline = time.monotonic() + 2 * _GRACE
            for host in range(1, store.count()):
                client.blocking_key_value_get(f"departed/{host}", max(1, int((deadline - time.monotonic()) * 1000)))
            time.sleep(_ANSWERED)
        else:
            client.key_value_set(f"departed/{store.index()}", "")
    watchdog.end(code, message)
