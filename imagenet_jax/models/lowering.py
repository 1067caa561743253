"""Convolution and pooling as XLA should compile them.

Where XLA:CPU has no fast kernel an equivalent with the same numbers is used on that platform only
(`jax.lax.platform_dependent`); on GPU and TPU the plain operation is compiled.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

Size = int | tuple[int, int]  # rows and columns, or both at once
Padding = Size | str  # on each side, or 'SAME' as TensorFlow pads: what the image's size asks for, the odd one last
Pad = tuple[int, int]  # before and after, on one axis
Pads = tuple[Pad, Pad]  # (above, below), (left, right)
_PLAIN = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """What is traced in here has the plain operations alone, for programs that are to be translated into others."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _by_platform(*args: jax.Array, cpu: Callable[..., jax.Array], default: Callable[..., jax.Array]) -> jax.Array:
    return default(*args) if _PLAIN.get() else lax.platform_dependent(*args, cpu=cpu, default=default)


def pair(size: Size) -> tuple[int, int]:
    """(rows, columns)."""
    return (size, size) if isinstance(size, int) else size


def _pads(shape: Sequence[int], window: Size, stride: int, padding: Padding, ceil: bool = False) -> Pads:
    """Rows and columns to add on each side; with `ceil`, torch's ceil_mode adds below and right what a last
    window lacks, if it begins within the image or its upper or left padding."""
    if isinstance(padding, str):
        above, left = lax.padtype_to_pads(shape[1:3], pair(window), (stride, stride), padding)
        return above, left
    pads = []
    for n, w, p in zip(shape[1:3], pair(window), pair(padding), strict=True):
        short = -(n + 2 * p - w) % stride if ceil else 0
        last = n + 2 * p + short - w  # where the last window begins
        pads.append((p, p + short if last < n + p else p))
    return pads[0], pads[1]


