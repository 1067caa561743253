"""Where a dataset is made: links, mount points, buckets, and places that cannot be written."""

import errno
import os
from pathlib import Path

import ilsvrc
import pytest

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.prepare import place, writer
from imagenet_jax.prepare.writer import Example, Source


def _write(directory: Path | str, count: int = 4) -> None:
    examples = [Example(ilsvrc.jpeg(i), 0, f"{i}.JPEG") for i in range(count)]
    writer.write_dataset(directory, Source("tiny", ("a",), ("ant",), {"train": examples}), shard_bytes=2_000)


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that cannot be renamed over, as a mount point is."""
    target = tmp_path / "mount"
    (target / "lost+found").mkdir(parents=True)
    replace = os.replace

    def refuse(source: Path, to: Path) -> None:
        if Path(to) == target:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        replace(source, to)

    monkeypatch.setattr(os, "replace", refuse)
    return target


def test_a_mount_point_is_filled(mount: Path, tmp_path: Path) -> None:
    _write(mount)
    assert dataset.open_dataset(mount).splits == {"train": 4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mount"]
    _write(tmp_path / "plain")
    assert {path.name for path in mount.iterdir()} == {path.name for path in (tmp_path / "plain").iterdir()} | {
        "lost+found"}
    with pytest.raises(UserError, match="already holds a dataset"):
        _write(mount)


def test_killed_while_it_fills_a_mount_point_it_goes_on(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, info = os.replace, mount / "dataset_info.json"

    def die(source: Path, to: Path) -> None:
        if Path(to) == info:
            raise KeyboardInterrupt
        replace(source, to)

    with monkeypatch.context() as dying:
        dying.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            _write(mount)
    shard = mount / "tiny-train.array_record-00000"
    before = shard.stat().st_mtime_ns
    with pytest.raises(UserError, match="not a prepared dataset"):
        dataset.open_dataset(mount)
    (mount / "notes.txt").touch()
    with pytest.raises(UserError, match="is not an empty directory"):
        _write(mount)
    (mount / "notes.txt").unlink()
    _write(mount)
    assert dataset.open_dataset(mount).splits == {"train": 4}
    assert shard.stat().st_mtime_ns == before


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    real, link = tmp_path / "other" / "real", tmp_path / "link"
    real.parent.mkdir()
    if there:
        real.mkdir()
    link.symlink_to(real)
    _write(link)
    assert link.is_symlink()
    assert dataset.open_dataset(real).splits == {"train": 4}
    assert [path.name for path in real.parent.iterdir()] == ["real"]


def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as refusing:
        refusing.setattr(os, "replace", refuse)
        with pytest.raises(UserError, match="out cannot be written: Permission denied. Choose another place"):
            place.make_place(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        place.make_place(tmp_path / "file" / "out")


@pytest.mark.parametrize("address", ["gs://bucket/imagenet", "gs:/bucket/imagenet", "s3://bucket/imagenet"])
def test_a_bucket_is_no_folder(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="write to a local one, then copy it with `(gcloud storage cp -r|aws s3 cp)"):
        place.make_place(address)
    assert not list(tmp_path.iterdir())


def test_a_small_disk_is_told(tmp_path: Path) -> None:
    made = place.make_place(tmp_path / "out")
    assert place.lacking(made, 10_000) == ""
    assert "make room" in place.lacking(made, 10**18)
