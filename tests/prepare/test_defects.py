"""Archives with every defect at once, prepared as a user would: each ends as specified, and the rest is kept."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from PIL import ExifTags, Image

from imagenet_jax import dataset, markdown
from imagenet_jax.prepare import repair, writer
from imagenet_jax.prepare.examples import Example
from imagenet_jax.prepare.sources import archives

_BOMB = b"""<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;">]><annotation><object>&c;</object></annotation>"""


def _png(mode: str) -> bytes:
    encoded, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (16, 24), np.uint8)
    image = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "16" else Image.fromarray(pixels).convert(mode)
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _huge_header() -> bytes:
    """A JPEG whose header claims 40,000 x 40,000 px."""
    data = ilsvrc.jpeg(0)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 40_000, 40_000) + data[at + 4:]


def _archives(folder: Path) -> str:
    first = ilsvrc.members_tar(
        ("n00000010_0.JPEG", _png("RGB")),
        ("n00000010_1.JPEG", ilsvrc.jpeg(1, "CMYK")),
        ("../../n00000010_2.JPEG", ilsvrc.jpeg(2)),
        ("n00000010_3.JPEG", _huge_header()),
        ("n00000010_4.JPEG", ilsvrc.jpeg(4)[:300]),
        ("/n00000010_5.JPEG", _png("P")),
        ("n00000010_2.JPEG", ilsvrc.jpeg(9)),
        ("n00000010_6.JPEG", _png("16")),
        ("n00000010_7.JPEG", b""),
        ("n00000010_\udcff.JPEG", b"a name that is no UTF-8"),
    )
    box = ilsvrc.annotation((20, 12, 4, 4), (-5, 0, 12, 99), (3, 3, 3, 9), ("x", 0, 1, 1))
    named = box.replace(b"<annotation>", b"<annotation><filename>%s</filename>").replace(
        b"<name>n</name>", b"<name>Scottish_deerhound</name>")
    boxes = {"n00000010/n00000010_2.xml": named, "n00000020/n00000020_0.xml": _BOMB,
             "n00000030/n00000030_0.xml": b"<annotation>", "n00000030/../../n00000030_1.xml": ilsvrc.annotation()}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    val = ilsvrc.val_images(4) | {"ILSVRC2012_val_00000002.JPEG": ilsvrc.jpeg(2, "CMYK"),
                                  "ILSVRC2012_val_00000003.JPEG": ilsvrc.jpeg(3, exif=exif)}
    counts = {**ilsvrc.COUNTS, "n00000010": 9}
    return ilsvrc.write(folder, {
        ilsvrc.TRAIN: ilsvrc.tar(ilsvrc.class_tars(ilsvrc.COUNTS) | {"n00000010.tar": first}),
        ilsvrc.VAL: ilsvrc.tar(val),
        ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, counts, ilsvrc.TRUTH),
        "ILSVRC2012_bbox_train_v2.tar.gz": gzip.compress(ilsvrc.tar(boxes)),
    })


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("defects")
    source = archives.open_archives(_archives(folder / "archives"), "bad")
    writer.write_dataset(folder / "bad", source, repair.check)
    assert sorted(path.name for path in folder.iterdir()) == ["archives", "bad"]  # nothing escaped
    return folder / "bad"


def _lines(path: Path) -> dict[str, str]:
    lines = map(json.loads, path.read_text().splitlines())
    return {f"{line['split']} {line['file_name']}": line["reason"] for line in lines}


def test_what_cannot_be_used_is_quarantined_with_its_reason(prepared: Path) -> None:
    found = _lines(prepared / "quarantine.jsonl")
    expected = {"3": "1600000000 pixels", "4": "runcated", "2": "duplicate member", "7": "an empty file",
                r"\udcff": "not an image"}
    assert found.keys() == {f"train n00000010_{number}.JPEG" for number in expected}
    for number, reason in expected.items():
        assert reason in found[f"train n00000010_{number}.JPEG"]


def test_what_is_odd_is_repaired_by_content(prepared: Path) -> None:
    found = _lines(prepared / "repairs.jsonl")
    expected = {"train n00000010_0.JPEG": "PNG of mode RGB", "train n00000010_1.JPEG": "JPEG of mode CMYK",
                "train n00000010_5.JPEG": "PNG of mode P", "train n00000010_6.JPEG": "PNG of mode I;16",
                "validation ILSVRC2012_val_00000002.JPEG": "JPEG of mode CMYK"}
    assert {name: reason.split(" re-enc")[0] for name, reason in found.items()} == expected


