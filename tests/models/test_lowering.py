"""Each lowering for the CPU against the plain operation or a numpy formula, in value and in gradient."""

import jax
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
    (3, 1, 1, 4, "float64"), (3, 2, 1, 1, "float64")])
def test_max_pool_equals_flax(window, stride, padding, side, dtype) -> None:
    plain = lambda x: nn.max_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)
    ours = lambda x: lowering.max_pool(x, window, stride, padding)
    assert_equal_with_gradients(ours, plain, dtype, (2, side, side + 2, 3), ties=True)


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


@pytest.mark.parametrize(("window", "stride", "padding", "height", "width"), [
    ((7, 7), 2, 3, 9, 12), ((11, 11), 4, 2, 35, 38), ((3, 3), 2, 1, 8, 7), ((3, 3), 2, 0, 9, 8), ((4, 4), 4, 0, 11, 8),
    ((3, 3), 1, 1, 5, 6), ((2, 5), 3, (0, 2), 10, 11)])
def test_space_to_depth_equals_the_strided_convolution(window, stride, padding, height, width) -> None:
    ours = lambda x, kernel: lowering.conv2d_by_depth(x, kernel, stride, padding)
    plain = lambda x, kernel: lowering.conv2d(x, kernel, stride, padding)
    assert_equal_with_gradients(ours, plain, "float64", (2, height, width, 3), (*window, 3, 4))


def pool(x: np.ndarray, window: int, stride: int, padding: int, reduce) -> np.ndarray:
    """Torch's pooling in ceil_mode, window by window: `reduce` gets (cells of the image, cells with padding)."""
    def starts(n: int) -> list[int]:
        count = -(-(n + 2 * padding - window) // stride) + 1
        return [i * stride - padding for i in range(count) if i * stride < n + padding]

    rows, columns = starts(x.shape[1]), starts(x.shape[2])
    out = np.empty((len(x), len(rows), len(columns), x.shape[3]))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            cells = x[:, max(top, 0) : top + window, max(left, 0) : left + window]
            padded = [min(start + window, n + padding) - start for start, n in ((top, x.shape[1]), (left, x.shape[2]))]
            out[:, i, j] = reduce(cells, padded[0] * padded[1])
    return out


@pytest.mark.parametrize(("window", "stride", "padding", "side"), [
    (3, 2, 0, 8), (3, 2, 1, 7), (3, 2, 1, 8), (2, 2, 0, 5), (2, 2, 1, 3), (3, 1, 1, 4), (5, 3, 0, 17), (3, 3, 1, 5)])
def test_pooling_keeps_the_last_window_as_torch_does(window, stride, padding, side) -> None:
    x = np.asarray(draw(0, 2, side, side + 1, 3))
    for ours, reduce in (
            (lowering.max_pool(x, window, stride, padding, ceil=True), lambda cells, _: cells.max((1, 2))),
            (lowering.avg_pool(x, window, stride, padding, ceil=True), lambda cells, n: cells.sum((1, 2)) / n),
            (lowering.avg_pool(x, window, stride, padding, ceil=True, count_padding=False),
             lambda cells, _: cells.mean((1, 2)))):
        np.testing.assert_allclose(ours, pool(x, window, stride, padding, reduce), atol=1e-6)


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_average_pooling_equals_flax(window, stride, padding) -> None:
    plain = lambda x: nn.avg_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)
    assert_equal_with_gradients(lambda x: lowering.avg_pool(x, window, stride, padding), plain, "float64", (2, 7, 8, 3))
