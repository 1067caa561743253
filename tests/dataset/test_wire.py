"""A record read in place says what protobuf's parser says, whoever wrote it."""

import itertools

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_jax import dataset
from imagenet_jax.dataset import wire

Example = tf_example_pb2.Example


def example(image: bytes, label: int, name: bytes | None, *, boxes: int = 0) -> Example:
    made = Example()
    feature = made.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["label"].int64_list.value.append(label)
    if name is not None:
        feature["file_name"].bytes_list.value.append(name)
    if boxes:
        feature["boxes"].float_list.value.extend(np.linspace(0, 1, 4 * boxes))
    return made


def assert_read(record: bytes, image: bytes, label: int, name: bytes) -> None:
    row = dataset.row(record)
    assert (record[slice(*row.image)], row.label, row.file_name) == (image, label, name)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 300_000])
@pytest.mark.parametrize("label", [0, 1, 127, 128, 21_840, -1, 2**63 - 1, -(2**63)])
def test_sizes_and_labels(size, label) -> None:
    image = np.random.default_rng(size).bytes(size)
    for boxes, name in itertools.product((0, 1, 40), (b"n01440764_10026.JPEG", b"x" * 200)):
        assert_read(example(image, label, name, boxes=boxes).SerializeToString(), image, label, name)


@pytest.mark.parametrize("name", [None, b""])
def test_a_build_without_file_names(name) -> None:
    assert_read(example(b"picture", 3, name).SerializeToString(), b"picture", 3, b"")
    empty = example(b"picture", 3, name)
    empty.features.feature["file_name"].Clear()
    assert_read(empty.SerializeToString(), b"picture", 3, b"")


def entry(key: bytes, feature: bytes) -> bytes:
    content = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(feature)]) + feature
    return b"\x0a" + bytes([len(content)]) + content


def test_every_order_and_numbers_not_packed() -> None:
    image, name = b"\x0a\x07\x0a\x05abcde", b"\x0a\x04\x0a\x02ab"
    labels = {b"\x1a\x03\x0a\x01\x07": 7, b"\x1a\x02\x08\x09": 9, b"\x1a\x00\x1a\x02\x08\x09": 9}
    for label, entries in itertools.product(labels, itertools.permutations(range(3))):
        parts = [entry(b"image", image), entry(b"label", label), entry(b"file_name", name)]
        content = b"".join(parts[i] for i in entries)
        record = b"\x0a" + bytes([len(content)]) + content
        Example.FromString(record)
        assert_read(record, b"abcde", labels[label], b"ab")


def test_what_is_read_otherwise_goes_to_the_parser(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(wire, "features", lambda record: asked.append(record) or dataset.features(record))
    ordinary = example(b"abc", 1, b"a.JPEG").SerializeToString()
    assert_read(ordinary, b"abc", 1, b"a.JPEG")
    assert not asked
    twice = ordinary + example(b"defg", 2, b"b.JPEG").SerializeToString()  # which merges: later entries win
    merged = dataset.features(twice)
    assert_read(twice, merged["image"].bytes_list.value[0], merged["label"].int64_list.value[0], b"b.JPEG")
    assert asked == [twice]
