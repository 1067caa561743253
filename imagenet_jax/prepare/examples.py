"""What the readers of archives and folders hand to the writer: light references to images, in order."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

NO_BOXES = np.zeros((0, 4), np.float32)


class Example(NamedTuple):
    """One labelled image.

    image: the encoded file. label: index into the dataset's classes.
    boxes: float32 [M, 4], (ymin, xmin, ymax, xmax) as shares of height and width.
    """

    image: bytes
    label: int
    file_name: str
    boxes: np.ndarray = NO_BOXES


class Reference(NamedTuple):
    """An example whose image is `size` bytes from `offset` in the file `path`; with a fault it is refused unread.

    boxes: as an Example has them, or the XML that states them.
    """

    path: str
    offset: int
    size: int
    label: int
    file_name: str
    boxes: np.ndarray | bytes = NO_BOXES
    fault: str = ""


class Checked(NamedTuple):
    """What became of one example: kept (no reason), repaired (both) or refused (no example).

    size: (width, height) in pixels of what is kept, where it was looked at. unturned: EXIF says to turn the image to
    see it upright, and it is kept as stored. corrupt: what libjpeg says is wrong with the pixels of what is kept.
    """

    example: Example | None
    reason: str = ""
    size: tuple[int, int] | None = None
    unturned: bool = False
    corrupt: str = ""


class Options(NamedTuple):
    """What is asked of a source, where its layout leaves it open.

    classes: a file that lists them. holdout: the share of train, class by class, that becomes a validation split,
    and the seed that chooses. memory: a directory where checksums and the like are kept for a resumed run; None keeps
    nothing. checksum: compare archives that claim to be official files with the published checksums.
    """

    classes: str | None = None
    holdout: float = 0.0
    seed: int = 0
    memory: Path | None = None
    checksum: bool = True


DEFAULTS = Options()


class Source(NamedTuple):
    """Where examples come from. splits are written in the order given.

    classes: names in label order. class_names: the same for people.
    splits: a Reference wherever the bytes can be found again, an Example where they stream by but once.
    totals: examples of each split, for the progress bar. sizes: bytes of each, from which shards are cut.
    variant: "original", or what was done to the images. layout: how they lie at `origin`, in words.
    left_out: files there that are no images, or images without a label: by ending their number, and one of them.
    official: checksums say that the images are those of ILSVRC2012, which every decoder is known to take.
    """

    name: str
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Iterable[Example | Reference]]
    totals: Mapping[str, int] = {}
    sizes: Mapping[str, int] = {}
    origin: str = ""
    variant: str = "original"
    layout: str = ""
    left_out: Mapping[str, tuple[int, str]] = {}
    official: bool = False