def _taps(x: jax.Array, window: Size, stride: int, pads: Pads, fill: float) -> list[jax.Array]:
    """The shifted views [B, H', W', C] of x [B, H, W, C], one for each cell of the window in row-major order."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    rows, columns = pair(window)
    height, width = ((n - w) // stride + 1 for n, w in zip(x.shape[1:3], (rows, columns), strict=True))
    return [x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            for i in range(rows) for j in range(columns)]


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = 0, groups: int = 1) -> jax.Array:
    """Convolves x [B, H, W, I] with a kernel [K, L, I / groups, O]: [B, H', W', O]."""
    window = kernel.shape[:2]
    pads = _pads(x.shape, window, stride, padding)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, feature_group_count=groups,
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def as_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
        patches = jnp.concatenate(_taps(x, window, stride, pads, 0.0), axis=-1)
        # XLA:CPU multiplies transposed matrices in place. With more axes it copies them for the kernel's gradient, in a
        # scalar loop that takes as long as all else.
        flat = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
        return flat.reshape(*patches.shape[:-1], kernel.shape[-1])

    def one_by_one(x: jax.Array, kernel: jax.Array) -> jax.Array:
        parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
        return jnp.concatenate([conv2d(part, k, stride, padding) for part, k in parts], -1)

    # XLA:CPU falls back to scalar loops when the output is smaller than the kernel (70 times slower), and computes
    # the weight gradient of a 1x1 convolution at half the speed of the matrix product. It has no kernel for groups.
    tiny = any((n + sum(p) - w) // stride + 1 < w for n, w, p in zip(x.shape[1:3], window, pads, strict=True))
    if 1 < groups == x.shape[-1] == kernel.shape[-1]:
        return _by_platform(x, kernel, cpu=lambda x, kernel: _depthwise(x, kernel, stride, pads), default=plain)
    if groups > 1:
        return _by_platform(x, kernel, cpu=one_by_one, default=plain)
    if window == (1, 1) or tiny:
        return _by_platform(x, kernel, cpu=as_matmul, default=plain)
    return plain(x, kernel)


def _depthwise_by_taps(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    taps = _taps(x, kernel.shape[:2], stride, pads, 0.0)
    return functools.reduce(jnp.add, map(jnp.multiply, taps, kernel.reshape(len(taps), -1)))


_depthwise = jax.custom_vjp(_depthwise_by_taps, nondiff_argnums=(2, 3))


def _depthwise_forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> tuple[jax.Array, Any]:
    return _depthwise_by_taps(x, kernel, stride, pads), (x, kernel)


def _depthwise_backward(stride: int, pads: Pads, saved: Any, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    to_kernel = [_sum_pixels(tap * grad) for tap in _taps(x, kernel.shape[:2], stride, pads, 0.0)]
    # To x: the transposed convolution, that is the flipped kernel over gradients spread out by the stride.
    around = [(w - 1 - low, n + low - (g - 1) * stride - 1) for n, g, w, (low, _) in
              zip(x.shape[1:3], grad.shape[1:3], kernel.shape[:2], pads, strict=True)]
    spread = lax.pad(grad, jnp.zeros((), grad.dtype), [(0, 0, 0), *((*sides, stride - 1) for sides in around),
                                                       (0, 0, 0)])
    to_x = _depthwise_by_taps(spread, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))
    return to_x, jnp.stack(to_kernel).reshape(kernel.shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _sum_pixels(x: jax.Array) -> jax.Array:
    """x [B, H, W, C] -> [C]: a few additions that fuse with what makes x, and a matrix product for the rest.

    XLA:CPU runs such a reduction as a scalar loop when it is written as one.
    """
    count = max(n for n in range(1, 9) if len(x) % n == 0)
    x = functools.reduce(jnp.add, jnp.split(x, count)).reshape(-1, x.shape[-1])
    return jnp.ones(len(x), x.dtype) @ x


def max_pool(x: jax.Array, window: int, stride: int, padding: Size = 0, ceil: bool = False) -> jax.Array:
    """Maximum over windows of x [B, H, W, C]; the gradient goes to the first maximum of a window.

    `ceil` keeps an incomplete last window, as torch's ceil_mode.
    """
    pads = _pads(x.shape, window, stride, padding, ceil)
    pool = functools.partial(nn.max_pool, window_shape=(window, window), strides=(stride, stride))
    if _PLAIN.get():  # others know pooling without padding
        return pool(jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf), padding="VALID")

    def by_axes(x: jax.Array) -> jax.Array:
        across = _max_along(x, 2, window, stride, pads[1])
        return _max_along(across, 1, window, stride, pads[0])  # so the first maximum is that of the first row

    return _by_platform(x, cpu=by_axes, default=functools.partial(pool, padding=pads))


def _pad_along(x: jax.Array, axis: int, pad: Pad, fill: float) -> jax.Array:
    return jnp.pad(x, [pad if each == axis else (0, 0) for each in range(x.ndim)], constant_values=fill)


def _taps_along(x: jax.Array, axis: int, window: int, stride: int, pad: Pad) -> list[jax.Array]:
    """The shifted views of x, padded with -inf, one for each cell of a window along one axis."""
    x = _pad_along(x, axis, pad, -jnp.inf)
    last = (x.shape[axis] - window) // stride * stride
    return [lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(window)]


# XLA:CPU runs select-and-scatter, the gradient of reduce-window, as a scalar loop.
@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_along(x: jax.Array, axis: int, window: int, stride: int, pad: Pad) -> jax.Array:
    return functools.reduce(jnp.maximum, _taps_along(x, axis, window, stride, pad))


def _max_along_forward(x: jax.Array, axis: int, window: int, stride: int, pad: Pad) -> tuple[jax.Array, Any]:
    best, *others = _taps_along(x, axis, window, stride, pad)
    # Which tap is the maximum is kept. To look for what equals it fails where XLA makes x anew and rounds otherwise.
    first = jnp.zeros(best.shape, jnp.uint8)
    for number, tap in enumerate(others, 1):
        first = jnp.where(tap > best, jnp.uint8(number), first)
        best = jnp.maximum(best, tap)
    return best, (first, x.shape[axis])


def _max_along_backward(axis: int, window: int, stride: int, pad: Pad, saved: Any,
                        grad: jax.Array) -> tuple[jax.Array]:
    first, size = saved
    cells, outputs = -(-(size + sum(pad)) // stride), grad.shape[axis]

    def placed(tap: int) -> jax.Array:
        before = tap // stride
        return _pad_along(jnp.where(first == tap, grad, 0), axis, (before, cells - outputs - before), 0.0)

    # Pixels that lie `stride` apart have their gradients from the same taps: added up apart, then interleaved.
    none = jnp.zeros_like(grad, shape=(*grad.shape[:axis], cells, *grad.shape[axis + 1:]))
    phases = [functools.reduce(jnp.add, map(placed, range(phase, window, stride)), none) for phase in range(stride)]
    padded = jnp.stack(phases, axis + 1).reshape(*grad.shape[:axis], cells * stride, *grad.shape[axis + 1:])
    return (lax.slice_in_dim(padded, pad[0], pad[0] + size, 1, axis),)


_max_along.defvjp(_max_along_forward, _max_along_backward)


def avg_pool(x: jax.Array, window: int, stride: int, padding: Size = 0) -> jax.Array:
    """Mean over windows of x [B, H, W, C]; padding counts as zeros, as by default in torch."""
    pads = _pads(x.shape, window, stride, padding)
    return _by_platform(
        x, cpu=lambda x: functools.reduce(jnp.add, _taps(x, window, stride, pads, 0.0)),
        default=lambda x: lax.reduce_window(x, np.zeros((), x.dtype), lax.add, (1, window, window, 1),
                                            (1, stride, stride, 1), ((0, 0), *pads, (0, 0)))) / window**2


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages x [B, H, W, C] to [B, size, size, C] over windows as torch's AdaptiveAvgPool2d lays them."""

    if x.shape[1:3] == (size, size):
        return x

    def weights(n: int) -> jax.Array:
        cell, pixel = jnp.arange(size)[:, None], jnp.arange(n)[None]
        inside = (pixel >= cell * n // size) & (pixel < -(-(cell + 1) * n // size))
        return (inside / inside.sum(1, keepdims=True)).astype(x.dtype)

    return jnp.einsum("bhwc,yh,xw->byxc", x, weights(x.shape[1]), weights(x.shape[2]))
