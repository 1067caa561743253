"""The layers every family shares: convolution, normalisation, squeeze-excite, dense.

Images are NHWC, kernels HWIO. Padding is symmetric, as PyTorch pads, unless a family says 'SAME': TensorFlow pads a
stride-2 convolution differently, which makes another network.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from imagenet_jax.models.lowering import Padding, Size, conv2d, pair

Initializer = Callable[..., jax.Array]

AXIS = "batch"  # the device axis: the one name that collectives use


def he_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """He et al., "Delving Deep into Rectifiers" (2015), fan-out mode: torchvision's choice for ResNets."""
    fan_out = math.prod(shape) // shape[-2]
    return normal((2 / fan_out) ** 0.5)(key, shape, dtype)


def normal(deviation: float) -> Initializer:
    """A Gaussian around zero."""
    return lambda key, shape, dtype=jnp.float32: deviation * _draw(jax.random.normal, key, shape, dtype)


def he_uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """He et al. 2015, fan-in mode, from a uniform distribution: torchvision's choice for SqueezeNet."""
    bound = (6 * shape[-1] / math.prod(shape)) ** 0.5
    return _draw(jax.random.uniform, key, shape, dtype, -bound, bound)


def torch_uniform(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what PyTorch draws by default for kernels and biases."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: _draw(jax.random.uniform, key, shape, dtype, -bound, bound)


def _draw(sample: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int], *args: Any) -> jax.Array:
    # The same numbers drawn flat: XLA:CPU takes seconds to compile a draw of many axes.
    return sample(key, (math.prod(shape),), *args).reshape(shape)


def flatten(x: jax.Array) -> jax.Array:
    """x [B, H, W, C] -> [B, C * H * W], channels outermost as torch lays them out, so that its dense layers fit."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # len() fails where a program is exported for any batch


class Conv(nn.Module):
    """Convolution with a parameter `kernel` [K, L, I / groups, O], and `bias` [O] when asked for.

    `window` and `padding` are a number or (rows, columns), `padding` may be 'SAME'; without `padding` an odd window
    keeps the size of the image at stride 1.
    """

    features: int
    window: Size
    stride: int = 1
    padding: Padding | None = None
    groups: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H', W', features], of `dtype`."""
        window = pair(self.window)
        padding = tuple((w - 1) // 2 for w in window) if self.padding is None else self.padding
        shape = (*window, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, param_dtype(self.dtype)).astype(self.dtype)
        y = conv2d(x.astype(self.dtype), kernel, self.stride, padding, self.groups)
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


class ConvNorm(nn.Module):
    """Convolution `conv` without bias, BatchNorm `bn`, activation.

    `norm` builds the BatchNorm; the other fields are those of `Conv`.
    """

    features: int
    window: Size
    stride: int = 1
    padding: Padding | None = None
    groups: int = 1
    act: Callable[[jax.Array], jax.Array] = nn.relu
    kernel_init: Initializer = he_normal
    norm: Callable[..., BatchNorm] = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H', W', features], of `dtype`."""
        x = Conv(self.features, self.window, self.stride, self.padding, self.groups, dtype=self.dtype,
                 kernel_init=self.kernel_init, name="conv")(x)
        return self.act(self.norm(name="bn")(x))


class SqueezeExcite(nn.Module):
    """Scales channels by what their means say: Hu et al. (2017), https://arxiv.org/abs/1709.01507.

    `fc1` squeezes to `hidden` channels, `fc2` goes back; both are 1x1 convolutions with bias.
    """

    hidden: int
    act: Callable[[jax.Array], jax.Array] = nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] -> the same shape."""
        conv = functools.partial(Conv, window=1, use_bias=True, dtype=self.dtype)
        mean = x.mean((1, 2), keepdims=True, dtype=param_dtype(self.dtype)).astype(self.dtype)
        return x * nn.sigmoid(conv(x.shape[-1], name="fc2")(self.act(conv(self.hidden, name="fc1")(mean))))


def dense(features: int, name: str, dtype: Any, kernel_init: Initializer, bias_init: Initializer) -> nn.Dense:
    """A fully connected layer with parameters `kernel` [I, O] and `bias` [O]."""
    return nn.Dense(features, dtype=dtype, param_dtype=param_dtype(dtype), kernel_init=kernel_init,
                    bias_init=bias_init, name=name)


def layer_norm(name: str, dtype: Any) -> nn.LayerNorm:
    """LayerNorm over channels (Ba et al., 2016) with parameters `scale` and `bias` [C]; statistics are float32."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, param_dtype=param_dtype(dtype), use_fast_variance=False, name=name)


def param_dtype(dtype: Any) -> Any:
    """The type of parameters, statistics and logits for a compute type: float32, or wider if that is."""
    return jnp.promote_types(dtype, jnp.float32)


class Branches(nn.Module):
    """Convolutions side by side, their results concatenated: an Inception block, written like its figure.

    A branch is a tuple of steps; a step is a row (name, features, window[, stride[, padding]]) of a `ConvNorm`, a
    function such as a pooling, or a tuple of branches in which it forks.
    """

    branches: tuple[Any, ...]
    conv_norm: Callable[..., ConvNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, I] -> [B, H', W', O]."""
        return self._fork(self.branches, x)

    def _fork(self, branches: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return jnp.concatenate([functools.reduce(self._step, branch, x) for branch in branches], -1)

    def _step(self, x: jax.Array, step: Any) -> jax.Array:
        if callable(step):
            return step(x)
        if isinstance(step[0], str):
            name, *row = step
            return self.conv_norm(*row, name=name)(x)
        return self._fork(step, x)
