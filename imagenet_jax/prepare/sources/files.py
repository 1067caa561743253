"""Images in folders, told by content, and what else lies there."""

import functools
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Options, Reference
from imagenet_jax.prepare.formats import ENDINGS, HEAD, is_hidden, is_image
from imagenet_jax.prepare.sources.tars import printable, some


def images(folder: Path | str, below: str = "", left_out: list[str] | None = None) -> Iterator[Reference]:
    """A reference to each image in a folder and its subfolders, sorted; labels are -1.

    Args:
        below: what file names begin with, "CLASS/" perhaps.
        left_out: takes the names of all other files, and of hidden folders; None where they were noted before.

    Raises:
        UserError: a folder cannot be read.
    """
    for entry in listed(folder):
        name = below + entry.name
        if not is_hidden(entry.name) and entry.is_dir():
            if not _is_loop(entry):
                yield from images(entry.path, f"{name}/", left_out)
                continue
        elif reference := _reference(entry, name):
            yield reference
            continue
        if left_out is not None:
            left_out.append(name + "/" * entry.is_dir())


def listed(folder: Path | str) -> list[os.DirEntry]:
    """What a folder holds, by name.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def subfolders(folder: Path, left_out: list[str] | None = None, below: str = "") -> dict[str, Path]:
    """The folders in a folder by name, hidden ones aside; files between them go to `left_out`."""
    found = {}
    for entry in listed(folder):
        if entry.is_dir() and not is_hidden(entry.name):
            found[entry.name] = Path(entry.path)
        elif left_out is not None:
            left_out.append(below + entry.name + "/" * entry.is_dir())
    return found


def referred(path: str, name: str) -> Reference:
    """A reference to a whole file, with a fault if there is none; its label is -1."""
    try:
        status = os.stat(path)
    except OSError as error:  # a link that leads nowhere
        return Reference("", 0, 0, -1, name, fault=str(error.strerror))
    except ValueError:  # a NUL
        return Reference("", 0, 0, -1, name, fault="no name of a file")
    if not stat.S_ISREG(status.st_mode):
        return Reference("", 0, 0, -1, name, fault="not a file")
    return Reference(path, 0, status.st_size, -1, name)


def measure(references: Iterable[Reference]) -> tuple[int, int]:
    """Number and bytes of files."""
    sizes = [reference.size for reference in references]
    return len(sizes), sum(sizes)


def by_ending(names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """How many names there are of each ending, and the first of them; as a Source tells what it leaves out."""
    found: dict[str, tuple[int, str]] = {}
    for name in names:
        path = PurePosixPath(name)
        ending = "hidden" if is_hidden(path.name) else "folder" if name.endswith("/") else path.suffix.lower() or "none"
        count, first = found.get(ending, (0, printable(name)))
        found[ending] = (count + 1, first)
    return found


def together(parts: Iterable[Mapping[str, tuple[int, str]]]) -> dict[str, tuple[int, str]]:
    """What `by_ending` says of several places, as of one."""
    found: dict[str, tuple[int, str]] = {}
    for part in parts:
        for ending, (count, first) in part.items():
            before, example = found.get(ending, (0, first))
            found[ending] = (before + count, example)
    return found


def held_out(names: Iterable[str], options: Options) -> set[str]:
    """Which files of a class a holdout takes: by the seed and their names, so that others may come and go."""
    if not options.holdout:
        return set()
    ranked = sorted(names, key=lambda name: hashlib.blake2b(f"{options.seed}/{ascii(name)}".encode()).digest())
    return set(ranked[:held_count(len(ranked), options.holdout)])


def held_count(count: int, share: float) -> int:
    """How many of a class's files a holdout takes: at least one, and never all."""
    return min(max(round(count * share), 1), count - 1)


def refuse_holdout_beside(where: Path, splits: Iterable[str]) -> None:
    """Raises UserError where a holdout would come beside a validation split, or has no train to be cut from."""
    if "validation" in splits or "train" not in splits:
        raise UserError(f"--holdout cuts a validation split from train; {where} has {some(splits)} already. Leave it "
                        "out.")


def _reference(entry: os.DirEntry, name: str) -> Reference | None:
    """A reference if the entry is an image, or a link so named that leads nowhere."""
    if is_hidden(entry.name) or not (entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))):
        return None
    if entry.name.lower().endswith(ENDINGS) or _begins_as_image(entry.path):
        return referred(entry.path, name)
    return None


@functools.cache
def _begins_as_image(path: str) -> bool:
    """Remembered, as folders are listed once to count and once to read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return is_image(file.read(HEAD))
    except OSError:
        return False


def _is_loop(entry: os.DirEntry) -> bool:
    """Whether a folder is a link to one that it lies in."""
    real = os.path.realpath(entry.path) if entry.is_symlink() else ""
    return bool(real) and os.path.join(os.path.realpath(os.path.dirname(entry.path)), "").startswith(
        os.path.join(real, ""))
