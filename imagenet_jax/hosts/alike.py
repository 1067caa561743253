"""Before anything is computed: the hosts run the same program with the same choices, and see the same workdir."""

import contextlib
import os
import pathlib
import secrets
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from imagenet_jax.errors import UserError
from imagenet_jax.hosts import store

_SEEN_WITHIN = 5.0  # seconds, in which a file written elsewhere shows up on NFS


def of_this_host() -> dict[str, str]:
    """What must be alike on all hosts whatever they do."""
    sources = sorted(pathlib.Path(__file__).parents[1].rglob("*.py"))
    crc = 0
    for path in sources:
        crc = zlib.crc32(path.read_bytes(), crc)
    devices = jax.local_devices()
    return {"the version of jax": jax.__version__, "the code of imagenet_jax (CRC)": f"{crc:08x}",
            "its devices": f"{len(devices)} x {devices[0].device_kind}"}


def check_alike(what: str, facts: Mapping[str, Any]) -> None:
    """Raises the same UserError on all hosts if the facts (what JSON can hold) of one differ from the first's."""
    if not store.several():
        return
    mine = {name: str(value) for name, value in facts.items()}
    firsts = store.from_first(what, lambda: mine)
    different = [f"{name}: {mine.get(name, 'none')}, but {firsts.get(name, 'none')} on host 0"
                 for name in sorted(mine.keys() | firsts.keys()) if mine.get(name) != firsts.get(name)]
    _tell(f"the hosts differ in {what}", store.gather(f"comparing {what}", different[:20]),
          "Start all of them with the same command, code and configs.")


def check_shared(directory: str) -> None:
    """Raises the same UserError on all hosts if one does not see in `directory` what the first one writes there."""
    if not store.several():
        return
    token = store.from_first("the name of a file", lambda: f".seen_by_all_{secrets.token_hex(8)}")
    path, made = os.path.join(directory, token), False
    store.gather("looking at the workdir", None)
    if store.is_first():
        made = not os.path.isdir(directory)
        os.makedirs(directory, exist_ok=True)
        pathlib.Path(path).touch()
    store.from_first("that the file is written", lambda: True)
    seen = shows_up(lambda: os.path.exists(path))
    missing = [] if seen else [f"{os.path.abspath(directory)} is not the directory that host 0 sees there"]
    try:
        _tell("the workdir is not shared", store.gather("looking into the workdir", missing),
              "It must be one directory that all hosts share, such as on NFS: they all resume from its checkpoints.")
    finally:
        if store.is_first():
            os.remove(path)
            if made:
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def shows_up(is_there: Callable[[], bool]) -> bool:
    """Whether something that another host wrote is there, or soon comes to be."""
    deadline = time.monotonic() + _SEEN_WITHIN
    while not is_there():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _tell(title: str, problems: list[list[str]], remedy: str) -> None:
    """Raises what the hosts found wrong, by host."""
    wrong = {host: found for host, found in enumerate(problems) if found}
    if not wrong:
        return
    lines = [f"  host {host}: {line}" for host, found in list(wrong.items())[:10] for line in found]
    raise UserError("\n".join([f"{title} ({store.these(wrong)}):", *lines, remedy]))
