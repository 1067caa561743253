"""Weights to and from torch's names: round trips, folded BatchNorms, and messages about files that do not fit."""

import jax
import numpy as np
import parity
import pytest
from drawn_weights import draw
from flax import traverse_util

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.models import weights


def drawn(name: str):
    """Flat variables of the full network."""
    tree = parity.drawn_variables(name, models.make(name, 1000), models.find(name).size)
    return traverse_util.flatten_dict(tree, sep="/")


def export(name: str, flat, **options):
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return weights.to_torch(name, tree["params"], tree.get("batch_stats", {}), **options)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize(("name", "library"), [
    (name, library) for name in models.REGISTRY for library in weights.libraries(name)
    if models.find(name).params < 30e6])
def test_a_round_trip_is_bit_exact(name, library, tmp_path) -> None:
    flat, path = drawn(name), str(tmp_path / "weights.safetensors")
    state = export(name, flat, library=library)
    assert len(state) == len(flat) + sum(key.endswith("/mean") for key in flat)  # no two tensors of one name
    weights.write(path, state)
    assert same(weights.from_torch(name, weights.read(path), list(flat)), flat)
    assert same(weights.from_torch(name, state, list(flat)), flat)


@pytest.mark.parametrize("name", ["resnet18", "resnet18d", "resnetv2_18"])
def test_folded_batch_norms_give_the_same_logits(name) -> None:
    model, flat = parity.build(name), drawn(name)
    folded = export(name, flat, fold=True)
    loaded = weights.from_torch(name, folded, list(flat))
    left = sum("running_mean" in key for key in folded)
    assert left == (17 if name == "resnetv2_18" else 0)  # those that come before a convolution
    assert loaded.keys() == flat.keys()
    x = parity.draw_images(64, 2)
    apply = jax.jit(model.apply, compiler_options=parity.FAST_COMPILE)
    ours, theirs = (np.asarray(apply(traverse_util.unflatten_dict(v, sep="/"), x)) for v in (flat, loaded))
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.ptp(ours))


def test_a_file_that_does_not_fit_shows_both_sides() -> None:
    flat = drawn("resnet18")
    state = export("resnet18", flat)
    state["surplus.weight"] = state.pop("layer1.0.conv1.weight")
    got = weights.from_torch("resnet18", state, list(flat))
    assert flat.keys() - got.keys() == {"params/layer1_0/conv1/kernel"}
    assert got.keys() - flat.keys() == {"surplus.weight"}


@pytest.mark.parametrize(("name", "library", "message"), [
    ("resnet50_v1", "", "resnet50_v1 has no counterpart in torchvision or timm"),
    ("resnet18d", "torchvision", "resnet18d has no counterpart in torchvision; choose timm")])
def test_a_model_that_a_library_has_not_is_told(name, library, message) -> None:
    flat = {"params/conv1/kernel": draw("conv1.weight", (7, 7, 3, 64))}
    with pytest.raises(UserError, match=message):
        export(name, flat, library=library)


def test_damaged_and_missing_files_are_told(tmp_path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        weights.read(str(tmp_path / "none.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match=r"cut.safetensors cannot be read as safetensors"):
        weights.read(str(tmp_path / "cut.safetensors"))
