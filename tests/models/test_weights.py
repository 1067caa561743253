"""Weights to and from torch's names and files: round trips, and messages about files that do not fit."""

import pathlib
import pickle
import zipfile

import numpy as np
import parity
import pytest
from drawn_weights import draw
from flax import traverse_util

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import pickled, weights

SMALL = ["resnet18", "squeezenet1_0", "googlenet", "inception_v3", "efficientnet_b1", "tf_efficientnet_lite3"]
PICKLED = pathlib.Path(__file__).parent / "pickled"


def drawn(name: str):
    """Flat variables of the full network."""
    return traverse_util.flatten_dict(parity.drawn_variables(name), sep="/")


def export(name: str, flat, dialect: str = ""):
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return weights.to_torch(name, tree["params"], tree.get("batch_stats", {}), dialect)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize(("name", "dialect"), [(name, dialect) for name in SMALL for dialect in weights.dialects(name)])
def test_a_round_trip_is_bit_exact(name, dialect, tmp_path) -> None:
    flat, path = drawn(name), str(tmp_path / "folder" / "weights.safetensors")
    state = export(name, flat, dialect)
    assert len(state) == len(flat) + sum(key.endswith("/mean") for key in flat)  # no two tensors of one name
    weights.write(path, state)
    assert same(weights.from_torch(name, weights.read(path), list(flat)), flat)


def test_a_file_that_does_not_fit_shows_both_sides() -> None:
    flat = drawn("resnet18")
    state = export("resnet18", flat)
    state["surplus.weight"] = state.pop("layer1.0.conv1.weight")
    got = weights.from_torch("resnet18", state, list(flat))
    assert flat.keys() - got.keys() == {"params/layer1_0/conv1/kernel"}
    assert got.keys() - flat.keys() == {"surplus.weight"}


@pytest.mark.parametrize(("name", "dialect", "message"), [
    ("alexnet_2012", "", "alexnet_2012 has no counterpart in any library"),
    ("vgg11", "timm", "vgg11 has no counterpart in timm; choose torchvision")])
def test_a_model_that_a_library_has_not_is_told(name, dialect, message) -> None:
    with pytest.raises(UserError, match=message):
        export(name, {"params/conv1/kernel": draw("conv1.weight", (7, 7, 3, 64))}, dialect)


@pytest.mark.parametrize("file", ["zip.pth", "older.pth"])
def test_pickled_weights_are_read_without_torch(file) -> None:
    """`pickled/make.py` wrote them: every type, permuted and overlapping strides, a parameter, other things beside."""
    arrays = pickled.read(str(PICKLED / file))
    count = np.arange(24)
    wanted = {"permuted": count.reshape(2, 3, 4).transpose(2, 0, 1), "part": count[5:9], "half": count[:3] / 2,
              "bfloat16": count[:3] / 2, "counter": np.array(7), "empty": np.zeros((0, 3)), "parameter": count[:2],
              "truth": count[:3] > 0}
    assert arrays.keys() == wanted.keys()
    for name, array in arrays.items():
        assert array.shape == wanted[name].shape and np.array_equal(array.astype(float), wanted[name]), name
    types = {name: str(array.dtype) for name, array in arrays.items()}
    assert types == dict.fromkeys(("permuted", "part", "empty", "parameter"), "float32") | {
        "half": "float16", "bfloat16": "bfloat16", "counter": "int64", "truth": "bool"}


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickled_code_is_not_run(tmp_path) -> None:
    touched = tmp_path / "touched"
    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Evil(str(touched))}))
    (tmp_path / "older.pth").write_bytes(pickle.dumps(Evil(str(touched))))
    for file in ("evil.pth", "older.pth"):
        with pytest.raises(UserError, match=rf"{file} cannot be read as weights: it asks for \w+.open"):
            weights.read(str(tmp_path / file))
    assert not touched.exists()


@pytest.mark.parametrize("file", ["zip.pth", "older.pth"])
def test_a_cut_pickled_file_is_told(file, tmp_path) -> None:
    whole = (PICKLED / file).read_bytes()
    for size in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / file).write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{file} cannot be read as weights"):
            weights.read(str(tmp_path / file))


def test_damaged_and_missing_files_are_told(tmp_path) -> None:
    for ending in (".safetensors", ".pth"):
        with pytest.raises(UserError, match=f"there is no file .*none{ending}"):
            weights.read(str(tmp_path / f"none{ending}"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match=r"cut.safetensors cannot be read as safetensors"):
        weights.read(str(tmp_path / "cut.safetensors"))


def test_a_model_states_the_pixels_it_takes() -> None:
    """The weights that torchvision ported from TensorFlow want -1 to 1; those of Lite (x - 127) / 128."""
    means = {name: models.make(name, 0).mean[0] for name in ("resnet50", "googlenet", "tf_efficientnet_lite0")}
    assert means == {"resnet50": 123.675, "googlenet": 127.5, "tf_efficientnet_lite0": 127.0}
