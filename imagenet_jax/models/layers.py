"""The layers every family shares: convolution, pooling, normalisation, dense.

Images are NHWC, kernels HWIO. Padding is explicit and symmetric, as PyTorch pads: 'SAME' pads a
stride-2 convolution differently and would be another network.

Where XLA:CPU has no fast kernel an equivalent with the same numbers is used on that platform only
(`jax.lax.platform_dependent`); on GPU and TPU the plain operation is compiled.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Initializer = Callable[..., jax.Array]

AXIS = "batch"  # the device axis: the one name that collectives use


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """He et al., "Delving Deep into Rectifiers" (2015), fan-out mode: torchvision's choice for ResNets."""
    fan_out = math.prod(shape) // shape[-2]
    return normal((2 / fan_out) ** 0.5)(key, shape, dtype)


def normal(deviation: float) -> Initializer:
    """A Gaussian around zero."""
    return lambda key, shape, dtype=jnp.float32: deviation * _draw(jax.random.normal, key, shape, dtype)


def torch_uniform(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what PyTorch draws by default for kernels and biases."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: _draw(jax.random.uniform, key, shape, dtype, -bound, bound)


def _draw(sample: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int], *args: Any) -> jax.Array:
    # The same numbers drawn flat: XLA:CPU takes seconds to compile a draw of many axes.
    return sample(key, (math.prod(shape),), *args).reshape(shape)


