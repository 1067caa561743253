"""Archives and folders: what is read from sound ones, and what is said of the others."""

import gzip
import tracemalloc
from pathlib import Path

import ilsvrc
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.prepare.examples import Example, Reference, Source
from imagenet_jax.prepare.shard import load
from imagenet_jax.prepare.sources import archives


def _read(source: Source) -> dict[str, list[Example]]:
    """The examples of each split; those refused unread are left out."""
    return {split: [example for item in items for example in _examples(item)] for split, items in source.splits.items()}


def _examples(item: Example | Reference) -> list[Example]:
    return [item] if isinstance(item, Example) else [example for _, example in load([item]) if example]


def test_labels_follow_sorted_wnids_not_devkit_ids(tmp_path: Path) -> None:
    source = archives.open_archives(ilsvrc.write(tmp_path), "tiny")
    read = _read(source)
    assert source.classes == ("n00000010", "n00000020", "n00000030")
    assert source.class_names == ("thing 10", "thing 20", "thing 30")
    assert [e.label for e in read["validation"]] == [1, 2, 0, 1]  # IDs 3, 1, 2, 3
    names = [f"{wnid}_{i}.JPEG" for wnid in ilsvrc.WNIDS for i in range(2)]
    assert [e.file_name for e in read["train"]] == names  # in the order of the tar
    assert [e.label for e in read["train"]] == [2, 2, 0, 0, 1, 1]
    assert read["train"][1].image == ilsvrc.jpeg(1)
    assert source.totals == {split: len(examples) for split, examples in read.items()}


def test_boxes_are_shares_of_the_stated_size(tmp_path: Path) -> None:
    two = ilsvrc.annotation((0, 4, 12, 16), (6, 0, 24, 8))
    train = {"n00000010/n00000010_1.xml": two, "n00000030/n00000030_0.xml": b"<annotation>"}
    val = {"val/ILSVRC2012_val_00000002.xml": ilsvrc.annotation((1, 1, 2, 2), size=(0, 4))}
    boxes = {
        "ILSVRC2012_bbox_train_v2.tar.gz": gzip.compress(ilsvrc.tar(train)),
        "ILSVRC2012_bbox_val_v3.tgz": gzip.compress(ilsvrc.tar(val)),
    }
    read = _read(archives.open_archives(ilsvrc.write(tmp_path, boxes), "tiny"))
    found = {e.file_name: e.boxes for split in read.values() for e in split if len(e.boxes)}
    expected = [[0.25, 0, 1, 0.5], [0, 0.25, 0.5, 1]]
    np.testing.assert_array_equal(found.pop("n00000010_1.JPEG"), expected)
    assert sorted(found) == ["ILSVRC2012_val_00000002.JPEG", "n00000030_0.JPEG"]
    assert all(np.isnan(boxes).any() for boxes in found.values())  # unreadable, told apart


def test_two_classes_of_one_name_stay_apart(tmp_path: Path) -> None:
    wnids = ("n02012849", "n03126711", "n00000020")  # all 'thing' and the last two digits
    path = tmp_path / "devkit"
    path.write_bytes(ilsvrc.devkit(("n00000120", *wnids), {}, [1]))
    names = archives.read_devkit(path).names
    assert len(set(names.values())) == 4
    assert names["n00000120"] == "thing 20 (n00000120)"


def test_no_image_is_read_before_its_turn(tmp_path: Path) -> None:
    """80 MB of images leave a few MB of references."""
    size, count = 2**20, 80
    class_tar = ilsvrc.tar({f"n00000010_{i}.JPEG": bytes(size) for i in range(count)})
    changed = {
        ilsvrc.TRAIN: ilsvrc.tar({"n00000010.tar": class_tar}),
        ilsvrc.DEVKIT: ilsvrc.devkit(["n00000010"], {}, [1]),
    }
    source = archives.open_archives(ilsvrc.write(tmp_path, changed), "tiny")
    del changed, class_tar
    tracemalloc.start()
    assert sum(reference.size for reference in source.splits["train"]) == count * size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * size


_CLASSES = ilsvrc.class_tars(ilsvrc.COUNTS)
_LESS = {wnid: 2 for wnid in ilsvrc.WNIDS[:2]}
_WRONG = {
    "train missing": ({ilsvrc.TRAIN: None}, "lacks ILSVRC2012_img_train.tar"),
    "val in the place of train": (
        {ilsvrc.TRAIN: ilsvrc.tar(ilsvrc.val_images(2))},
        "not the archive of training images.*ILSVRC2012_val_00000001.JPEG",
    ),
    "not a tar": ({ilsvrc.TRAIN: b"<html>sign in</html>" * 99}, "img_train.tar cannot be read"),
    "train cut short": (
        {ilsvrc.TRAIN: ilsvrc.tar(_CLASSES)[:-15_000]},
        "img_train.tar.*(cannot be read to its end|disagree)",
    ),
    "class tar cut short": (
        {ilsvrc.TRAIN: ilsvrc.tar({**_CLASSES, "n00000020.tar": _CLASSES["n00000020.tar"][:700]})},
        "n00000020.tar cannot be read to its end",
    ),
    "empty class": (
        {
            ilsvrc.TRAIN: ilsvrc.tar({**_CLASSES, "n00000020.tar": ilsvrc.tar({})}),
            ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, {}, ilsvrc.TRUTH),
        },
        "n00000020 has 0 images",
    ),
    "fewer images than stated": (
        {ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, {**ilsvrc.COUNTS, "n00000020": 3}, (1,) * 4)},
        "n00000020 has 2 images, but the devkit states 3",
    ),
    "class without tar": (
        {ilsvrc.TRAIN: ilsvrc.tar(ilsvrc.class_tars(_LESS))},
        "only in the devkit: n00000020",
    ),
    "class not in devkit": (
        {ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS[:2], {}, (1,) * 4)},
        "only in the archive: n00000020",
    ),
    "more val images than labels": (
        {ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, ilsvrc.COUNTS, (1, 2, 3))},
        "holds ILSVRC2012_val_00000004.JPEG",
    ),
    "fewer val images than labels": (
        {ilsvrc.VAL: ilsvrc.tar(ilsvrc.val_images(3))},
        "holds 3 images, but .* labels 4",
    ),
    "other files in val": (
        {ilsvrc.VAL: ilsvrc.tar({"cat.JPEG": ilsvrc.jpeg(0)})},
        "holds cat.JPEG",
    ),
    "label that is no class": (
        {ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, ilsvrc.COUNTS, (1, 2, 3, 4))},
        "names an ID that is no class",
    ),
    "another devkit": (
        {ilsvrc.DEVKIT: gzip.compress(ilsvrc.tar({"readme.txt": b"task 3"}))},
        "not the ILSVRC2012 devkit for tasks 1 and 2",
    ),
    "devkit cut short": (
        {ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, ilsvrc.COUNTS, ilsvrc.TRUTH)[:200]},
        "devkit_t12.tar.gz cannot be read to its end",
    ),
    "boxes cut short": (
        {"ILSVRC2012_bbox_val_v3.tgz": gzip.compress(ilsvrc.tar({"val/a.xml": b"<a/>"}))[:60]},
        "bbox_val_v3.tgz cannot be read to its end",
    ),
}


@pytest.mark.parametrize(("changed", "message"), _WRONG.values(), ids=_WRONG.keys())
def test_wrong_archives_are_named(
    tmp_path: Path, changed: dict[str, bytes | None], message: str
) -> None:
    folder = ilsvrc.write(tmp_path, changed)
    with pytest.raises(UserError, match=message):
        _read(archives.open_archives(folder, "tiny"))
