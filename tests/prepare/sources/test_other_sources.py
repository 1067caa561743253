"""ImageNet-21k, Tiny ImageNet and what `tfds build` leaves: read as they are distributed."""

import gzip
from pathlib import Path

import ilsvrc
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.prepare import repair, writer
from imagenet_jax.prepare.examples import DEFAULTS, Example, Reference, Source
from imagenet_jax.prepare.shard import load, serialize
from imagenet_jax.prepare.sources import imagenet21k, tfds_examples, tiny

_COUNTS = {"n00000030": 2, "n00000010": 3}  # in the order of the archive


def _labels(source: Source, split: str = "train") -> dict[str, int]:
    return {item.file_name: item.label for item in source.splits[split]}


def _write_21k(folder: Path, classes: dict[str, bytes]) -> str:
    """Both releases of one content, each in a folder of its own."""
    whole = ilsvrc.tar({f"winter21_whole/{name}": data for name, data in classes.items()})
    for path, data in ((folder / "winter" / imagenet21k.WINTER, gzip.compress(whole)),
                       (folder / "fall" / imagenet21k.FALL, ilsvrc.tar(classes))):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)


def test_21k_takes_its_classes_from_the_data(tmp_path: Path) -> None:
    _write_21k(tmp_path, ilsvrc.class_tars(_COUNTS))
    for release in ("winter", "fall"):
        options = DEFAULTS._replace(memory=tmp_path / "memory" / release)
        source = imagenet21k.open_21k(tmp_path / release, "big", options)
        assert source.classes == ("n00000010", "n00000030")
        assert source.totals == {"train": 5}
        assert _labels(source) == {f"{wnid}_{i}.JPEG": int(wnid == "n00000030") for wnid, count in _COUNTS.items()
                                   for i in range(count)}


def test_21k_gives_the_same_records_compressed_or_not(tmp_path: Path) -> None:
    _write_21k(tmp_path, ilsvrc.class_tars(_COUNTS))
    for release, workers in (("winter", 2), ("fall", 1)):
        source = imagenet21k.open_21k(tmp_path / release, "big")
        writer.write_dataset(tmp_path / "out" / release, source, repair.check, shard_bytes=2000, workers=workers)
    shards = [sorted((path.name, path.read_bytes()) for path in (tmp_path / "out" / release).glob("*record-*"))
              for release in ("winter", "fall")]
    assert shards[0] == shards[1]
    assert len(shards[0]) > 1


def test_the_scan_of_21k_is_remembered(tmp_path: Path, monkeypatch) -> None:
    _write_21k(tmp_path, ilsvrc.class_tars(_COUNTS))
    imagenet21k.open_21k(tmp_path / "winter", "big", DEFAULTS._replace(memory=tmp_path))
    monkeypatch.setattr(imagenet21k, "_scan", lambda path: pytest.fail("scanned again"))
    imagenet21k.open_21k(tmp_path / "winter", "big", DEFAULTS._replace(memory=tmp_path))


def test_wrong_21k_is_named(tmp_path: Path) -> None:
    whole = ilsvrc.class_tars(_COUNTS)
    for i, (classes, message) in enumerate((
            (whole | {"n00000020.tar": ilsvrc.tar({})}, "no image of class n00000020"),
            (whole | {"n00000020.tar": b"<html>" * 200}, "n00000020.tar cannot be read"),
            ({}, "has no class tars"))):
        _write_21k(tmp_path / str(i), classes)
        for release in ("winter", "fall"):
            with pytest.raises(UserError, match=message):
                imagenet21k.open_21k(tmp_path / str(i) / release, "big")
    cut = tmp_path / "0" / "winter" / imagenet21k.WINTER
    cut.write_bytes(cut.read_bytes()[:-900])
    with pytest.raises(UserError, match="cannot be read to its end"):
        imagenet21k.open_21k(cut.parent, "big")


