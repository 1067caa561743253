"""Freezing: patterns choose paths, mistakes are told, nothing is lost or changed on the way."""

import jax
import numpy as np
import pytest

from imagenet_jax.errors import UserError
from imagenet_jax.transfer import freeze

PARAMS = {
    "conv1": {"kernel": np.full((3, 3), 1.0)},
    "bn1": {"scale": np.full(3, 2.0), "bias": np.full(3, 3.0)},
    "layer1_0": {"conv1": {"kernel": np.full((2, 2), 4.0)}, "bn1": {"scale": np.full(2, 5.0)}},
    "head": {"kernel": np.full((2, 4), 6.0), "bias": np.full(4, 7.0)},
}


@pytest.mark.parametrize(
    ("patterns", "trainable"),
    [
        ((), {"conv1/kernel", "bn1/scale", "bn1/bias", "layer1_0/conv1/kernel"}
         | {"layer1_0/bn1/scale", "head/kernel", "head/bias"}),
        (("!^head/",), {"head/kernel", "head/bias"}),
        (("!^head/", "!^layer1_"), {"head/kernel", "head/bias", "layer1_0/conv1/kernel"}
         | {"layer1_0/bn1/scale"}),
        (("^conv1/", "^bn1/", "^layer1_", "!scale$"), {"head/kernel", "head/bias", "bn1/scale"}
         | {"layer1_0/bn1/scale"}),
        (("conv1", "head/kernel"), {"bn1/scale", "bn1/bias", "layer1_0/bn1/scale", "head/bias"}),
    ],
)  # fmt: skip
def test_patterns_choose_paths(patterns: tuple[str, ...], trainable: set[str]) -> None:
    ours, frozen = freeze.split(PARAMS, patterns)
    assert ours.keys() == trainable
    assert not ours.keys() & frozen.keys()
    assert all(freeze.is_frozen(path, patterns) for path in frozen)
    assert not any(freeze.is_frozen(path, patterns) for path in ours)
    merged = freeze.merge(ours, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)


def test_gradients_flow_to_the_trainable_only_and_inside_jit() -> None:
    trainable, frozen = freeze.split(PARAMS, ("!^head/",))

    @jax.jit
    def loss(trainable: dict, frozen: dict) -> jax.Array:
        params = freeze.merge(trainable, frozen)
        again, _ = freeze.split(params, ("!^head/",))
        assert again.keys() == {"head/kernel", "head/bias"}
        return sum(leaf.sum() for leaf in jax.tree.leaves(params))

    assert jax.grad(loss)(trainable, frozen).keys() == {"head/kernel", "head/bias"}


def test_a_pattern_without_a_match_names_the_nearest_paths() -> None:
    with pytest.raises(UserError, match=r"'\^haed/' matches no parameter.*head"):
        freeze.split(PARAMS, ("^conv1/", "^haed/"))
    with pytest.raises(UserError, match=r"'!\^laier1_0' matches no parameter.*layer1_0"):
        freeze.split(PARAMS, ("!^laier1_0",))


def test_other_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="not a regular expression"):
        freeze.split(PARAMS, ("layer(",))
    with pytest.raises(UserError, match="nothing is left to train"):
        freeze.split(PARAMS, (".",))
