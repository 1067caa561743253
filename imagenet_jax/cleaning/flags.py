"""What is wrong with an example, as far as numbers can tell: one function from measured rows to flags."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.cleaning import duplicates
from imagenet_jax.cleaning.label_errors import LabelErrors

TRAIN = "train"

# Every flag, with what it means.
FLAGS = {
    "undecodable": "the image cannot be decoded to its end",
    "corrupt": "part of the image is grey or noise: libjpeg says that its data are corrupt",
    "tiny": "the shorter side is below {side} px",
    "extreme_aspect": "the longer side is more than {aspect:g} times the shorter",
    "uniform": "the luminance varies by less than {contrast:g} of 255 (standard deviation)",
    "grey": "there is no colour (colourfulness below {colour:g})",
    "blurred": "nothing is sharp at 256 px (Laplacian below {sharpness:g} of the contrast)",
    "dark": "the mean luminance is below {brightness:g} of 255",
    "exact_duplicate": "an earlier example of the split has the same bytes or the same pixels",
    "near_duplicate": "an earlier example of the split is the same picture, resized, recompressed or retouched (pHash "
                      f"within {duplicates.DISTANCE} bits of 64, or {duplicates.REACH} where a quarter is the same; "
                      "thumbnails correlated by {correlation:g} or more)",
    "label_conflict": "an example with the same bytes or the same pixels has another label: one of the two is wrong, "
                      "or the image shows both",
    "leak": "another split has this training image, or nearly",
    "label_error": "out-of-fold predictions say that it is of another class (confident learning)",
}
PAIRED = ("exact_duplicate", "near_duplicate", "label_conflict", "leak")


class Thresholds(NamedTuple):
    """From where on an image is flagged: few images that teach something should be, so all lie far out.

    side: px; below it a crop for 224 px is enlarged sevenfold and more. aspect: the centre crop of a longer image
    shows less than a quarter. contrast: the palest of 20,000 photographs had 8. colour: JPEG noise alone
    makes up to 2 of a grey image. sharpness: of 200 photographs none was below 0.13; a Gaussian blur of 3 px at full
    size brings nine of ten below 0.1. brightness: night scenes with a lit object begin at about 8 and are at home
    at 20. correlation: of 240 million pairs of different pictures the most alike with near hashes had 0.92; copies of
    other size and quality have 0.97 and more.
    """

    side: int = 32
    aspect: float = 4.0
    contrast: float = 6.0
    colour: float = 2.0
    sharpness: float = 0.1
    brightness: float = 12.0
    correlation: float = 0.95


class Found(NamedTuple):
    """The m examples with a flag: rows int64 [m] ascending, what the manifest says of each, how bad it is."""

    rows: np.ndarray
    values: list[Any]
    severity: np.ndarray


def of_images(rows: np.ndarray, at: Thresholds) -> dict[str, Found]:
    """Flags that need nothing but the image itself, from measure.ROW [n]."""
    sides = np.stack([rows["width"], rows["height"]]).astype(np.int64)
    short, long = sides.min(axis=0), sides.max(axis=0)
    aspect = long / np.maximum(short, 1)
    good, uniform = rows["decodable"], rows["contrast"] < at.contrast
    return {
        "undecodable": _found(~good, ~good, 1),
        "corrupt": _found(good & rows["corrupt"], rows["corrupt"], 1),
        "tiny": _found(good & (short < at.side), short, -1),
        "extreme_aspect": _found(good & (aspect > at.aspect), aspect, 1),
        "uniform": _found(good & uniform, rows["contrast"], -1),
        "grey": _found(good & ~uniform & (rows["colour"] < at.colour), rows["colour"], -1),
        "blurred": _found(good & ~uniform & (rows["sharpness"] < at.sharpness), rows["sharpness"], -1),
        "dark": _found(good & (rows["brightness"] < at.brightness), rows["brightness"], -1),
    }


def of_pairs(rows: np.ndarray, starts: Mapping[str, int], at: Thresholds) -> dict[str, Found]:
    """Flags that name another example; the value is {"row": of the other, "distance": bits of pHash between them}.

    Of a group of duplicates within a split all but the first are flagged; of one that reaches into other splits all
    in the training split; of exact ones with several labels all, in every split.

    Args:
        rows: measure.ROW [n] of all splits, one after the other.
        starts: the first row of each split.
    """
    n, every = len(rows), np.arange(len(rows))
    split = np.searchsorted(list(starts.values()), every, "right")
    same_bytes = duplicates.exact_groups(rows["bytes_sha256"], np.ones(n, bool))
    same_pixels = duplicates.exact_groups(rows["pixels_sha256"], rows["decodable"])
    exact = duplicates.join(same_bytes, np.stack([every, same_pixels]))
    # Without contrast a hash is noise; and of exact duplicates one speaks for all.
    distinct = (exact == every) & rows["decodable"] & (rows["contrast"] >= at.contrast)
    alike = duplicates.look_again(rows["thumb"], rows["contrast"], at.correlation)
    near = duplicates.near_groups(rows["phash"], distinct, alike)
    near = duplicates.join(near, np.stack([every, exact]))
    # The first of a group within a split, as the one that stays.
    first_exact, first_near = (_first(group * len(starts) + split - 1) for group in (exact, near))
    again, copy = first_exact != every, (first_near != every) & (first_exact == every)
    found = {"exact_duplicate": _paired(rows, np.flatnonzero(again), first_exact[again]),
             "near_duplicate": _paired(rows, np.flatnonzero(copy), first_near[copy])}
    other = _contradicting(exact, rows["label"])
    found["label_conflict"] = _paired(rows, np.flatnonzero(other >= 0), other[other >= 0])
    if TRAIN in starts:
        inside = split == list(starts).index(TRAIN) + 1
        leaks = [_reach(group, inside) for group in (exact, near)]
        other = np.where(leaks[0] >= 0, leaks[0], leaks[1])
        found["leak"] = _paired(rows, np.flatnonzero(other >= 0), other[other >= 0])
    return found


def of_labels(errors: LabelErrors, row: np.ndarray) -> Found:
    """label_error, whose value names the class suggested; row: of each example that has probabilities, int64 [n]."""
    values = [{"suggested": int(s), "probability": _short(p), "given": _short(g)}
              for s, p, g in zip(errors.suggested, errors.probability, errors.given, strict=True)]
    return Found(row[errors.position], values, (errors.probability - errors.given).astype(np.float64))


def _found(mask: np.ndarray, value: np.ndarray, sign: int) -> Found:
    rows = np.flatnonzero(mask)
    values = [v if isinstance(v, bool | int) else _short(v) for v in value[rows].tolist()]
    return Found(rows, values, sign * value[rows].astype(np.float64))


def _first(group: np.ndarray) -> np.ndarray:
    """The lowest index with the same number, for each of [n]."""
    _, first, of = np.unique(group, return_index=True, return_inverse=True)
    return first[of]


def _contradicting(group: np.ndarray, label: np.ndarray) -> np.ndarray:
    """For each of [n] an index of its group that has another label, -1 where there is none; labels < 0 do not count."""
    out, labelled = np.full(len(group), -1), np.flatnonzero(label >= 0)
    lead = labelled[_first(group[labelled])]
    against = label[labelled] != label[lead]
    out[labelled[against]] = lead[against]
    leads, first = np.unique(lead[against], return_index=True)
    beside = ~against & np.isin(lead, leads)
    out[labelled[beside]] = labelled[against][first[np.searchsorted(leads, lead[beside])]]
    return out


def _reach(group: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """For each that is inside, the lowest index outside of the same group; -1 where there is none."""
    outside = np.flatnonzero(~inside)
    known, first = np.unique(group[outside], return_index=True)
    out = np.full(len(group), -1)
    reaching = inside & np.isin(group, known)
    out[reaching] = outside[first[np.searchsorted(known, group[reaching])]]
    return out


def _paired(rows: np.ndarray, flagged: np.ndarray, other: np.ndarray) -> Found:
    distance = np.bitwise_count(rows["phash"][flagged] ^ rows["phash"][other]).astype(np.int64)
    values = [{"row": int(o), "distance": int(d)} for o, d in zip(other, distance, strict=True)]
    return Found(flagged, values, -distance.astype(np.float64))


def _short(value: float) -> float:
    return round(float(value), 4)
