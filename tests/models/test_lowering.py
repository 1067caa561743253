"""Each lowering for the CPU against the plain operation or a numpy formula, in value and in gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_equal_with_gradients, draw
from flax import linen as nn
from jax import lax

from imagenet_jax.models import lowering


# window, stride, padding, side: 1x1s, outputs smaller than the kernel (down to one pixel), and common ones.
@pytest.mark.parametrize(("window", "stride", "padding", "side", "dtype"), [
    (1, 1, 0, 5, "float64"), (1, 2, 0, 5, "float64"), (1, 2, 0, 6, "float32"), (3, 1, 1, 2, "float64"),
    (3, 2, 1, 2, "float64"), (3, 2, 1, 1, "bfloat16"), (7, 2, 3, 6, "float64"), (7, 2, 3, 1, "float64"),
    (2, 3, 1, 4, "float64"), (3, 1, 1, 6, "float64")])
def test_conv2d_equals_the_plain_convolution(window, stride, padding, side, dtype) -> None:
    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2,
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    ours = lambda x, kernel: lowering.conv2d(x, kernel, stride, padding)
    assert_equal_with_gradients(ours, plain, dtype, (2, side, side + 1, 3), (window, window, 3, 4))


@pytest.mark.parametrize(("window", "stride", "padding", "side", "dtype"), [
    (3, 2, 1, 8, "float64"), (3, 2, 1, 5, "bfloat16"), (3, 2, 0, 7, "float64"), (2, 2, 0, 6, "float32"),
    (3, 1, 1, 4, "float64"), (3, 2, 1, 1, "float64"), (2, 3, 0, 8, "float64")])
def test_max_pool_equals_flax(window, stride, padding, side, dtype) -> None:
    plain = lambda x: nn.max_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)
    ours = lambda x: lowering.max_pool(x, window, stride, padding)
    assert_equal_with_gradients(ours, plain, dtype, (2, side, side + 2, 3), ties=True)


@pytest.mark.parametrize("channels", [1, 5, 8, 17])
def test_a_maximum_gets_its_gradient_though_xla_may_round_what_is_pooled_in_another_way(channels) -> None:
    def loss(pool: Callable, x: jax.Array, scale: jax.Array) -> jax.Array:
        return (pool(jnp.maximum(x * scale + 1, 0)) * draw(2, 3, 8, 8, channels).astype(np.float32)).sum()

    x, scale = (each.astype(np.float32) for each in (draw(0, 3, 17, 17, channels), draw(1, channels)))
    ours, plain = (jax.jit(jax.grad(functools.partial(loss, pool)))(x, scale)
                   for pool in (lambda x: lowering.max_pool(x, 3, 2), lambda x: nn.max_pool(x, (3, 3), (2, 2))))
    np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_plain_operations_are_the_same_function_without_a_choice_of_platform() -> None:
    def all_of_them(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = lowering.conv2d(lowering.conv2d(x, kernel, 1, 1), kernel[:, :, :1], groups=4)
        return lowering.avg_pool(lowering.max_pool(x, 3, 2, 1, ceil=True), 2, 1)

    x, kernel = draw(0, 2, 9, 8, 4), draw(1, 3, 3, 4, 4)
    with lowering.plain_operations():
        traced, plain = jax.make_jaxpr(lambda *args: all_of_them(*args))(x, kernel), all_of_them(x, kernel)
    assert "platform_index" not in str(traced) and "platform_index" in str(jax.make_jaxpr(all_of_them)(x, kernel))
    np.testing.assert_allclose(plain, all_of_them(x, kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), [(6, 6, 6), (7, 13, 6), (1, 2, 6), (5, 12, 3), (9, 4, 1)])
def test_adaptive_avg_pool_follows_torch(height, width, size) -> None:
    x = np.random.default_rng(0).standard_normal((2, height, width, 3))
    # AdaptiveAvgPool2d: cell i averages pixels floor(i n / size) to ceil((i + 1) n / size).
    spans = [[(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] for n in (height, width)]
    wanted = np.stack([np.stack([x[:, a:b, c:d].mean((1, 2)) for c, d in spans[1]], 1) for a, b in spans[0]], 1)
    got = jax.jit(lowering.adaptive_avg_pool, static_argnums=1)(x.astype(np.float32), size)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


# window, stride, padding, channels in and out, groups, height, width, dtype
@pytest.mark.parametrize(("window", "stride", "padding", "channels", "groups", "height", "width", "dtype"), [
    ((3, 3), 1, 1, (6, 6), 6, 7, 8, "float64"), ((3, 3), 2, 1, (6, 6), 6, 7, 8, "float64"),
    ((3, 3), 2, 1, (6, 6), 6, 8, 7, "float32"), ((3, 3), 2, 0, (5, 5), 5, 8, 9, "float64"),
    ((5, 5), 2, 2, (4, 4), 4, 1, 9, "float64"), ((7, 7), 1, 3, (4, 4), 4, 5, 5, "bfloat16"),
    ((3, 3), 2, 1, (8, 12), 4, 7, 8, "float64"), ((3, 1), 1, (1, 0), (8, 8), 2, 6, 5, "float64"),
    ((1, 1), 1, 0, (6, 9), 3, 3, 2, "float64"), ((3, 3), 1, 1, (96, 32), 2, 5, 5, "float32"),
    ((3, 3), 1, 1, (160, 160), 20, 4, 4, "float64")])
def test_convolution_in_groups_equals_the_plain_one(window, stride, padding, channels, groups, height, width,
                                                    dtype) -> None:
    pads = [(p, p) for p in lowering.pair(padding)]
    plain = lambda x, kernel: lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)
    ours = lambda x, kernel: lowering.conv2d(x, kernel, stride, padding, groups)
    assert_equal_with_gradients(ours, plain, dtype, (4, height, width, channels[0]),
                                (*window, channels[0] // groups, channels[1]))


@pytest.mark.parametrize(("window", "stride", "side", "groups"), [
    (3, 2, 7, 1), (3, 2, 8, 1), (5, 2, 9, 4), (5, 2, 8, 4), (3, 1, 5, 4), (1, 1, 3, 1), (3, 2, 2, 1)])
def test_same_padding_is_tensorflows(window, stride, side, groups) -> None:
    """Output i covers what begins at i * stride - low, low the smaller half of what is missing."""
    out = -(-side // stride)
    low = max(0, (out - 1) * stride + window - side) // 2
    plain = lambda x, kernel: lax.conv_general_dilated(
        x, kernel, (stride, stride), [(low, (out - 1) * stride + window - side - low)] * 2, feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ours = lambda x, kernel: lowering.conv2d(x, kernel, stride, "SAME", groups)
    assert_equal_with_gradients(ours, plain, "float64", (2, side, side, 4), (window, window, 4 // groups, 4))


@pytest.mark.parametrize(("window", "stride", "padding", "side"), [
    (3, 2, 0, 8), (3, 2, 1, 7), (3, 2, 1, 8), (2, 2, 0, 5), (2, 2, 1, 3), (3, 1, 1, 4), (5, 3, 0, 17), (3, 3, 1, 5)])
def test_pooling_keeps_the_last_window_as_torch_does_in_ceil_mode(window, stride, padding, side) -> None:
    """One more window than fits, if it begins within the image or the padding before it."""
    def starts(n: int) -> list[int]:
        count = -(-(n + 2 * padding - window) // stride) + 1
        return [i * stride - padding for i in range(count) if i * stride < n + padding]

    x = np.asarray(draw(0, 2, side, side + 1, 3))
    wanted = np.stack([np.stack([x[:, max(top, 0) : top + window, max(left, 0) : left + window].max((1, 2))
                                 for left in starts(side + 1)], 1) for top in starts(side)], 1)
    np.testing.assert_array_equal(lowering.max_pool(x, window, stride, padding, ceil=True), wanted)


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_average_pooling_equals_flax(window, stride, padding) -> None:
    plain = lambda x: nn.avg_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)
    assert_equal_with_gradients(lambda x: lowering.avg_pool(x, window, stride, padding), plain, "float64", (2, 7, 8, 3))
