"""The manifest of a cleaned dataset: JSON lines, a header that names the dataset, then one flagged example a line.

    {"manifest": 1, "dataset": "imagenet", "splits": {"train": 1281167, ...}, "flags": [...], ...}
    {"split": "train", "index": 7, "file_name": "n01440764_10042.JPEG", "label": 0, "flags": {"grey": 0.31}}
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from imagenet_jax import durable
from imagenet_jax.cleaning.flags import FLAGS
from imagenet_jax.dataset import Dataset
from imagenet_jax.errors import UserError

VERSION = 1
_HEADER, _LINE = {"dataset", "splits", "flags"}, {"split", "index", "flags"}


def write(path: str, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes a manifest, whole or not at all."""
    with durable.create(path) as file:
        for line in ({"manifest": VERSION, **header}, *lines):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def excluded(path: str, dataset: Dataset, split: str, flags: Sequence[str] = ()) -> np.ndarray:
    """Indices int64 [m], ascending, of the examples of a split that a manifest flags.

    Args:
        flags: only examples with one of these; empty for any flag.

    Raises:
        UserError: no manifest, one of another dataset, or a flag that it does not look for.
    """
    lines = _read(path)
    header = next(lines)
    if (header["dataset"], header["splits"]) != (dataset.name, dataset.splits):
        raise UserError(f"{path} is the manifest of {header['dataset']} {header['splits']}, but {dataset.directory} is "
                        f"{dataset.name} {dataset.splits}. Run `python -m imagenet_jax clean` on the latter.")
    for flag in flags:
        if flag not in header["flags"]:
            close = difflib.get_close_matches(flag, FLAGS, 1)
            hint = f"did you mean {close[0]!r}?" if close and close[0] in header["flags"] else \
                f"there is {', '.join(header['flags'])}"
            raise UserError(f"dataset.exclude_flags: {path} has no flag {flag!r}; {hint}")
    wanted = set(flags or header["flags"])
    return np.array(sorted(line["index"] for line in lines if line["split"] == split and wanted & line["flags"].keys()),
                    np.int64)


def _read(path: str) -> Iterator[dict[str, Any]]:
    """The header, then the lines."""
    try:
        with open(path, encoding="utf-8") as file:
            number = -1
            for number, text in enumerate(file):
                line = json.loads(text)
                if number == 0 and line["manifest"] > VERSION:
                    raise UserError(f"{path} has format {line['manifest']}; this version reads up to {VERSION}")
                if lacking := (_LINE if number else _HEADER) - line.keys():
                    raise ValueError(f"line {number + 1} has no {', '.join(sorted(lacking))}")
                yield line
            if number < 0:
                raise ValueError("it is empty")
    except OSError as error:
        raise UserError(f"no manifest {path} ({error.strerror}); `python -m imagenet_jax clean` writes one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no manifest that `python -m imagenet_jax clean` wrote: {error}") from error
