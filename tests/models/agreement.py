"""Two ways to the same numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def draw(seed: int, *shape: int, dtype=np.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def assert_same(got, wanted, tolerance: float) -> None:
    """Leaf by leaf within `tolerance` of the leaf's largest number, in the same dtype."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))


def assert_equal_with_gradients(f: Callable, g: Callable, dtype: str, *shapes: tuple[int, ...], ties: bool = False):
    """f and g agree, with their gradients, on arrays drawn at random."""
    with jax.enable_x64(dtype == "float64"):
        args = [draw(seed, *shape, dtype=dtype) for seed, shape in enumerate(shapes)]
        if ties:  # as after a ReLU: whole windows of zeros, and equal maxima
            args = [jnp.concatenate([x, jnp.maximum(jnp.round(x), 0)]) for x in args]
        cotangent = draw(99, *jax.eval_shape(f, *args).shape, dtype=dtype)

        @jax.jit
        def both(*args: jax.Array):
            return [(out, pull(cotangent)) for out, pull in (jax.vjp(f, *args), jax.vjp(g, *args))]

        assert_same(*both(*args), {"float64": 1e-12, "float32": 2e-5, "bfloat16": 5e-2}[dtype])
