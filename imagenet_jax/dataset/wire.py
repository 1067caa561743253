"""What training reads of a serialized tf.train.Example, found in its bytes without copying the picture.

A message is a row of fields: a byte that is field number * 8 + kind, then, for kind 2, a length and so many bytes; a
number is cut into groups of 7 bits, the lowest first (protobuf.dev/programming-guides/encoding). An Example holds
Features (field 1), which holds entries (1) of a key (1) and a Feature (2), which is one list of bytes (1), floats (2)
or integers (3). Protobuf's own parser copies everything: of a picture of 110 KB it takes ten times as long.
"""

from typing import NamedTuple

from imagenet_jax.dataset.records import features

_FIRST, _SECOND, _THIRD = 0x0A, 0x12, 0x1A  # fields 1, 2 and 3, of kind 2
_NUMBER = 0x08  # field 1, of kind 0: the number itself


class Row(NamedTuple):
    """An example. image: where in its record the encoded image begins and ends."""

    image: tuple[int, int]
    label: int
    file_name: bytes


def row(record: bytes) -> Row:
    """The example in a record, whoever wrote it; a TFDS build may have no file names."""
    try:
        found = _found(record)
        image, (label, _) = found["image"], found["label"]
    except (IndexError, KeyError, _OtherOrder):
        return _parsed(record)
    start, stop = found.get("file_name", (0, 0))
    return Row(image, label, record[start:stop])


class _OtherOrder(Exception):
    """Fields that are allowed, but that no writer of ImageNet is known to write so."""


def _found(record: bytes) -> dict[str, tuple[int, int]]:
    """Start and stop of `image` and `file_name`, and (label, 0)."""
    at, end = _enter(record, 0, len(record), _FIRST)
    if end != len(record):
        raise _OtherOrder
    found = {}
    while at < end:
        at, after = _enter(record, at, end, _FIRST)
        key, value = _enter(record, at, after, _FIRST)
        name = record[key:value]
        if name in (b"image", b"file_name", b"label"):
            feature, stop = _enter(record, value, after, _SECOND)
            values, stop = _enter(record, feature, stop, _THIRD if name == b"label" else _FIRST)
            if name != b"label":
                found[name.decode()] = _enter(record, values, stop, _FIRST)
            else:  # one after the other, or packed into one field
                packed = record[values] != _NUMBER
                number = _enter(record, values, stop, _FIRST)[0] if packed else values + 1
                found["label"] = _number(record, number)[0], 0
        at = after
    return found


def _enter(record: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the contents of the field at `at`, in a message that ends at `end`, begin and end."""
    if at >= end or record[at] != tag:
        raise _OtherOrder
    length, start = record[at + 1], at + 2
    if length > 0x7F:
        length, start = _number(record, at + 1)
    if start + length > end:
        raise _OtherOrder
    return start, start + length


def _number(record: bytes, at: int) -> tuple[int, int]:
    """The signed number of 64 bits at `at`, and where it ends."""
    value, shift = 0, 0
    while True:
        group = record[at]
        value |= (group & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if group < 0x80:
            return (value - (1 << 64) if value >> 63 else value), at


def _parsed(record: bytes) -> Row:
    parsed = features(record)
    image, names = parsed["image"].bytes_list.value[0], parsed["file_name"].bytes_list.value
    start = record.index(image)
    return Row((start, start + len(image)), parsed["label"].int64_list.value[0], names[0] if names else b"")
