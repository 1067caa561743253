"""Layers against the plain operation or a numpy formula, in value and in gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_same, draw
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from imagenet_jax.models import layers
from imagenet_jax.models.layers import AXIS, BatchNorm


def batch_norm(x: np.ndarray, group: int, scale: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, ...]:
    """The formula: output, mean over groups of the means, and of the unbiased variances."""
    groups = x.reshape(-1, group, *x.shape[1:]).astype(np.float64)
    axes = tuple(range(1, groups.ndim - 1))
    mean, var = groups.mean(axes, keepdims=True), groups.var(axes, keepdims=True)
    out = (groups - mean) / np.sqrt(var + 1e-5) * scale + bias
    return out.reshape(x.shape), groups.mean(axes).mean(0), groups.var(axes, ddof=1).mean(0)


def apply_norm(variables: dict, x: jax.Array, group: int, **options) -> tuple[jax.Array, dict]:
    """Output, and batch_stats afterwards, of a BatchNorm in training."""
    norm = BatchNorm(group, train=True, **options)
    out, updated = jax.jit(lambda *args: norm.apply(*args, mutable=["batch_stats"]))(variables, x)
    return out, updated["batch_stats"]


def variables_of(channels: int, dtype=jnp.float32) -> dict:
    at = lambda seed: draw(seed, channels, dtype=dtype)
    return {"params": {"scale": at(3), "bias": at(4)}, "batch_stats": {"mean": at(5), "var": jnp.abs(at(6))}}


@pytest.mark.parametrize(("group", "shape"), [(2, (8, 3, 5, 4)), (8, (8, 3, 5, 4)), (4, (8, 4))])
def test_batch_norm_normalises_each_group_apart(group, shape) -> None:
    with jax.enable_x64(True):
        x, variables = 3 * draw(1, *shape, dtype=np.float64) + 2, variables_of(4, jnp.float64)
        out, got = apply_norm(variables, x, group, momentum=0.8, dtype=jnp.float64)
    params, stats = jax.device_get((variables["params"], variables["batch_stats"]))
    wanted, mean, var = batch_norm(np.asarray(x), group, **params)
    np.testing.assert_allclose(out, wanted, rtol=1e-9)
    np.testing.assert_allclose(got["mean"], 0.8 * stats["mean"] + 0.2 * mean, rtol=1e-9)
    np.testing.assert_allclose(got["var"], 0.8 * stats["var"] + 0.2 * var, rtol=1e-9)


def on_devices(mode: str, devices: int, f: Callable, variables, x: jax.Array, cotangent: jax.Array):
    """f on each device's share: outputs in order, gradients summed and statistics averaged over devices."""

    def one(variables, x, cotangent):
        out, pull, stats = jax.vjp(lambda params, x: f({**variables, "params": params}, x), variables["params"], x,
                                   has_aux=True)
        grads, to_x = pull(cotangent)
        return out, to_x, lax.psum(grads, AXIS), lax.pmean(stats, AXIS)

    if mode == "pmap":
        cut = lambda v: v.reshape(devices, -1, *v.shape[1:])
        out, to_x, *replicated = jax.pmap(one, AXIS, in_axes=(None, 0, 0), devices=jax.devices()[:devices])(
            variables, cut(x), cut(cotangent))
        return out.reshape(x.shape), to_x.reshape(x.shape), *jax.tree.map(lambda v: v[0], replicated)
    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    mapped = jax.shard_map(one, mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=(P(AXIS), P(AXIS), P(), P()),
                           check_vma=False)
    return jax.jit(mapped)(variables, x, cotangent)


@pytest.mark.parametrize(("mode", "group", "devices"), [
    ("pmap", 8, 2), ("pmap", 8, 8), ("pmap", 4, 2), ("pmap", 16, 8), ("pmap", 2, 8),
    ("shard_map", 8, 8), ("shard_map", 4, 2)])
def test_batch_norm_does_not_depend_on_the_devices(mode, group, devices) -> None:
    with jax.enable_x64(True):
        x, cotangent = (draw(seed, 16, 3, 3, 4, dtype=np.float64) for seed in (1, 2))
        variables = variables_of(4, jnp.float64)

        apply = lambda variables, x: apply_norm(variables, x, group, dtype=jnp.float64)
        assert_same(on_devices(mode, devices, apply, variables, x, cotangent),
                    on_devices("shard_map", 1, apply, variables, x, cotangent), 1e-12)


def test_batch_norm_refuses_a_group_that_devices_cannot_share() -> None:
    with pytest.raises(ValueError, match="bn_group 3 .* 8 examples"):
        apply_norm(variables_of(4), draw(1, 8, 2, 2, 4), 3)


@pytest.mark.parametrize("how", ["evaluation", "frozen"])
def test_batch_norm_with_running_statistics_is_affine_and_leaves_them(how) -> None:
    asked = []
    norm = BatchNorm(8, train=how == "frozen", frozen=lambda path: not asked.append(path))
    x, variables = draw(1, 8, 2, 2, 4), variables_of(4)
    out, updated = norm.apply(variables, x, mutable=["batch_stats"])
    params, stats = variables["params"], variables["batch_stats"]
    wanted = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(out, wanted, atol=1e-5)
    assert all(np.array_equal(updated["batch_stats"][key], stats[key]) for key in stats)
    assert asked == (["scale"] if how == "frozen" else [])


@pytest.mark.parametrize("mean", [1e2, 1e3, 1e4])
def test_batch_norm_keeps_its_digits_far_from_zero(mean) -> None:
    """Channels whose mean is up to 10,000 deviations from zero, once the running mean is near."""
    x = (np.random.default_rng(0).standard_normal((32, 16, 16, 4)) + mean).astype(np.float32)
    variables = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
                 "batch_stats": {"mean": jnp.full(4, 0.999 * mean), "var": jnp.ones(4)}}
    out, stats = apply_norm(variables, x, 32, momentum=0.0)
    _, _, var = batch_norm(x, 32, np.ones(4), np.zeros(4))
    np.testing.assert_allclose(stats["var"], var, rtol=1e-4)
    np.testing.assert_allclose(np.std(out, (0, 1, 2)), 1, rtol=1e-3)


def test_batch_norm_of_a_constant_channel_is_its_bias_and_differentiable() -> None:
    x, variables = jnp.broadcast_to(jnp.array([0.0, 7.0, -300.0, 1e4]), (8, 4, 4, 4)), variables_of(4)
    out, pull, _ = jax.vjp(lambda x: apply_norm(variables, x, 8), x, has_aux=True)
    np.testing.assert_allclose(out[..., 0], variables["params"]["bias"][0], rtol=1e-6)
    assert np.isfinite(out).all() and np.isfinite(pull(out)[0]).all()


def test_bfloat16_batch_norm_takes_its_statistics_in_float32() -> None:
    x = (draw(1, 8, 4, 4, 4) + 30).astype(jnp.bfloat16)
    out, stats = apply_norm(variables_of(4), x, 8, momentum=0.0, dtype=jnp.bfloat16)
    assert out.dtype == jnp.bfloat16
    _, mean, var = batch_norm(np.asarray(x, np.float64), 8, np.ones(4), np.zeros(4))
    for got, wanted in ((stats["mean"], mean), (stats["var"], var)):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-3)  # bfloat16 would be off by 4e-3


def test_torch_uniform_fills_its_interval() -> None:
    drawn = layers.torch_uniform(25)(jax.random.key(0), (10_000,))
    assert -0.2 <= drawn.min() < -0.19 and 0.19 < drawn.max() <= 0.2 and abs(drawn.mean()) < 0.01
