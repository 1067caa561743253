"""Whether the bytes of a JPEG or a PNG are put together as encoders do it.

Decoders differ in what they forgive: over a file that is not, Pillow may smile where TensorFlow stops the epoch.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator

HUFFMAN = {0xC0, 0xC1, 0xC2}  # frames that every decoder knows: baseline, extended, progressive
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_TABLES = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # DHT, DQT, DRI, COM, APPn
_SOS, _EOI = 0xDA, 0xD9
_RESTARTS = range(0xD0, 0xD8)
_MARKER = re.compile(rb"\xff+[^\x00\xff]")  # it may be padded
_AFTER_SCAN = re.compile(rb"\xff[^\x00]")  # in a scan 0xff is stuffed with a zero


def jpeg_frame(data: bytes) -> int:
    """The marker of a JPEG's frame, 0xC0 to 0xCF, which tells its coding; 0 where there is none."""
    with contextlib.suppress(ValueError):
        return next((marker for marker, _ in _markers(data) if marker in _FRAMES), 0)
    return 0


def jpeg_scans(data: bytes) -> int:
    """How many times a JPEG goes over its picture; up to where it is damaged, if it is."""
    scans = 0
    with contextlib.suppress(ValueError):
        for marker, _ in _markers(data):
            scans += marker == _SOS
    return scans


def jpeg_fault(data: bytes) -> str:
    """What is not as it should be between the beginning of a JPEG and its end; empty where all is."""
    frames = 0
    try:
        for marker, at in _markers(data):
            frames += marker in _FRAMES
            known = marker in _TABLES or marker in (_SOS, _EOI) or marker in HUFFMAN
            if not known or frames > 1 or (marker == _SOS and not frames):
                return f"a stray marker FF{marker:02X} at byte {at:,}"
    except ValueError as error:
        return str(error)
    return ""


def png_fault(data: bytes) -> str:
    """The same of a PNG, whose chunks have checksums."""
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            return "no end"
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if data[end : end + 4] != zlib.crc32(data[at + 4 : end]).to_bytes(4):
            return f"a damaged chunk at byte {at:,}"
        at = end + 4
    return ""


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Every marker of a JPEG up to its end, but for restarts, and where it is; raises ValueError on damage."""
    at, marker = 2, 0
    while marker != _EOI:
        found = _MARKER.match(data, at)
        if not found:
            raise ValueError(f"no marker at byte {at:,}")
        marker = found[0][-1]
        yield marker, at
        at = found.end()
        if marker != _EOI:
            length = int.from_bytes(data[at : at + 2])
            if length < 2 or at + length > len(data):
                raise ValueError(f"a segment at byte {at:,} that is said to have {length:,} bytes")
            at += length
        if marker == _SOS:
            at = _end_of_scan(data, at)


def _end_of_scan(data: bytes, at: int) -> int:
    """Where a scan is over that begins at `at`; its restart markers must count."""
    restarts = 0
    while found := _AFTER_SCAN.search(data, at):
        at = found.start()
        if found[0][1] not in _RESTARTS:
            return at
        if found[0][1] != _RESTARTS[restarts % 8]:
            raise ValueError(f"a restart out of turn at byte {at:,}")
        restarts, at = restarts + 1, found.end()
    raise ValueError("no end")
