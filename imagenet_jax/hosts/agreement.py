"""A question that every host asks equally often, and that all answer with yes at the same time."""

import functools
import threading

from imagenet_jax.hosts import store


class Agreement:
    """Whether some host wants something, such as to stop; all of them hear of it at the same call of `reached`.

    Every host calls `reached` equally often: after each step, before each batch. Who wants it posts that; then every
    host tells the others how often it has asked, and does not ask on until it knows of all. The next call that none
    has made yet is the one. That a host may be ahead by the steps in flight does no harm, and while nobody wants
    anything no call leaves the host. (JAX's own service for preemptions works so, but takes its notice from a signal
    handler that Python's replace, and knows of steps alone, which there are none of in an evaluation.)
    """

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        self._calls, self._points = 0, set()
        self._wanted = self._posted = False

    def want(self) -> None:
        """Asks all hosts for it; safe in a signal handler."""
        self._wanted = True

    def withdraw(self) -> None:
        """Wants it no longer, unless the others have been asked."""
        self._wanted = False

    def reached(self) -> bool:
        """Whether it is now, on every host."""
        if not store.several():
            wanted, self._wanted = self._wanted, False
            return wanted
        with self._lock:  # kept by the thread in `settle`
            is_coming = any(point > self._calls for point in self._points)
            if self._wanted and not self._posted and not is_coming:
                self._posted = True
                store.post(f"{self._name} {len(self._points)}")  # the same text from another host is the same wish
            self._calls += 1
            if self._calls not in self._points:
                return False
        self._wanted = self._posted = False
        return True

    @property
    def was_reached(self) -> bool:
        """Whether all hosts have heard of it."""
        return any(point <= self._calls for point in self._points)

    def settle(self) -> None:
        """Finds the call at which all hosts hear of it; called on each of them by the thread that reads the log."""
        with self._lock:
            self._points.add(max(store.gather(f"agreeing when to {self._name}", self._calls)) + 1)


@functools.cache
def agreement(name: str) -> Agreement:
    """The one agreement of a name ('stop', 'save') in this process."""
    return Agreement(name)
