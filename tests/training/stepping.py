"""The nets of the tests of the train step, and the way a step is run on them."""

import contextlib
import functools
from collections.abc import Iterable

import jax
import numpy as np
from flax import linen as nn
from jax import monitoring

from imagenet_jax import config
from imagenet_jax.models.layers import Conv, dense, normal
from imagenet_jax.models.lowering import max_pool
from imagenet_jax.models.net import Net, NormNet
from imagenet_jax.training import losses, optimizer, parallel
from imagenet_jax.training.state import TrainState, init_variables, make_state
from imagenet_jax.training.step import StepOptions, train_step

SIZE, CLASSES = 12, 5
Curve = dict[str, np.ndarray]  # metric -> (sum, count) of each step [steps, 2]


class ResidualNet(NormNet):
    """A stem, a residual block of stride 2 with a projection, a max-pooling, a head."""

    num_classes: int = CLASSES
    bn_group: int = 16

    @nn.compact
    def __call__(self, x, train=False):
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = self.norm(train)
        x = nn.relu(norm(name="bn1")(conv(8, 3, 1, 1, name="conv1")(x)))
        y = norm(name="bn2")(conv(12, 3, 2, 1, name="conv2")(x))
        x = nn.relu(y + norm(name="bn3")(conv(12, 1, 2, name="conv3")(x)))
        x = max_pool(x, 3, 2, 1).mean((1, 2))
        return dense(CLASSES, "head", self.dtype, normal(0.1), nn.initializers.zeros)(x)


class DropoutNet(Net):
    """A small AlexNet: biases, dropout, no BatchNorm."""

    num_classes: int = CLASSES
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(Conv(8, 5, 2, 2, use_bias=True, dtype=self.dtype, name="conv1")(x))
        x = max_pool(x, 3, 2).reshape(len(x), -1)
        layer = lambda features, name: dense(features, name, self.dtype, normal(0.1), nn.initializers.zeros)
        x = nn.relu(layer(32, "fc1")(nn.Dropout(self.dropout, deterministic=not train)(x)))
        return layer(CLASSES, "head")(nn.Dropout(self.dropout, deterministic=not train)(x))


def sgd(rate=0.1, **changes):
    """`optimizer.make` with the defaults of the config, but without weight decay; `rate` may be a schedule."""
    schedule = rate if callable(rate) else lambda step: rate
    stated = dict(config.base().optimizer) | {"weight_decay": 0.0}
    del stated["sam_rho"]  # an option of the step
    return optimizer.make(schedule, **stated | changes)


def options(model=None, transform=None, **others):
    others = {"loss": losses.cross_entropy} | others
    return StepOptions(model or ResidualNet(), transform or sgd(), **others)


@functools.cache
def initial(model):
    return jax.device_get(init_variables(model, SIZE, 0))


def fresh(opts):
    """The state at step 0, on the host."""
    return jax.device_get(make_state(*initial(type(opts.model)(dtype=opts.model.dtype)), opts.optimizer, opts.freeze,
                                     bool(opts.ema_decay)))


def random_batches(steps, size=16):
    """`steps` batches of noise."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        yield {"image": rng.integers(0, 256, (size, SIZE, SIZE, 3), np.uint8),
               "label": rng.integers(0, CLASSES, size).astype(np.int32)}


def run(opts: StepOptions, state: TrainState, batches: Iterable[dict[str, np.ndarray]], *, micro: int = 1,
        devices: int = 1) -> tuple[TrainState, Curve]:
    """Trains from a host state, one step a batch; returns the host state and what each step measured."""
    layout = parallel.make_layout("pmap", jax.devices()[:devices])
    step, measured = compiled(opts, layout), []
    state = parallel.put_state(state, layout)
    for batch in batches:
        state, metrics = step(state, parallel.put_batch(batch, layout, micro))
        measured.append(parallel.get_state(metrics, layout))
    return parallel.get_state(state, layout), {k: np.array([m[k] for m in measured]) for k in measured[0]}


@contextlib.contextmanager
def compilations():
    """A list that grows by what XLA compiles inside."""
    found = []
    listen = lambda event, *_, **about: found.append(about) if event.endswith("/backend_compile_duration") else None
    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        monitoring.unregister_event_duration_listener(listen)


@functools.lru_cache
def compiled(opts: StepOptions, layout: parallel.Layout):
    """The compiled step, once for equal options."""
    return parallel.compile_step(functools.partial(train_step, opts), layout)
