"""Tiny ILSVRC2012 archives, with any part of them wrong on request."""

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

# The devkit's IDs follow this order, labels the sorted one.
WNIDS = ("n00000030", "n00000010", "n00000020")
COUNTS = dict.fromkeys(WNIDS, 2)
TRUTH = (3, 1, 2, 3)  # ILSVRC2012_IDs of the val images
TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def jpeg(seed: int, mode: str = "RGB", **options: object) -> bytes:
    """A JPEG of 24 x 16 px with noise of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(encoded, "JPEG", **options)
    return encoded.getvalue()


def tar(members: Mapping[str, bytes]) -> bytes:
    return members_tar(*members.items())


def members_tar(*members: tuple[str, bytes]) -> bytes:
    """A tar of members whose names need not differ."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def annotation(*boxes: Sequence[object], size: tuple[int, int] = (24, 16)) -> bytes:
    """Box XML; a box is (xmin, ymin, xmax, ymax) in pixels, size (width, height)."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "<object><name>n</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    extent = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{extent}{objects}</annotation>".encode()


def devkit(wnids: Sequence[str], counts: Mapping[str, int], truth: Sequence[object]) -> bytes:
    rows = [(i, w, f"thing {w[-2:]}, item", 0, counts.get(w, 0)) for i, w in enumerate(wnids, 1)]
    rows.append((len(wnids) + 1, "n00000001", "entity", len(wnids), 0))
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "num_train_images")
    synsets = np.array([tuple(row) for row in rows], [(field, object) for field in fields])
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data"
    lines = "".join(f"{label}\n" for label in truth).encode()
    members = {
        f"{data}/meta.mat": meta.getvalue(),
        f"{data}/ILSVRC2012_validation_ground_truth.txt": lines,
    }
    return gzip.compress(tar(members))


def class_tars(counts: Mapping[str, int]) -> dict[str, bytes]:
    return {
        f"{wnid}.tar": tar({f"{wnid}_{i}.JPEG": jpeg(i) for i in range(count)})
        for wnid, count in counts.items()
    }


def val_images(count: int) -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(i) for i in range(1, count + 1)}


def write(folder: Path, changed: Mapping[str, bytes | None] | None = None) -> Path:
    """Writes sound archives but for `changed`: other bytes for a name, or None to leave it out."""
    files = {
        TRAIN: tar(class_tars(COUNTS)),
        VAL: tar(val_images(len(TRUTH))),
        DEVKIT: devkit(WNIDS, COUNTS, TRUTH),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**files, **(changed or {})}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder
