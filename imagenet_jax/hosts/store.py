"""What hosts tell each other: short texts in the store of JAX's coordinator. No device takes part or is waited for."""

import collections
import itertools
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax._src import distributed  # the store has no public door; Orbax and multihost_utils come this way, too

from imagenet_jax.errors import UserError

PATIENCE = 1800.0  # seconds for which a host that is alive is waited for: reading weights, writing a report
_asked: collections.Counter[str] = collections.Counter()


def several() -> bool:
    """Whether this host has joined others."""
    return count() > 1


def count() -> int:
    """How many hosts there are."""
    return distributed.global_state.num_processes


def index() -> int:
    """Which of them this one is, from 0."""
    return distributed.global_state.process_id


def is_first() -> bool:
    """Whether this is the host that decides, writes and prints; a single one is."""
    return index() == 0


def gather(what: str, value: Any, seconds: float = PATIENCE) -> list[Any]:
    """What every host has to say, by host; all of them call this, and none returns before the last one has.

    Args:
        what: the question in words, for a host that waits in vain.
        value: what JSON can hold.
        seconds: how long the others are waited for.

    Raises:
        UserError: some hosts did not come; names them.
    """
    if not several():
        return [value]
    client, key = distributed.global_state.client, _numbered(what)
    client.key_value_set(f"{key}/{index()}", json.dumps(value))
    begun = time.monotonic()
    try:
        client.wait_at_barrier(key.replace("/", "_"), int(seconds * 1000))
    except jax.errors.JaxRuntimeError as error:
        late = set(range(count())) - _by_host(client.key_value_dir_get(f"{key}/")).keys()
        raise UserError(f"{these(late)} did not come to {what} within {time.monotonic() - begun:.0f} s. See what is "
                        "said there, and start all hosts again.") from error
    return [value for _, value in sorted(_by_host(client.key_value_dir_get(f"{key}/")).items())]


def from_first(what: str, make: Callable[[], Any]) -> Any:
    """What make() returns on the first host, everywhere; JSON must hold it. Only the first host calls make.

    Raises:
        UserError: the first host does not say it.
    """
    if not several():
        return make()
    client, key = distributed.global_state.client, _numbered(what)
    if is_first():
        value = make()
        client.key_value_set(key, json.dumps(value))
        return value
    try:
        return json.loads(client.blocking_key_value_get(key, int(PATIENCE * 1000)))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"host 0 did not say {what} within {PATIENCE:.0f} s. See what is said there, and start all "
                        "hosts again.") from error


def these(hosts: Iterable[int]) -> str:
    """'host 1', 'hosts 1, 3': no more than ten of them."""
    hosts = sorted(hosts)
    more = f" and {len(hosts) - 10} more" if len(hosts) > 10 else ""
    return f"host{'s' if len(hosts) > 1 else ''} {', '.join(map(str, hosts[:10]))}{more}"


def post(text: str) -> None:
    """Puts one more entry into the log that all hosts read in the same order."""
    for number in itertools.count():
        try:
            distributed.global_state.client.key_value_set(f"log/{number}", text)
            return
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise


def entry(number: int) -> str:
    """The entry of the log with this number, as soon as it is there."""
    while True:
        try:
            return distributed.global_state.client.blocking_key_value_get(f"log/{number}", 3600_000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def answer(question: str, text: str) -> None:
    """Answers a question that was posted; nobody waits for it."""
    distributed.global_state.client.key_value_set(f"{question}/{index()}", json.dumps(text), allow_overwrite=True)


def answers(question: str) -> dict[int, str]:
    """What was answered so far, by host."""
    return _by_host(distributed.global_state.client.key_value_dir_get(f"{question}/"))


def _numbered(what: str) -> str:
    """A key of its own for every time a question is asked; all hosts ask in the same order."""
    _asked[what] += 1
    return f"{what}/{_asked[what]}"


def _by_host(pairs: list[tuple[str, str]]) -> dict[int, Any]:
    return {int(key.rpartition("/")[2]): json.loads(text) for key, text in pairs}
