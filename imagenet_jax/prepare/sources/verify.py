"""Whether archives are the official files: checksums, once; what was found out is remembered for a resumed run."""

import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from imagenet_jax import durable
from imagenet_jax.errors import UserError
from imagenet_jax.prepare.sources.tars import readable


class Published(NamedTuple):
    """An official file; size in bytes, None where it is not published to the byte."""

    algorithm: str
    digest: str
    size: int | None = None


# sha256 and sizes: TFDS's url_checksums of imagenet2012. md5: image-net.org's download pages; the devkit's is also
# torchvision's ARCHIVE_META.
PUBLISHED = {
    "ILSVRC2012_img_train.tar": Published(
        "sha256", "b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb", 147897477120),
    "ILSVRC2012_img_val.tar": Published(
        "sha256", "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0", 6744924160),
    "ILSVRC2012_devkit_t12.tar.gz": Published("md5", "fa75699e90414af021442c21a62c3abf"),
    "ILSVRC2012_bbox_train_v2.tar.gz": Published("md5", "9271167e2176350e65cfe4e546f14b17"),
    "ILSVRC2012_bbox_val_v3.tgz": Published("md5", "f4cd18b5ea29fe6bbea62ec9c20d80f0"),
    "winter21_whole.tar.gz": Published("md5", "ab313ce03179fd803a401b02c651c0a2"),
}


def claims(path: Path, full_release: bool) -> bool:
    """Whether a file has to be the official one: its neighbours state the full release, or its size is the official."""
    official = PUBLISHED.get(path.name)
    return official is not None and (full_release or path.stat().st_size == official.size)


def verify(paths: Iterable[Path], full_release: bool, memory: Path | None) -> list[str]:
    """Compares every archive that claims to be an official file with its published checksum.

    Args:
        paths: archives; those that make no such claim pass.
        full_release: what came with them states all of the release's classes and images.
        memory: a directory; an archive found right is not read again while its size and time stay. None remembers
            nothing.

    Returns:
        The names of the files that were compared.

    Raises:
        UserError: a file is not the one it claims to be.
    """
    claimed = [path for path in paths if claims(path, full_release)]
    for path in claimed:  # all sizes first: they cost nothing
        official, size = PUBLISHED[path.name], path.stat().st_size
        if official.size not in (None, size):
            raise UserError(f"{path} has {size:,} bytes, the official file {official.size:,}: "
                            f"{_ADVICE}")
    for path in claimed:
        official = PUBLISHED[path.name]
        found = remembered(memory, f"{official.algorithm} of {path.name}", path,
                           functools.partial(checksum, path, official.algorithm))
        if found != official.digest:
            raise UserError(f"{path} has the {official.algorithm} {found}, the official file {official.digest}: "
                            f"{_ADVICE}")
    return [path.name for path in claimed]


_ADVICE = "download it again, or use it all the same with --nochecksum."


def checksum(path: Path, algorithm: str) -> str:
    """The hex digest of a file, under a progress bar."""
    hasher, buffer = hashlib.new(algorithm), memoryview(bytearray(2**22))
    with readable(path), open(path, "rb", buffering=0) as file, tqdm(
            total=path.stat().st_size, desc=f"{algorithm} of {path.name}", unit="B", unit_scale=True,
            disable=None, leave=False) as bar:
        if not sys.stderr.isatty() and path.stat().st_size > 2**30:
            print(f"{algorithm} of {path.name} ...", flush=True)
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            bar.update(count)
    return hasher.hexdigest()


def remembered(memory: Path | None, what: str, path: Path, find_out: Callable[[], Any]) -> Any:
    """What `find_out` returns of the file at `path` (JSON), or what it returned before the file last changed."""
    if memory is None:
        return find_out()
    note, stamp = memory / f"{what}.note", [path.stat().st_size, path.stat().st_mtime_ns]
    try:
        known = json.loads(note.read_text())
        if known["of"] == stamp:
            return known["found"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = find_out()
    with contextlib.suppress(OSError):  # what cannot be kept is found out again
        memory.mkdir(parents=True, exist_ok=True)
        with durable.create(note) as file:
            json.dump({"of": stamp, "found": found}, file)
    return found
