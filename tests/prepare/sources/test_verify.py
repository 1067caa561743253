"""Checksums: asked only of what claims to be an official file, and only once."""

import hashlib
from pathlib import Path

import ilsvrc
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import DEFAULTS
from imagenet_jax.prepare.sources import archives, verify

_BYTES = b"not the archive"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of an official name and of the size published for it."""
    path = tmp_path / ilsvrc.VAL
    path.write_bytes(_BYTES)
    right = verify.Published("sha256", hashlib.sha256(_BYTES).hexdigest(), len(_BYTES))
    monkeypatch.setattr(verify, "PUBLISHED", {ilsvrc.VAL: right})
    return path


def test_a_file_of_the_official_size_must_be_the_official_file(archive: Path, tmp_path: Path) -> None:
    assert verify.verify([archive], False, tmp_path / "memory") == [ilsvrc.VAL]
    archive.write_bytes(_BYTES[::-1])
    with pytest.raises(UserError, match="has the sha256 .*, the official file .*--nochecksum"):
        verify.verify([archive], False, tmp_path / "memory")
    archive.write_bytes(_BYTES + b"!")
    assert verify.verify([archive], False, None) == []
    with pytest.raises(UserError, match="has 16 bytes, the official file 15"):
        verify.verify([archive], True, None)


def test_what_was_found_right_is_not_read_again(archive: Path, tmp_path: Path, monkeypatch) -> None:
    verify.verify([archive], False, tmp_path)
    monkeypatch.setattr(verify, "checksum", lambda path, algorithm: pytest.fail("read again"))
    verify.verify([archive], False, tmp_path)


def test_a_devkit_of_the_full_release_asks_for_official_archives(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "_FULL", (len(ilsvrc.WNIDS), len(ilsvrc.TRUTH)))
    folder = ilsvrc.write(tmp_path)
    with pytest.raises(UserError, match="img_train.tar has .* bytes, the official file 147,897,477,120"):
        archives.open_archives(folder, "tiny")
    archives.open_archives(folder, "tiny", DEFAULTS._replace(checksum=False))


def test_images_of_official_archives_are_known(tmp_path: Path, monkeypatch) -> None:
    folder = ilsvrc.write(tmp_path)
    assert not archives.open_archives(folder, "tiny").official
    right = {name: verify.Published("sha256", hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                                    (folder / name).stat().st_size) for name in (ilsvrc.TRAIN, ilsvrc.VAL)}
    monkeypatch.setattr(verify, "PUBLISHED", right)
    assert archives.open_archives(folder, "tiny").official
    assert not archives.open_archives(folder, "tiny", DEFAULTS._replace(checksum=False)).official
