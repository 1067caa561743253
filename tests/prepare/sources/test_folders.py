"""Class folders, with splits and without: what is taken, how it is labelled, and what is said of the rest."""

import os
from collections.abc import Mapping
from pathlib import Path

import ilsvrc
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.prepare import card
from imagenet_jax.prepare.examples import DEFAULTS, Options, Source
from imagenet_jax.prepare.shard import load
from imagenet_jax.prepare.sources import layouts


def _write(root: Path, *names: str) -> Path:
    """A file for each name, with a JPEG of its own."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ilsvrc.jpeg(i))
    return root


def _open(root: Path, options: Options = DEFAULTS) -> Source:
    return layouts.open_source(layouts.IMAGES, str(root), "pets", options)


def _labels(source: Source) -> dict[str, Mapping[str, int]]:
    return {split: {item.file_name: item.label for item in items} for split, items in source.splits.items()}


def test_split_folders(tmp_path: Path) -> None:
    names = ("train/dog/b.jpg", "train/dog/a.JPEG", "train/cat/a.png")
    source = _open(_write(tmp_path, *names, "val/dog/c.jpeg"))
    assert (source.layout, source.classes) == ("class folders in split folders", ("cat", "dog"))
    assert source.class_names == source.classes
    examples = [(example.label, example.file_name, example.image) for _, example in load(source.splits["train"])]
    assert examples == [(0, "cat/a.png", ilsvrc.jpeg(2)), (1, "dog/a.JPEG", ilsvrc.jpeg(1)),
                        (1, "dog/b.jpg", ilsvrc.jpeg(0))]
    assert [(item.label, item.file_name) for item in source.splits["validation"]] == [(1, "dog/c.jpeg")]
    assert (source.totals, source.left_out) == ({"train": 3, "validation": 1}, {})


@pytest.mark.parametrize(("train", "val", "test"), [
    ("Train", "VAL", "Test"), ("training", "valid", "testing"), ("train", "validation", "test")])
def test_split_folders_may_be_called_otherwise(tmp_path: Path, train: str, val: str, test: str) -> None:
    root = _write(tmp_path, f"{train}/cat/a.jpg", f"{train}/dog/b.jpg", f"{val}/dog/c.jpg", f"{test}/1.jpg",
                  f"{test}/2.jpg", f"{test}/readme.txt")
    source = _open(root)
    assert _labels(source) == {"train": {"cat/a.jpg": 0, "dog/b.jpg": 1}, "validation": {"dog/c.jpg": 1}}
    assert source.left_out == {".jpg": (2, f"{test}/1.jpg"), ".txt": (1, f"{test}/readme.txt")}  # without labels
    (root / test / "dog").mkdir()
    (root / test / "1.jpg").rename(root / test / "dog/1.jpg")
    assert _labels(_open(root))["test"] == {"dog/1.jpg": 1}


def test_images_are_told_by_content_and_nothing_else_is_dropped_in_silence(tmp_path: Path) -> None:
    taken = ("a.jpg", "b.JFIF", "c", "d.data", "deep/er/e.jpg", "f.jpg/g.JPEG")
    hidden = (".h.jpg", "._a.jpg", "Thumbs.db", "__MACOSX/i.jpg", "deep/.k/l.jpg")
    root = _write(tmp_path, *(f"train/cat/{name}" for name in taken + hidden), "train/stray.jpg")
    for name in ("README.txt", "train/cat/notes.txt", "train/cat/more.TXT", "train/cat/empty"):
        (root / name).write_bytes(b"")
    (root / "train/cat/deep/loop").symlink_to(root / "train/cat")
    os.mkfifo(root / "train/cat/pipe.jpg")
    source = _open(root)
    assert source.totals == {"train": len(taken)}
    assert _labels(source) == {"train": {f"cat/{name}": 0 for name in taken}}
    assert {ending: count for ending, count, _ in card.left_out(source)} == {
        ".txt": 3, "hidden": 5, "folder": 1, ".jpg": 2, "none": 1}
    assert (".txt", 3, "README.txt") in card.left_out(source)


def test_a_link_that_leads_nowhere_is_refused_unread(tmp_path: Path) -> None:
    root = _write(tmp_path, "train/cat/a.jpg")
    (root / "train/cat/b.jpg").symlink_to(root / "gone.jpg")
    assert [item.fault for item in _open(root).splits["train"]] == ["", "No such file or directory"]


@pytest.mark.parametrize(("names", "message"), [
    (("train/a/a.jpg", "val/a/a.jpg", "validation/a/a.jpg"), "no two for the same"),
    (("train/a/a.jpg", "cats/a/a.jpg"), "one folder a split.*it holds cats, train"),
    (("train/a/a.jpg", "train/b/.a.jpg"), "no image in class b"),
    (("train/a/a.jpg", "val/b/a.jpg"), "classes that train has not: b"),
    (("train/a.jpg",), "has no class folders.*list them"),
    (("train/a/a.jpg", "Val/a/a.jpg", "notes/a.jpg"), "called train .or training.*it holds Val, notes, train"),
    (("apple/a.jpg", "train/a.jpg"), "if these are classes.*put them all into a folder named train"),
    (("train/a/a.jpg", "test/unknown/a.jpg"), "classes that train has not: unknown. Move"),
    (("a.jpg",), r"is in no layout.*holds a.jpg(.|\n)*Tiny ImageNet: wnids.txt"),
    (("cat/a.jpg",), "holds a single folder, cat"),
    (("pets/train/cat/a.jpg", "wild/train/cat/a.jpg"), "holds datasets.*--images=.*pets"),
    (("train/1/a.jpg", "train/01/a.jpg"), "01, 1 are the same number"),
    (("train/Crane/a.jpg", "train/crane/a.jpg"), "Crane and crane|crane and Crane"),
    (("train/caf\xe9/a.jpg", "val/cafe\u0301/a.jpg"), r"caf\\xe9.*or in how Unicode spells them"),
    (("train/n\udcff/a.jpg", "train/b/a.jpg"), r"called .n\\udcff., which is not a line of UTF-8"),
])
def test_wrong_folders_are_named(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _open(_write(tmp_path, *names))
    with pytest.raises(UserError, match="does not exist"):
        _open(tmp_path / "nowhere")


def test_folders_of_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    source = _open(_write(tmp_path, *(f"train/{i}/a.jpg" for i in range(12)), "val/10/a.jpg"))
    assert source.classes == tuple(map(str, range(12)))
    assert _labels(source) == {"train": {f"{i}/a.jpg": i for i in range(12)}, "validation": {"10/a.jpg": 10}}
    padded = _open(_write(tmp_path / "padded", "train/002/a.jpg", "train/10/a.jpg", "train/0001/a.jpg"))
    assert padded.classes == ("0001", "002", "10")


_LISTED = "n00000020 tench, Tinca tinca\nn00000010 crane\nn00000030 crane, machine\n"


@pytest.mark.parametrize(("listed", "folders", "ids", "names", "label"), [
    (_LISTED, ("0", "02"), ("n00000020", "n00000030"), ("tench, Tinca tinca", "crane, machine"), 0),
    (_LISTED, ("n00000010", "n00000020"), ("n00000020", "n00000010"), ("tench, Tinca tinca", "crane"), 1),
    (_LISTED, ("machine", "Tinca tinca"), ("n00000020", "n00000030"), ("tench, Tinca tinca", "crane, machine"), 1),
    ("\ufeffdog\tbig dog\r\nbig cat\r\n\r\n", ("big cat", "big dog"), ("dog", "big cat"), ("big dog", "big cat"), 1),
    ("2\ttwo\n1\tone\n", ("1", "2"), ("2", "1"), ("two", "one"), 1),
], ids=("numbers", "ids", "names", "windows", "numbers that are ids"))
def test_classes_of_a_file(tmp_path: Path, listed: str, folders: tuple[str, ...], ids: tuple[str, ...],
                           names: tuple[str, ...], label: int) -> None:
    (tmp_path / "classes.txt").write_text(listed, encoding="utf-8", newline="")
    root = _write(tmp_path / "images", *(f"train/{folder}/a.jpg" for folder in folders))
    source = _open(root, Options(classes=str(tmp_path / "classes.txt")))
    assert (source.classes, source.class_names) == (ids, names)
    assert _labels(source)["train"] == {f"{folders[0]}/a.jpg": label, f"{folders[1]}/a.jpg": 1 - label}


@pytest.mark.parametrize(("listed", "folder", "message"), [
    (_LISTED, "5", "lists 3 classes, so the last number is 2; there is 5"),
    (_LISTED, "dog", "has no class dog, neither as ID nor as NAME"),
    (_LISTED, "crane", "more than one class called crane"),
    ("cat\ndog\ncat\n", "cat", "line 3: cat is listed before"),
    ("cat\n\ndog\n", "cat", "line 2: no class"),
    ("\n", "cat", "lists no classes"),
    (None, "cat", "cannot be read"),
])
def test_wrong_files_of_classes(tmp_path: Path, listed: str | None, folder: str, message: str) -> None:
    if listed is not None:
        (tmp_path / "classes.txt").write_text(listed)
    root = _write(tmp_path / "images", f"train/{folder}/a.jpg")
    with pytest.raises(UserError, match=message):
        _open(root, Options(classes=str(tmp_path / "classes.txt")))


def test_without_split_folders_all_is_train_and_a_holdout_may_be_cut(tmp_path: Path) -> None:
    root = _write(tmp_path, *(f"cat/{i}.jpg" for i in range(20)), *(f"dog/{i}.jpg" for i in range(5)), "owl/0.jpg")
    assert {split: len(labels) for split, labels in _labels(_open(root)).items()} == {"train": 26}
    source = _open(root, Options(holdout=0.1))
    assert (source.layout, source.totals) == ("class folders", {"train": 23, "validation": 3})
    labels = _labels(source)
    assert {split: len(found) for split, found in labels.items()} == source.totals
    assert labels["train"].keys().isdisjoint(labels["validation"])
    assert sorted(labels["validation"].values()) == [0, 0, 1]  # of a class with one image it stays in train
    assert _labels(_open(root, Options(holdout=0.1)))["validation"] == labels["validation"]
    assert _labels(_open(root, Options(holdout=0.1, seed=1)))["validation"] != labels["validation"]
    with pytest.raises(UserError, match="cuts a validation split from train; .* has train, validation already"):
        _open(_write(tmp_path / "split", "train/a/a.jpg", "val/a/b.jpg"), Options(holdout=0.1))
