"""Tars read where they lie: references to their members, in a memory that does not grow with them."""

import contextlib
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Example, Reference

MAX_IMAGE_BYTES = 2**28  # the largest file of ImageNet-21k is a tenth of it
DUPLICATE = "duplicate member: an earlier one has the same name"


class _Header(tarfile.TarInfo):
    """A header, or the mark of an end: tarfile takes a damaged header, and no more bytes, for an end as well."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.EmptyHeaderError as error:
            raise tarfile.ReadError("its end is missing (should that be all, `head -c 1024 /dev/zero >> FILE` "
                                    "adds one)") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset:,}") from error


def opened(path: Path | None = None, mode: str = "r:", **options: Any) -> tarfile.TarFile:
    """A tar whose reading fails where it is damaged, anywhere up to its end."""
    return tarfile.open(path, mode, tarinfo=_Header, **options)


def members(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files of a tar with the last part of their names."""
    return ((posixpath.basename(name), member) for name, member in paths(tar))


def paths(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files of a tar with their whole names, of which nothing is ever opened or written."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # tarfile would keep all 14 million headers
        if member.isfile():
            yield member.name, member


def references(path: Path, tar: tarfile.TarFile, start: int = 0, whole: bool = False) -> Iterator[Reference]:
    """A reference to each file of an uncompressed tar that starts at byte `start` of `path`; labels are -1.

    Its name is the last part of the member's, or the `whole` of it.
    """
    names = set()
    for name, member in paths(tar) if whole else members(tar):
        yield Reference(str(path), start + member.offset_data, member.size, -1, name,
                        fault=DUPLICATE if name in names else fault(member))
        names.add(name)


def inner_tar(outer: tarfile.TarFile, member: tarfile.TarInfo, mode: str = "r:") -> tarfile.TarFile:
    """Opens a tar within a tar; mode 'r|' where the outer one is a stream."""
    return opened(mode=mode, fileobj=outer.extractfile(member))


def streamed(tar: tarfile.TarFile) -> Iterator[Example | Reference]:
    """The files of a tar that can be read but once, with their bytes; labels are -1."""
    names = set()
    for name, member in members(tar):
        why = DUPLICATE if name in names else fault(member)
        names.add(name)
        yield Reference("", 0, 0, -1, name, fault=why) if why else Example(tar.extractfile(member).read(), -1, name)


def printable(name: str) -> str:
    """A name with the bytes escaped that are no UTF-8, so that it can be printed and written."""
    return name.encode(errors="backslashreplace").decode()


def some(names: Iterable[str]) -> str:
    """The first few of many names."""
    listed = sorted(map(printable, names))
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


@contextlib.contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Turns what goes wrong in reading an archive into a UserError that names it."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read to its end: {error}. It is damaged, cut short, or no archive "
                        "of this kind; download it again.") from error


def fault(member: tarfile.TarInfo) -> str:
    """Why a member is not even read, or nothing."""
    return f"{member.size:,} bytes are no image" if member.size > MAX_IMAGE_BYTES else ""
