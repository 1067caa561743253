"""An index on disk: what a network makes of many pictures, to search among.

    INDEX/index.json        the pictures' names and labels, their classes, where they lie, which network it was; CRCs,
                            and a seal
    INDEX/features.f32      pooled features, float32 [N, D], each of length 1; little-endian, row by row
    INDEX/pixels.f32        what the network saw of each, small, likewise; if it was asked for
"""

import contextlib
import functools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from imagenet_jax import checkpoint, durable, models, trees
from imagenet_jax import dataset as dataset_lib
from imagenet_jax.classes import Classes
from imagenet_jax.dataset.places import local_folder
from imagenet_jax.errors import UserError
from imagenet_jax.inference.images import Images, Picture, called, of_split
from imagenet_jax.inference.predict import Prediction
from imagenet_jax.models import weights
from imagenet_jax.training.evaluating import Trained

FORMAT = 1
_CARD = "index.json"
_READ_AT_ONCE = 2**26  # bytes


class Index(NamedTuple):
    """Pictures by place.

    vectors: by kind, float32 [N, D] of length 1, mapped from disk. labels: int32 [N] of the classes; None, as those
    are, where the pictures are of no dataset. network: see `network_of`. source: see `source_of`; empty where an older
    version made the index. places: int64 [N], in that split or among those files.
    """

    directory: str
    names: list[str]
    vectors: dict[str, np.ndarray]
    labels: np.ndarray | None
    classes: Classes | None
    network: dict[str, str]
    source: dict[str, str]
    places: np.ndarray


class Made(NamedTuple):
    """How many pictures an index has, and the (name, fault) of those it has not."""

    count: int
    faults: list[tuple[str, str]]


def network_of(trained: Trained, path: str, model_name: str = "") -> dict[str, str]:
    """What an index remembers of its network: how to open it again, and the seal of all that features come from."""
    if path not in models.REGISTRY:
        path = os.path.abspath(path) if weights.is_file(path) else os.path.join(*map(str, checkpoint.resolve(path)))
    return {"path": path, "model": model_name, "name": trained.config.model.name, "seal": _seal(trained)}


def source_of(directory: str = "", split: str = "") -> dict[str, str]:
    """What an index knows of where its pictures are: a dataset's split, or the folder that names are relative to."""
    if not directory:
        return {"folder": os.getcwd()}
    return {"dataset": directory if "://" in directory else os.path.abspath(directory), "split": split}


def is_index(directory: str) -> bool:
    """Whether there is one, whole or damaged."""
    return os.path.exists(os.path.join(directory, _CARD))


def check_place(directory: str) -> None:
    """Raises UserError if no index can be made there."""
    place = local_folder(directory, "index")
    if place.exists() and not (place.is_dir() and not os.listdir(place)):
        what = "is an index already" if is_index(directory) else "is there already, and no empty folder"
        raise UserError(f"{directory} {what}: remove it, or choose another place for the new one")


def write(directory: str, found: Iterable[Prediction], network: Mapping[str, str], source: Mapping[str, str],
          classes: Classes | None = None) -> Made:
    """Makes an index of all pictures without a fault, or none at all.

    found: of all that the source has, in its order.

    Raises:
        UserError: no picture is left, or features are not finite.
    """
    with durable.folder(local_folder(directory, "index")) as aside:
        poured = _pour(aside, found)
        if not poured.names:
            reason = ": ".join(poured.faults[0]) if poured.faults else "there is none"
            raise UserError(f"no picture for an index: {reason}")
        known = classes is not None and min(poured.labels) >= 0
        content = {"format": FORMAT, "network": network, "source": source, "left_out": poured.left_out,
                   "names": poured.names, "widths": poured.widths, "crcs": poured.crcs,
                   "labels": poured.labels if known else None,
                   "classes": list(classes) if known else None}
        with open(os.path.join(aside, _CARD), "w", encoding="utf-8") as file:
            json.dump(content | {"seal": durable.seal(content)}, file)
    return Made(len(poured.names), poured.faults)


def open_index(directory: str) -> Index:
    """Opens an index; all of it is read once, and compared with its checksums.

    Raises:
        UserError: there is none, or it is damaged, or of a newer format.
    """
    if not is_index(directory):
        raise UserError(f"there is no index at {directory}: make it with --checkpoint=C, or --workdir=RUN, and the "
                        "pictures to search among")
    try:
        with open(os.path.join(directory, _CARD), encoding="utf-8") as file:
            content = json.load(file)
        if content["format"] > FORMAT:
            raise UserError(f"{directory} is an index of a newer format: update this package, or make it anew")
        if content.pop("seal") != durable.seal(content):
            raise ValueError(f"{_CARD} is not what was written")
        vectors = {kind: _mapped(directory, kind, len(content["names"]), content) for kind in content["widths"]}
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise UserError(f"the index {directory} is damaged ({error}): copy it again, or remove it and make it anew"
                        ) from error
    labels = None if content["labels"] is None else np.array(content["labels"], np.int32)
    classes = None if labels is None else Classes(*map(tuple, content["classes"]))
    left_out = content.get("left_out", [])
    places = np.delete(np.arange(len(content["names"]) + len(left_out)), left_out)
    return Index(directory, content["names"], vectors, labels, classes, content["network"], content.get("source", {}),
                 places)