def _write_tiny(root: Path) -> Path:
    for wnid in ("n02", "n01"):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for i in range(2):
            (folder / f"{wnid}_{i}.JPEG").write_bytes(ilsvrc.jpeg(i))
        (folder.parent / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t16\t32\t64\n")
    (root / "val" / "images").mkdir(parents=True)
    (root / "val" / "images" / "val_0.JPEG").write_bytes(ilsvrc.jpeg(7))
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t32\t44\t62\n")
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n01\tcat, true cat\nn02\tdog\nn03\tsnake\n")
    return root


def test_tiny_imagenet(tmp_path: Path) -> None:
    source = tiny.open_tiny(_write_tiny(tmp_path), "tiny", DEFAULTS)
    assert (source.classes, source.class_names) == (("n01", "n02"), ("cat", "dog"))
    train, val = (list(source.splits[split]) for split in ("train", "validation"))
    assert [(r.file_name, r.label) for r in train] == [
        ("n01_0.JPEG", 0), ("n01_1.JPEG", 0), ("n02_0.JPEG", 1), ("n02_1.JPEG", 1)]
    np.testing.assert_array_equal(train[0].boxes, [[0.25, 0, 1, 0.5]])
    assert len(train[1].boxes) == 0
    assert [(r.file_name, r.label) for r in val] == [("val_0.JPEG", 1)]
    assert [example.image for _, example in load(val)] == [ilsvrc.jpeg(7)]
    assert source.totals == {"train": 4, "validation": 1}


def test_wrong_tiny_imagenet_is_named(tmp_path: Path) -> None:
    root = _write_tiny(tmp_path)
    (root / "val" / "val_annotations.txt").write_text("../../val_1.JPEG\tn02\t0\t32\t44\t62\n")
    with pytest.raises(UserError, match="1 images of val_annotations.txt are missing and 1 have no line"):
        tiny.open_tiny(root, "tiny", DEFAULTS)
    (root / "wnids.txt").write_text("n01\nn02\nn03\n")
    with pytest.raises(UserError, match="no images of n03"):
        tiny.open_tiny(root, "tiny", DEFAULTS)


def _build_tfds(root: Path, count: int) -> None:
    """What `tfds build` would leave in `root`: TFRecords of `count` images of two classes."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    root.mkdir(parents=True)
    records = [serialize(Example(ilsvrc.jpeg(i), i % 2, f"{i}.JPEG")) for i in range(count)]
    with tf.io.TFRecordWriter(str(root / "imagenet2012-train.tfrecord-00000-of-00001")) as file:
        for record in records:
            file.write(record)
    features = tfds.features.FeaturesDict({
        "image": tfds.features.Image(encoding_format="jpeg"), "label": tfds.features.ClassLabel(names=["n01", "n02"]),
        "file_name": tfds.features.Text()})
    split = tfds.core.SplitInfo("train", [count], sum(map(len, records)), tfds.core.ShardedFileTemplate(
        data_dir=root, dataset_name="imagenet2012", split="train", filetype_suffix="tfrecord"))
    tfds.folder_dataset.write_metadata(data_dir=root, features=features, split_infos=[split], check_data=False)


def test_tfds_build_is_converted(tmp_path: Path) -> None:
    _build_tfds(tmp_path / "imagenet2012" / "5.1.0", 6)
    source = tfds_examples.open_tfds(str(tmp_path / "imagenet2012"), "ours")
    read = {example.file_name: example for example in source.splits["train"]}
    assert (source.classes, source.totals) == (("n01", "n02"), {"train": 6})
    assert {name: example[:2] for name, example in read.items()} == {
        f"{i}.JPEG": (ilsvrc.jpeg(i), i % 2) for i in range(6)}
    source = tfds_examples.open_tfds(str(tmp_path / "imagenet2012"), "ours")
    assert writer.write_dataset(tmp_path / "ours", source, repair.check)["train"].examples == 6
    shard = next((tmp_path / "imagenet2012").rglob("*.tfrecord-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match="does not hold 6 whole records"):
        list(tfds_examples.open_tfds(str(tmp_path / "imagenet2012"), "ours").splits["train"])
    with pytest.raises(UserError, match="holds 0 TFDS datasets"):
        tfds_examples.open_tfds(str(tmp_path / "nowhere"), "ours")


def test_references_and_streams_agree() -> None:
    assert Example._fields[1:4] == Reference._fields[3:6]  # label, file_name, boxes: moved from one to the other
