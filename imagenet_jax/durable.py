"""Files that are there whole, or not at all, also after the power failed: written aside, synced, then renamed."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import IO, Any

import google_crc32c


@contextlib.contextmanager
def create(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that appears under its name, in the place of another perhaps, once all of it is on disk.

    mode: 'w', UTF-8, or 'wb'.
    """
    with partial(path) as aside, open(aside, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


@contextlib.contextmanager
def partial(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yields the name under which whoever wants to writes a file; without an error it is then synced and renamed."""
    path = os.fspath(path)
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)


@contextlib.contextmanager
def folder(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yields an empty folder to put files in; without an error they are then synced, and it takes its name.

    path: its name, of nothing or of an empty folder.
    """
    aside = f"{os.fspath(path)}.{os.getpid()}.tmp"
    os.makedirs(aside)
    try:
        yield aside
        for name in (*os.listdir(aside), "."):
            sync(os.path.join(aside, name))
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def seal(content: Mapping[str, Any]) -> str:
    """The CRC32-C of what JSON can hold: whether it is what was written."""
    return f"{google_crc32c.value(json.dumps(content, sort_keys=True).encode()):08x}"


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
