"""`prepare` as it is typed: what it prints, leaves, and says when it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from imagenet_jax import dataset


def _prepare(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagenet_jax", "prepare", *flags]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for split in ("train", "val"):
        for cls in ("cat", "dog"):
            (root / split / cls).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 6), (i, 0, 0)).save(root / split / cls / f"{i}.jpg")
    (root / "train/cat/0.jpg").write_bytes(b"no image")
    return root


def test_folders_to_dataset(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "My-Pets"
    ran = _prepare(f"--images={images}", f"--out={out}", "--workers=2")
    assert ran.returncode == 2
    assert "1 images of 'train' cannot be used" in ran.stderr
    assert not out.exists()
    ran = _prepare(f"--images={images}", f"--out={out}", "--max_quarantined=20%")
    assert ran.returncode == 0, ran.stderr
    columns, train, validation = (line.split() for line in ran.stdout.splitlines()[1:4])
    assert ran.stdout.startswith(f"source: class folders in split folders, {images}, 2 classes; images are decoded\n")
    row = dict(zip(columns, train, strict=True))
    assert (row["split"], row["examples"], row["classes"]) == ("train", "5", "2")
    assert row["quarantined"] == "1"
    assert validation[:2] == ["validation", "6"]
    assert str(out / "quarantine.jsonl") in ran.stdout
    opened = dataset.open_dataset(out)
    assert (opened.name, opened.splits) == ("my_pets", {"train": 5, "validation": 6})


def test_options_of_folders(images: Path, tmp_path: Path) -> None:
    """The same images without split folders: classes and holdout as asked, and what is left out is told."""
    root, out = images / "train", tmp_path / "pets_again"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (8, 6)).save(root / "cat/0.jpg", exif=exif)
    Image.new("RGB", (8, 6)).save(root / "cat/1.jpg", exif=exif.tobytes()[:-6])  # Pillow warns of it
    (root / "cat/notes.txt").touch()
    (tmp_path / "classes.txt").write_text("n00000001 dog, true dog\nn00000002 cat\n")
    ran = _prepare(f"--images={root}", f"--out={out}", f"--classes={tmp_path / 'classes.txt'}", "--holdout=30%",
                   "--apply_exif", "--workers=2", "--verify=header")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"source: class folders, {root}, 2 classes; images are judged by their headers\n")
    assert "left out: 1 .txt, for example cat/notes.txt\n" in ran.stdout
    assert "| .txt | 1 | cat/notes.txt |" in " ".join((out / "report.md").read_text().split())
    assert "turned by EXIF orientation 6" in (out / "repairs.jsonl").read_text()
    opened = dataset.open_dataset(out)
    assert (opened.classes, opened.class_names) == (("n00000001", "n00000002"), ("dog, true dog", "cat"))
    assert opened.splits == {"train": 4, "validation": 2}


def test_mistakes_end_with_one_message_and_2(images: Path, tmp_path: Path) -> None:
    for flags, message in (
        ([f"--images={images}"], "needs --out=DIR"),
        ([f"--images={images}", f"--archives={images}", "--out=x"], "one of --archives"),
        ([f"--images={images}", "--out=x", "--holdout=100%"], "leave nothing to train on"),
        ([f"--images={images}", "--out=gs://bucket/pets"], "then copy it with `gcloud storage cp -r DIR"),
        ([f"--archives={images}", f"--out={tmp_path / 'x'}"], "in no layout that is read here; it holds train, val"),
    ):
        ran = _prepare(*flags)
        assert ran.returncode == 2
        assert message in ran.stderr
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "x").exists()
