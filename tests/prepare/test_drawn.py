"""The drawn ILSVRC: official layout, agreeing labels, promised faults, not linearly separable."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import defusedxml.ElementTree as ElementTree
import numpy as np
import pytest
import scipy.io
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from imagenet_jax.errors import UserError
from imagenet_jax.prepare import drawn, shapes

CLASSES, TRAIN, VAL = 5, 42, 11


def _members(source: Path | bytes) -> dict[str, bytes]:
    data = source.read_bytes() if isinstance(source, Path) else source
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}


def _train_files(root: Path) -> dict[str, bytes]:
    files = {}
    for name, data in _members(root / "ILSVRC2012_img_train.tar").items():
        inner = _members(data)
        assert all(file.startswith(name.removesuffix(".tar") + "_") for file in inner)
        files |= inner
    return files


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "ilsvrc"
    counts = drawn.draw(str(out), classes=CLASSES, train=TRAIN, val=VAL)
    assert counts[:3] == (TRAIN, VAL, 4)
    assert [path.name for path in out.parent.iterdir()] == ["ilsvrc"]
    return out


@pytest.fixture(scope="module")
def val_wnids(root: Path) -> list[str]:
    """The WNID of each val image, by way of the devkit."""
    kit = _members(root / "ILSVRC2012_devkit_t12.tar.gz")
    folder = "ILSVRC2012_devkit_t12/data/"
    meta = scipy.io.loadmat(io.BytesIO(kit[folder + "meta.mat"]), squeeze_me=True)["synsets"]
    by_id = dict(zip(meta["ILSVRC2012_ID"].tolist(), meta["WNID"].tolist(), strict=True))
    leaves = meta[meta["num_children"] == 0]
    assert sorted(leaves["WNID"]) == drawn.wnids(CLASSES)
    assert leaves["num_train_images"].sum() == TRAIN
    in_id_order = [by_id[i] for i in range(1, CLASSES + 1)]
    assert in_id_order != sorted(in_id_order)
    truth = kit[folder + "ILSVRC2012_validation_ground_truth.txt"].split()
    return [by_id[int(line)] for line in truth]


def test_val_labels_of_devkit_and_boxes_agree(root: Path, val_wnids: list[str]) -> None:
    images = _members(root / "ILSVRC2012_img_val.tar")
    notes = _members(root / "ILSVRC2012_bbox_val_v3.tgz")
    assert len(images) == len(notes) == len(val_wnids) == VAL
    assert set(val_wnids) == set(drawn.wnids(CLASSES))
    for (name, data), wnid in zip(images.items(), val_wnids, strict=True):
        note = ElementTree.fromstring(notes[f"val/{name.removesuffix('.JPEG')}.xml"])
        assert {item.text for item in note.iter("name")} == {wnid}
        size = int(note.findtext("size/width")), int(note.findtext("size/height"))
        assert size == Image.open(io.BytesIO(data)).size


def test_train_holds_the_promised_faults_and_no_others(root: Path) -> None:
    files = _train_files(root)
    assert len(files) == TRAIN
    faults = []
    for data in files.values():
        image = Image.open(io.BytesIO(data))
        try:
            image.load()
        except OSError:
            faults.append("truncated")
        else:
            if image.format == "PNG":
                faults.append("png")
            elif image.mode == "CMYK":
                faults.append("cmyk")
    assert sorted(faults) == sorted(drawn.BAD_TRAIN)
    notes = _members(root / "ILSVRC2012_bbox_train_v2.tar.gz")
    assert 0 < len(notes) < TRAIN
    assert {Path(name).stem for name in notes} < {Path(name).stem for name in files}


@pytest.mark.parametrize("kind", shapes.KINDS, ids=lambda kind: kind.name)
def test_boxes_lie_in_the_image_and_around_the_object(kind: shapes.Kind) -> None:
    sizes = set()
    for i in range(20):
        image, boxes = shapes.draw_image(kind, np.random.default_rng(i))
        sizes.add(image.size)
        width, height = image.size
        for xmin, ymin, xmax, ymax in boxes:
            assert 0 <= xmin < xmax <= width
            assert 0 <= ymin < ymax <= height
        main = boxes[-1]
        assert min(main[2] - main[0], main[3] - main[1]) > 0.25 * min(image.size)
    assert len({width / height for width, height in sizes}) > 10


def test_same_seed_same_bytes_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    drawn.draw(str(again), classes=CLASSES, train=TRAIN, val=VAL)
    drawn.draw(str(other), classes=CLASSES, train=TRAIN, val=VAL, seed=1)
    for path in root.glob("ILSVRC*"):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
        assert path.read_bytes() != (other / path.name).read_bytes(), path.name


def test_digits_are_all_there_once_and_split_by_class(root: Path) -> None:
    paths = {split: list((root / "digits" / split).glob("*/*.png")) for split in ("train", "val")}
    assert {split: len(files) for split, files in paths.items()} == {"train": 1437, "val": 360}
    assert len({path.name for files in paths.values() for path in files}) == 1797
    for split, share in (("train", 143), ("val", 36)):
        per_digit = [len(list((root / "digits" / split / str(d)).iterdir())) for d in range(10)]
        assert max(abs(count - share) for count in per_digit) <= 5


def test_neither_raw_pixels_nor_mean_colour_tell_the_classes() -> None:
    classes = 12
    labels = np.arange(900) % classes
    images = [
        shapes.draw_image(shapes.KINDS[k], np.random.default_rng(i)).image.resize((32, 32))
        for i, k in enumerate(labels)
    ]
    pixels = np.stack([np.asarray(image, np.float32).ravel() / 255 for image in images])
    colour = pixels.reshape(len(pixels), -1, 3).mean(axis=1)
    for features in (pixels, colour):
        linear = RidgeClassifier(alpha=100).fit(features[:700], labels[:700])
        assert linear.score(features[700:], labels[700:]) < 0.35  # chance is 0.08


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"classes": 1}, "classes=1"),
        ({"classes": 17}, "2 to 16"),
        ({"classes": 5, "val": 4}, "val=4"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path: Path, numbers: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        drawn.draw(str(tmp_path / "out"), **numbers)
    assert not list(tmp_path.iterdir())


def test_never_writes_into_a_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(UserError, match="already there"):
        drawn.draw(str(tmp_path), classes=2, train=2, val=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failing_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> tuple[int, int]:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(drawn, "_write_digits", full)
    with pytest.raises(UserError, match="No space left"):
        drawn.draw(str(tmp_path / "out"), classes=2, train=2, val=2)
    assert not list(tmp_path.iterdir())
