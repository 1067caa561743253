"""Weights both ways between our trees and the state_dicts of torchvision and timm.

A model's `Spec.names` says, for each library, which regular expressions turn the path of a tensor of ours, written
with dots and torch's names for the leaves (`conv1.weight`, `bn1.running_mean`), into the library's name. Arrays differ
in layout only: convolution kernels HWIO here are OIHW there, dense kernels [I, O] are [O, I]. A name that is made to
end in `|1x1` has two more axes of one there, as dense layers written as convolutions have.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from imagenet_jax import models
from imagenet_jax.errors import UserError

Names = list[tuple[str, str]]
PICKLED = (".pth", ".pt", ".bin")
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
COUNTER = "num_batches_tracked"  # torch counts training steps of each BatchNorm; nothing depends on it


def libraries(name: str) -> tuple[str, ...]:
    """The libraries whose names are known for model `name`, its reference's first."""
    spec = models.find(name)
    return tuple(sorted(spec.names, key=lambda library: library != spec.reference.split(":")[0]))


def torch_name(path: str, patterns: Names) -> str:
    """A library's name for our path, such as `params/conv1/kernel`, with its `|1x1` if it has one."""
    _, *modules, leaf = path.split("/")
    word = ".".join([*modules, LEAVES.get(leaf, leaf)])
    for pattern, replacement in patterns:
        word = re.sub(pattern, replacement, word)
    return word


def to_torch(name: str, params: Any, batch_stats: Any, library: str = "", fold: bool = False) -> dict[str, np.ndarray]:
    """The state_dict that a library's model loads strictly.

    Args:
        name: of the model.
        params, batch_stats: nested dicts of arrays.
        library: 'torchvision' or 'timm'; by default that of the model's reference.
        fold: work the BatchNorm that follows a convolution into its kernel and a bias, as inference engines do.

    Raises:
        UserError: the model has no names in that library.
    """
    known = libraries(name)
    library = library or (known[0] if known else "")
    if library not in known:
        choice = f"; choose {' or '.join(known)}" if known else ""
        raise UserError(f"{name} has no counterpart in {library or 'torchvision or timm'}{choice}")
    flat = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/")
    flat = {path: np.asarray(leaf) for path, leaf in flat.items()}
    if fold:
        flat = _fold(flat, epsilon(name))
    out = {}
    for path, leaf in flat.items():
        word, _, axes = torch_name(path, models.find(name).names[library]).partition("|")
        leaf = _to_layout(path, leaf)
        out[word] = leaf[..., None, None] if axes else leaf
        if path.endswith("/mean"):
            out[f"{word.rpartition('.')[0]}.{COUNTER}"] = np.zeros((), np.int64)
    return out


def _to_layout(path: str, leaf: np.ndarray) -> np.ndarray:
    if path.endswith("kernel"):
        leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
    return np.ascontiguousarray(leaf)


def from_torch(name: str, state_dict: Mapping[str, np.ndarray], paths: list[str]) -> dict[str, np.ndarray]:
    """Our flat tree from a state_dict in whichever library's names fit best.

    Args:
        name: of the model.
        state_dict: arrays by name.
        paths: of our model, as `params/conv1/kernel` and `batch_stats/bn1/mean`.

    Returns:
        Arrays by path in our layout. What the file lacks is missing; what our model lacks is there under its own
        name, so that a diff shows both. Batch counters are left out. Where the file has a convolution's bias instead of
        a BatchNorm, the BatchNorm is one that adds this bias and changes nothing else.

    Raises:
        UserError: nobody's names are known for the model.
    """
    if not libraries(name):
        raise UserError(f"{name} has no counterpart in torchvision or timm to read weights from")
    theirs = {word: np.asarray(leaf) for word, leaf in state_dict.items() if not word.endswith(COUNTER)}
    folded = {_conv_of(norm) + "/bias": norm for path in paths if (norm := _norm_of(path))}
    maps = []
    for library in libraries(name):
        words = {path: torch_name(path, models.find(name).names[library]).partition("|") for path in (*paths, *folded)}
        maps.append({path: (word, bool(axes)) for path, (word, _, axes) in words.items()})
    words = max(maps, key=lambda words: len(theirs.keys() & {word for word, _ in words.values()}))
    out = {}
    for path, (word, axes) in words.items():
        if word in theirs:
            leaf = theirs.pop(word)
            out[path] = _from_layout(path, leaf[..., 0, 0] if axes and leaf.shape[-2:] == (1, 1) else leaf)
    for bias, norm in folded.items():
        if bias in out and bias not in paths and f"{norm}/scale" not in out:
            out |= _adding(norm, out.pop(bias), epsilon(name))
    return out | theirs