def _taps(x: jax.Array, window: int, stride: int, padding: int, fill: float) -> list[jax.Array]:
    """The window**2 shifted views [B, H', W', C] of x [B, H, W, C], in row-major order."""
    x = jnp.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), constant_values=fill)
    height, width = ((n - window) // stride + 1 for n in x.shape[1:3])
    return [x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            for i in range(window) for j in range(window)]


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
    """Convolves x [B, H, W, I] with a square kernel [K, K, I / groups, O]: [B, H', W', O]."""
    window = kernel.shape[0]

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2,
                                        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def as_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
        patches = jnp.concatenate(_taps(x, window, stride, padding, 0.0), axis=-1)
        return patches @ kernel.reshape(-1, kernel.shape[-1])

    # XLA:CPU falls back to scalar loops when the output is smaller than the kernel (70 times slower),
    # and computes the weight gradient of a 1x1 convolution at half the speed of the matrix product.
    smallest = (min(x.shape[1:3]) + 2 * padding - window) // stride + 1
    if groups == 1 and (window == 1 or smallest < window):
        return lax.platform_dependent(x, kernel, cpu=as_matmul, default=plain)
    return plain(x, kernel)


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum over windows of x [B, H, W, C]; the gradient goes to the first maximum of a window."""

    def plain(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)

    return lax.platform_dependent(
        x, cpu=lambda x: _max_pool_by_taps(x, window, stride, padding), default=plain)


def _max_of_taps(x: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    out = None
    for tap in _taps(x, window, stride, padding, -jnp.inf):
        out = tap if out is None else jnp.maximum(out, tap)
    return out


# XLA:CPU runs select-and-scatter, the gradient of reduce-window, as a scalar loop.
_max_pool_by_taps = jax.custom_vjp(_max_of_taps, nondiff_argnums=(1, 2, 3))


def _max_pool_forward(x: jax.Array, window: int, stride: int, padding: int) -> tuple[jax.Array, Any]:
    out = _max_of_taps(x, window, stride, padding)
    return out, (x, out)


def _max_pool_backward(window: int, stride: int, padding: int, saved: Any, grad: jax.Array) -> tuple[jax.Array]:
    x, out = saved
    views, put_back = jax.vjp(lambda x: _taps(x, window, stride, padding, -jnp.inf), x)
    free, shares = jnp.ones(out.shape, bool), []
    for view in views:
        chosen = free & (view == out)
        free &= ~chosen
        shares.append(jnp.where(chosen, grad, 0))
    return put_back(shares)


_max_pool_by_taps.defvjp(_max_pool_forward, _max_pool_backward)


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages x [B, H, W, C] to [B, size, size, C] over windows as torch's AdaptiveAvgPool2d lays them."""

    def weights(n: int) -> jax.Array:
        cell, pixel = jnp.arange(size)[:, None], jnp.arange(n)[None]
        inside = (pixel >= cell * n // size) & (pixel < -(-(cell + 1) * n // size))
        return (inside / inside.sum(1, keepdims=True)).astype(x.dtype)

    return jnp.einsum("bhwc,yh,xw->byxc", x, weights(x.shape[1]), weights(x.shape[2]))


class Conv(nn.Module):
    """Convolution with a parameter `kernel` [K, K, I / groups, O], and `bias` [O] when asked for."""

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H', W', features], of `dtype`."""
        shape = (self.window, self.window, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, param_dtype(self.dtype))
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding, self.groups)
        if self.use_bias:
            y += self.param("bias", self.bias_init, (self.features,), param_dtype(self.dtype)).astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, 2015) whose statistics do not depend on the hardware.

    The global batch is cut into consecutive groups of `group` examples that share statistics: a device
    holding more normalises its groups apart, a device holding fewer joins its neighbours on the axis
    `AXIS`. `mean` and `var` [C] of the collection batch_stats move by 1 - momentum towards this call's
    mean over groups; whoever calls averages the updated values over devices and micro-batches. The
    running variance is the unbiased one, as in the paper and in PyTorch (whose momentum is 1 - ours).
    Statistics are float32 (float64 for float64 inputs) whatever `dtype` is.

    A module whose path matches `frozen` (see `transfer.freeze`) uses its running statistics.
    """

    group: int
    train: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    scale_init: Initializer = nn.initializers.ones
    frozen: Callable[[str], bool] = lambda path: False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, ..., C] -> the same shape, of `dtype`."""
        channels, full = x.shape[-1], param_dtype(self.dtype)
        scale = self.param("scale", self.scale_init, (channels,), full)
        bias = self.param("bias", nn.initializers.zeros, (channels,), full)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), full)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), full)
        if self.train and not self.frozen("/".join((*self.path, "scale"))):
            batch_mean, batch_var = _group_statistics(x.astype(full), self.group, pivot=mean.value)
            count = self.group * x.size // (len(x) * channels)
            for running, value in ((mean, batch_mean), (var, batch_var * count / max(count - 1, 1))):
                running.value = self.momentum * running.value + (1 - self.momentum) * value.mean(0)
        else:
            batch_mean, batch_var = mean.value[None], var.value[None]
        gain = scale * lax.rsqrt(batch_var + self.epsilon)
        shift = bias - batch_mean * gain
        per_example = x.reshape(len(gain), -1, *x.shape[1:])  # [groups, examples, H, W, C]
        spread = lambda v: v.reshape(len(gain), *[1] * (x.ndim - 1), channels)
        return (per_example * spread(gain) + spread(shift)).astype(self.dtype).reshape(x.shape)


def _group_statistics(x: jax.Array, group: int, pivot: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance [groups, C] of x [B, ..., C] over groups of `group` examples.

    One pass over x takes both. E[x^2] - E[x]^2 loses digits as the square of mean / deviation, so moments
    are taken about a pivot [C] near the mean; any pivot gives the same value but for rounding.
    """
    local = min(group, len(x))
    if len(x) % local or group % local:
        raise ValueError(f"bn_group {group} neither divides nor is a multiple of the {len(x)} examples on a device")
    x = (x - pivot).reshape(len(x) // local, -1, x.shape[-1])
    moments = jnp.stack([x.mean(1), jnp.square(x).mean(1)])  # [2, groups, C]
    if group > local:
        moments = _mean_over_neighbours(moments, group // local)
    mean, square = moments
    return pivot + mean, jnp.maximum(square - jnp.square(mean), 0)


def _mean_over_neighbours(x: jax.Array, count: int) -> jax.Array:
    """Mean of x over each run of `count` consecutive devices."""
    starts = range(0, lax.axis_size(AXIS), count)
    return lax.psum(x, AXIS, axis_index_groups=[[*range(s, s + count)] for s in starts]) / count


def dense(features: int, name: str, dtype: Any, kernel_init: Initializer, bias_init: Initializer) -> nn.Dense:
    """A fully connected layer with parameters `kernel` [I, O] and `bias` [O]."""
    return nn.Dense(features, dtype=dtype, param_dtype=param_dtype(dtype), kernel_init=kernel_init,
                    bias_init=bias_init, name=name)


def param_dtype(dtype: Any) -> Any:
    """The type of parameters, statistics and logits for a compute type: float32, or wider if that is."""
    return jnp.promote_types(dtype, jnp.float32)
