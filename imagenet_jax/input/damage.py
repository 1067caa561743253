"""What training shows where a picture cannot be read or decoded after all, so that it does not end a run of days.

All of it is a function of the stream and of what lies on disk: every host and every number of devices shows the same.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from imagenet_jax import jpeg
from imagenet_jax.dataset import RecordError, Records

TRIES = 8  # examples, one after the other, that cannot be read: then the shard is lost, or the disk


def read(records: Records, index: np.ndarray, after: Callable[[int], int] | None
         ) -> tuple[list[bytes], np.ndarray, list[str]]:
    """The records at each index; where one is damaged on disk, the next that is not.

    after: gives the index to look at next; None where damage is an error.

    Returns:
        The records; their indices; for each what is wrong and shown instead, or ''.

    Raises:
        UserError: a file is lost; where damage is forgiven, TRIES examples in a row are.
    """
    try:
        return records.read(index), index, [""] * len(index)
    except RecordError:
        if after is None:
            raise
    found, shown, faults = zip(*(_read_one(records, int(wanted), after) for wanted in index), strict=True)
    return list(found), np.array(shown, np.int64), list(faults)


def _read_one(records: Records, wanted: int, after: Callable[[int], int]) -> tuple[bytes, int, str]:
    index, error = wanted, None
    for _ in range(TRIES):
        try:
            (record,) = records.read([index])
        except RecordError as damage:
            index, error = after(index), error or damage
        else:
            fault = f"example {wanted:,} cannot be read ({error}). Example {index:,} is shown in its place"
            return record, index, fault if error else ""
    raise error


def next_of(pool: np.ndarray) -> Callable[[int], int]:
    """The example of an ascending pool that follows one, the first after the last."""
    return lambda index: int(pool[np.searchsorted(pool, index, "right") % len(pool)])


def decodable_part(encoded: bytes, size: tuple[int, int]) -> bytes:
    """A JPEG that cannot be decoded to its end, as a PNG of what can, the rest grey; empty where nothing can.

    size: height and width that its header states.
    """
    pixels = jpeg.decoded(encoded)
    return b"" if pixels is None or pixels.shape[:2] != size else _png(pixels)


def _png(pixels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


GREY = _png(np.full((1, 1, 3), 128, np.uint8))  # a picture of one pixel
