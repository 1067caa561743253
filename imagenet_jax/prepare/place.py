"""Where a dataset is made, and how it takes its name when it is complete.

While it is being made, a dataset lies in

    OUT.incomplete/
        dataset/    what will be OUT
        work/       a sidecar for each finished shard, bytes of archives that cannot be sought in

and is renamed at the end. Where OUT is a directory that cannot be renamed over, such as a mount point, the same lies
in OUT/.incomplete, and the files are moved up, last of all those without which nothing is a dataset.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from imagenet_jax import durable
from imagenet_jax.dataset.places import local_folder
from imagenet_jax.dataset.prepared import INDEX
from imagenet_jax.errors import UserError

_INSIDE = ".incomplete"
_LAST = ["", "dataset_info.json", INDEX]  # either makes a directory a dataset, to TFDS or to us
_MOVED = "moved"
_NOT_OURS = {_INSIDE, "lost+found"}  # the latter is in every new ext file system


class Place(NamedTuple):
    """Where a dataset is made: its final place, and what becomes it."""

    target: Path
    dataset: Path
    work: Path


def make_place(directory: str | os.PathLike[str]) -> Place:
    """Where the dataset `directory` is made; leftovers beside a finished one are removed.

    Raises:
        UserError: the place is taken, or cannot be written.
    """
    target = local_folder(directory, "out")
    beside, inside = target.with_name(target.name + ".incomplete"), target / _INSIDE
    if (target / INDEX).exists():
        for partial in (beside, inside):
            shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{target} already holds a dataset. Use it as it is, or remove it, or choose another "
                        "place; it was not touched.")
    if target.exists() and (not target.is_dir() or set(os.listdir(target)) - _NOT_OURS - _moved(inside)):
        raise UserError(f"{target} exists and is not an empty directory. Choose another place.")
    try:
        partial = beside if _can_be_renamed(beside, target) else inside
        _write_and_remove(partial)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}. Choose another place for --out, or "
                        "have the right to write there first.") from error
    return Place(target, partial / "dataset", partial / "work")


def _can_be_renamed(beside: Path, target: Path) -> bool:
    """Tries with an empty directory; False where the target is a directory to be filled instead."""
    if (target / _INSIDE).exists():
        return False
    try:
        beside.mkdir(parents=True, exist_ok=True)
        trial = beside / "trial"
        trial.mkdir(exist_ok=True)
        existed = target.exists()
        os.replace(trial, target)
        if not existed:
            target.rmdir()
        return True
    except OSError:
        if not target.is_dir():
            raise
        return False
    finally:
        _remove_empty(beside / "trial", beside)


def _write_and_remove(partial: Path) -> None:
    existed = partial.exists()
    partial.mkdir(parents=True, exist_ok=True)
    (partial / "trial").touch()
    (partial / "trial").unlink()
    if not existed:
        partial.rmdir()


def _remove_empty(*directories: Path) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):  # it is not there, or not empty
            directory.rmdir()


@contextlib.contextmanager
def claimed(place: Place) -> Iterator[None]:
    """Makes the directories and keeps a second run out of them.

    Raises:
        UserError: another process is writing there.
        OSError: they cannot be written.
    """
    place.dataset.mkdir(parents=True, exist_ok=True)
    place.work.mkdir(exist_ok=True)
    with open(place.work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another process is writing {place.target}; let it finish or end it.") from error
        for pattern in ("*.tmp", "*.spool"):  # of a run that was killed
            for path in place.work.glob(pattern):
                path.unlink()
        for name in _moved(place.work.parent):  # by a run that was killed before it had moved them all
            if (place.target / name).exists():
                os.replace(place.target / name, place.dataset / name)
        yield


def take_name(place: Place) -> None:
    """Gives the finished dataset, once it is on disk, its name."""
    for path in (*place.dataset.iterdir(), place.dataset):
        durable.sync(path)
    if place.work.parent.parent == place.target:
        names = sorted(os.listdir(place.dataset), key=lambda name: _LAST.index(name) if name in _LAST else 0)
        (place.work.parent / _MOVED).write_text("\n".join(names))
        for name in names:
            os.replace(place.dataset / name, place.target / name)
    else:
        os.replace(place.dataset, place.target)
    shutil.rmtree(place.work.parent)


def _moved(partial: Path) -> set[str]:
    """The files that a run moved, or was about to move, out of a directory; nobody else's are touched."""
    try:
        return set((partial / _MOVED).read_text().split("\n"))
    except OSError:
        return set()


def lacking(place: Place, size: int) -> str:
    """What to say where a dataset of `size` bytes may not fit beside what is done of it; empty where it does."""
    free = shutil.disk_usage(next(path for path in (place.dataset, *place.dataset.parents) if path.exists())).free
    done = sum(path.stat().st_size for path in place.dataset.glob("*"))
    if size - done <= free:
        return ""
    return (f"The disk of {place.target} may be too small: about {(size - done) / 1e9:.3g} GB are still to be "
            f"written, and {free / 1e9:.3g} GB are free. If it fills up, make room and run the same command again.")