def _from_layout(path: str, leaf: np.ndarray) -> np.ndarray:
    if not path.endswith("kernel"):
        return leaf
    return leaf.transpose(2, 3, 1, 0) if leaf.ndim == 4 else leaf.T


def epsilon(name: str) -> float:
    """What the BatchNorms of a model add to variances; 0 for one that has none."""
    return getattr(models.make(name, 0), "bn_epsilon", 0.0)


def _norm_of(path: str) -> str:
    """The path of the BatchNorm after a convolution if this is its scale, else ''."""
    norm, _, leaf = path.rpartition("/")
    return norm if leaf == "scale" and "bn" in norm.rpartition("/")[2] else ""


def _conv_of(norm: str) -> str:
    """The path of the convolution before a BatchNorm: `conv1` of `bn1`, `conv` of `bn`.

    By convention of the zoo a BatchNorm is called so only after a convolution, and `norm...` elsewhere.
    """
    parent, slash, word = norm.rpartition("/")
    return parent + slash + word.replace("bn", "conv")


def _fold(flat: Mapping[str, np.ndarray], epsilon: float) -> dict[str, np.ndarray]:
    out = dict(flat)
    for norm in filter(None, map(_norm_of, flat)):
        conv, stats = _conv_of(norm), norm.replace("params/", "batch_stats/", 1)
        if f"{conv}/kernel" not in out or f"{conv}/bias" in out:
            continue
        scale, bias, mean, var = (out.pop(path) for path in (
            f"{norm}/scale", f"{norm}/bias", f"{stats}/mean", f"{stats}/var"))
        gain = scale / np.sqrt(var + epsilon)
        out[f"{conv}/kernel"] = out[f"{conv}/kernel"] * gain
        out[f"{conv}/bias"] = bias - mean * gain
    return out


def _adding(norm: str, bias: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    stats = norm.replace("params/", "batch_stats/", 1)
    return {f"{norm}/scale": np.ones_like(bias), f"{norm}/bias": bias, f"{stats}/mean": np.zeros_like(bias),
            f"{stats}/var": np.full_like(bias, 1 - epsilon)}


def is_file(path: str) -> bool:
    """Whether a path names a file of weights, not a checkpoint."""
    return path.endswith((".safetensors", *PICKLED))


def read(path: str) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file, or of a .pth file (which needs torch, and runs none of its code), in float32.

    Raises:
        UserError: there is no such file, it is damaged, or torch is not installed.
    """
    if not os.path.exists(path):
        raise UserError(f"there is no file {path}")
    if path.endswith(".safetensors"):
        try:
            arrays = safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    else:
        arrays = _read_pickled(path)
    return {word: leaf.astype(np.float32) if leaf.dtype.kind in "fV" else leaf for word, leaf in arrays.items()}


def _read_pickled(path: str) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"reading {path} takes torch: pip install torch, or convert it to .safetensors") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} is not a file of weights alone: {str(error).splitlines()[0]}") from error
    for key in ("state_dict", "model"):  # where training scripts put it
        state = state[key] if isinstance(state.get(key), dict) else state
    return {word: leaf.float().numpy() if leaf.is_floating_point() else leaf.numpy() for word, leaf in state.items()
            if hasattr(leaf, "numpy")}


def write(path: str, arrays: Mapping[str, np.ndarray], **notes: str) -> None:
    """Writes a .safetensors file with notes about its origin; a file of that name is replaced once all is written."""
    safetensors.numpy.save_file({word: np.asarray(leaf, order="C") for word, leaf in arrays.items()}, path + ".tmp",
                                {"format": "pt", **notes})
    os.replace(path + ".tmp", path)