def test_the_rest_is_kept_to_the_byte(prepared: Path) -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    opened = dataset.open_dataset(prepared)
    assert opened.splits == {"validation": 4, "train": 9}
    features = {}
    for record in dataset.open_split(opened, "train").read(range(9)):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        features[feature["file_name"].bytes_list.value[0].decode()] = feature
    assert features["n00000010_2.JPEG"]["image"].bytes_list.value[0] == ilsvrc.jpeg(2)  # the first of the two
    boxes = np.reshape(features["n00000010_2.JPEG"]["boxes"].float_list.value, (-1, 4))
    np.testing.assert_allclose(boxes, [[0.25, 1 / 6, 0.75, 5 / 6], [0, 0, 1, 0.5]], rtol=1e-6)
    index = json.loads((prepared / "imagenet_jax.json").read_text())
    assert index["dropped_boxes"] == 4  # without area, unreadable number, XML bomb, half a file


def test_the_card_lists_everything(prepared: Path) -> None:
    report = " ".join((prepared / "report.md").read_text().split())  # tables are padded
    for name in [*_lines(prepared / "quarantine.jsonl"), *_lines(prepared / "repairs.jsonl")]:
        assert f"| {name.split()[0]} | {markdown.plain(name.split()[1])} |" in report
    assert "to turn some images to see them upright (1 of validation)" in report
    for picture in ("counts.png", "train_samples.jpg", "validation_samples.jpg"):
        assert f"]({picture})" in report
        with Image.open(prepared / picture) as image:
            assert image.width > 200
    with Image.open(prepared / "train_samples.jpg") as image:
        pixels = np.asarray(image, int)
    assert (pixels[..., 1] - pixels[..., [0, 2]].max(axis=-1) > 200).sum() > 100  # the outline of the boxes


def test_a_huge_header_costs_no_memory() -> None:
    code = ("import resource, sys; from imagenet_jax.prepare import examples, repair;"
            "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30));"
            "print(repair.check(examples.Example(sys.stdin.buffer.read(), 0, 'a.JPEG'), True, 512).reason)")
    ran = subprocess.run([sys.executable, "-c", code], input=_huge_header(), capture_output=True)
    assert b"1600000000 pixels" in ran.stdout, ran.stderr


def test_variants_are_smaller_and_say_so(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    images = {name: io.BytesIO() for name in ("RGB", "L", "CMYK", "P")}
    for mode, file in images.items():
        Image.fromarray(pixels).resize((800, 600)).convert(mode).save(file, "PNG" if mode == "P" else "JPEG")
    for mode, file in images.items():
        small = repair.check(Example(file.getvalue(), 0, "a.JPEG"), max_side=200, quality=80)
        with Image.open(io.BytesIO(small.example.image)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (200, 150), "L" if mode == "L" else "RGB")
            exact = Image.open(file).convert("RGB").resize((200, 150), Image.Resampling.LANCZOS)
            assert np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(exact)).mean() < 12
        assert small.size == (200, 150)
    coarse = repair.check(Example(images["RGB"].getvalue(), 0, "a.JPEG"), max_side=800, quality=95)
    assert coarse.example.image == images["RGB"].getvalue()  # the new bytes would be more
    fine = repair.check(Example(images["RGB"].getvalue(), 0, "a.JPEG"), max_side=800, quality=50)
    assert len(fine.example.image) < len(images["RGB"].getvalue())
    assert (fine.size, fine.reason) == ((800, 600), "")


_KILLED = """
import pathlib, sys
from imagenet_jax.prepare import repair, writer
from imagenet_jax.prepare.sources import archives
if __name__ == "__main__":
    source = archives.open_archives(pathlib.Path(sys.argv[1]), "tiny")
    writer.write_dataset(sys.argv[2], source, repair.check, shard_bytes=4000, workers=2)
"""


def test_killed_and_resumed_is_byte_identical(tmp_path: Path) -> None:
    counts = dict.fromkeys(ilsvrc.WNIDS, 150)
    folder = ilsvrc.write(tmp_path / "archives", {
        ilsvrc.TRAIN: ilsvrc.tar(ilsvrc.class_tars(counts)),
        ilsvrc.DEVKIT: ilsvrc.devkit(ilsvrc.WNIDS, counts, ilsvrc.TRUTH)})
    script, out = tmp_path / "run.py", tmp_path / "out" / "tiny"
    script.write_text(_KILLED)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    source = archives.open_archives(folder, "tiny")
    writer.write_dataset(tmp_path / "whole", source, repair.check, shard_bytes=4000)
    process = subprocess.Popen([sys.executable, script, folder, out], env=environment)
    work = out.with_name("tiny.incomplete") / "work"
    while len(list(work.glob("*.json"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = len(list(work.glob("*.json")))
    assert done >= 3
    assert not out.exists()
    subprocess.run([sys.executable, script, folder, out], check=True, env=environment)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