def pictures(index: Index) -> Images:
    """The pictures of an index, by place in it; what is no longer where it was has a fault."""
    if "folder" in index.source:
        return called(index.names, index.source["folder"])

    def gone(place: int, fault: str = "the index does not say where it is") -> Picture:
        return Picture(index.names[place], fault=fault)

    if not index.source:
        return Images(len(index.names), gone)
    try:
        dataset = dataset_lib.open_dataset(index.source["dataset"])
        split = of_split(dataset_lib.open_split(dataset, index.source["split"]))
    except UserError as error:
        return Images(len(index.names), functools.partial(gone, fault=str(error)))

    def load(place: int) -> Picture:
        there = int(index.places[place])
        try:
            picture = split.load(there) if there < split.count else None
        except (UserError, OSError) as error:
            return gone(place, str(error))
        known = picture and picture.name == index.names[place]
        return picture if known else gone(place, "the dataset has another picture there now")

    return Images(len(index.names), load)


def check_network(index: Index, trained: Trained) -> None:
    """Raises UserError if features of a network do not compare with those of an index."""
    if _seal(trained) != index.network["seal"]:
        made_by = f"{index.network['name']}, {index.network['path']} as it was then"
        raise UserError(f"the index {index.directory} was made by {made_by}. {trained.config.model.name}, "
                        f"{trained.source}, is another network, whose features do not compare: make an index with it")


def unit(vector: np.ndarray, name: str) -> np.ndarray:
    """A vector made float32 of length 1; one of zeros stays as it is.

    Raises:
        UserError: it is not finite.
    """
    if not np.isfinite(vector).all():
        raise UserError(f"what the network makes of {name} is not finite: it cannot be searched for")
    length = np.linalg.norm(vector.astype(np.float64))
    return (vector / (length or 1)).astype("<f4")


def _seal(trained: Trained) -> str:
    """The CRC of all that features come from."""
    return durable.seal({"weights": trees.digests(trained.variables), "view": trained.config.view.to_dict()})


class _Poured(NamedTuple):
    names: list[str]
    labels: list[int]
    faults: list[tuple[str, str]]
    left_out: list[int]
    widths: dict[str, int]
    crcs: dict[str, int]


def _pour(folder: str, found: Iterable[Prediction]) -> _Poured:
    """Writes the vectors of all pictures without a fault into files of their kinds."""
    poured = _Poured([], [], [], [], {}, {})
    with contextlib.ExitStack() as stack:
        files = {}
        for place, each in enumerate(found):
            name, vectors = each.picture.name, {"features": each.features, "pixels": each.pixels}
            if each.picture.fault:
                poured.faults.append((name, each.picture.fault))
                poured.left_out.append(place)
                continue
            poured.names.append(name)
            poured.labels.append(each.picture.label)
            for kind, vector in vectors.items():
                if vector is None:
                    continue
                if kind not in files:
                    files[kind] = stack.enter_context(open(_path(folder, kind), "wb"))
                row = unit(vector, name)
                files[kind].write(row)
                poured.widths[kind] = len(row)
                poured.crcs[kind] = google_crc32c.extend(poured.crcs.get(kind, 0), row.view(np.uint8))
    return poured


def _path(folder: str, kind: str) -> str:
    return os.path.join(folder, f"{kind}.f32")


def _mapped(directory: str, kind: str, count: int, content: Mapping[str, Any]) -> np.ndarray:
    """float32 [count, width] of a file, compared with its CRC.

    Raises:
        ValueError: it is not what was written.
    """
    path, crc = _path(directory, kind), 0
    if os.path.getsize(path) != count * content["widths"][kind] * 4:
        raise ValueError(f"{kind}.f32 is not as long as it was")
    vectors = np.memmap(path, "<f4", "r", shape=(count, content["widths"][kind]))
    whole = vectors.reshape(-1).view(np.uint8)
    for start in range(0, len(whole), _READ_AT_ONCE):
        crc = google_crc32c.extend(crc, np.asarray(whole[start : start + _READ_AT_ONCE]))
    if crc != content["crcs"][kind]:
        raise ValueError(f"{kind}.f32 is not what was written")
    return vectors
