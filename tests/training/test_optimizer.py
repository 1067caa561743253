"""The optimizer and the loss: what decays, what is clipped, what stays frozen; each against its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from stepping import SIZE, ResidualNet, fresh, options, random_batches, run, sgd

from imagenet_jax import config
from imagenet_jax.training import losses
from imagenet_jax.training.state import init_variables, make_state
from imagenet_jax.transfer import freeze

PARAMS = {"conv1/kernel": jnp.full((3, 3), 2.0), "bn1/scale": jnp.full(3, 4.0), "head/kernel": jnp.full((2, 2), 5.0),
          "head/bias": jnp.full(2, 6.0)}


def shapes(**changes):
    """The shapes of a fresh state."""
    return jax.eval_shape(lambda: make_state(*init_variables(ResidualNet(), SIZE, 0), sgd(), **changes))


def update(transform, grads):
    """The parameters after one step."""
    updates, _ = jax.jit(transform.update)(grads, transform.init(PARAMS), PARAMS)
    return optax.apply_updates(PARAMS, updates)


@pytest.mark.parametrize(("decay", "decayed"), [
    (config.base().optimizer.decay, {"conv1/kernel", "head/kernel"}), (".*", set(PARAMS)),
    ("^head/", {"head/kernel", "head/bias"}), ("^$", set())])
def test_decay_is_coupled_and_chosen_by_path(decay, decayed):
    after = update(sgd(0.5, weight_decay=0.01, decay=decay), jax.tree.map(jnp.ones_like, PARAMS))
    for path, before in PARAMS.items():
        grad = 1 + (0.01 * before if path in decayed else 0)
        np.testing.assert_allclose(after[path], before - 0.5 * grad, rtol=1e-6)


def test_every_weight_with_more_than_one_axis_decays_by_default():
    params, _ = freeze.split(shapes().params, ())
    params = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    zero = jax.tree.map(jnp.zeros_like, params)
    transform = sgd(1.0, weight_decay=0.1, decay=config.base().optimizer.decay)
    updates, _ = transform.update(zero, transform.init(params), params)
    for path, value in params.items():
        np.testing.assert_allclose(updates[path], -0.1 * value if value.ndim > 1 else zero[path], rtol=1e-6)


@pytest.mark.parametrize("norm", [0.5, 1.0, 8.0])
def test_clipping_is_of_the_global_gradient_before_decay(norm):
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    grads = jax.tree.map(lambda g: g * norm / optax.tree.norm(grads), grads)
    after = update(sgd(1.0, weight_decay=10.0, decay="kernel$", clip_norm=1.0), grads)
    for path, before in PARAMS.items():
        grad = grads[path] * min(1, 1 / norm) + (10 * before if path.endswith("kernel") else 0)
        np.testing.assert_allclose(after[path], before - grad, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(nesterov):
    transform = sgd(lambda step: 0.1 * (step + 1), momentum=0.9, nesterov=nesterov)
    params, state = PARAMS, transform.init(PARAMS)
    expected, trace = np.full(3, 4.0), 0.0
    for step, grad in enumerate((1.0, -2.0, 0.5)):
        updates, state = transform.update(jax.tree.map(lambda p, g=grad: jnp.full_like(p, g), params), state, params)
        params = optax.apply_updates(params, updates)
        trace = grad + 0.9 * trace
        expected -= 0.1 * (step + 1) * (grad + 0.9 * trace if nesterov else trace)
    np.testing.assert_allclose(params["bn1/scale"], expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing(smoothing):
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * 5
    labels = np.arange(6) % 5
    log_probabilities = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    target = np.full((6, 5), smoothing / 5)
    target[np.arange(6), labels] += 1 - smoothing
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, smoothing), -(target * log_probabilities).sum(1),
                               rtol=1e-5)


def test_frozen_parameters_stay_as_they_are():
    """Of bits: no gradient, decay or averaging touches them, nor the statistics of their BatchNorm."""
    patterns = ("^conv1/", "^bn1/", "bn2/scale")
    model = ResidualNet(bn_group=2, frozen=functools.partial(freeze.is_frozen, patterns=patterns))
    opts = options(model, sgd(nesterov=True, weight_decay=0.1, decay=".*", clip_norm=1.0), freeze=patterns,
                   ema_decay=0.999)
    before = fresh(opts)
    # Statistics unlike those of any batch, so that using them or moving them shows.
    stats = jax.tree.map(lambda x: np.linspace(0.3, 2, x.size, dtype=x.dtype), before.batch_stats)
    before = before._replace(batch_stats=stats)
    # 7 micro-batches: a mean over a count that is no power of two would round.
    after, _ = run(opts, before, random_batches(20, 28), micro=7)

    names = lambda tree: traverse_util.flatten_dict(tree, sep="/")
    for old, new in ((before.params, after.params), (before.params, after.ema["params"])):
        for path, value in names(old).items():
            assert (value == names(new)[path]).all() == freeze.is_frozen(path, patterns), path
    for path, value in names(before.batch_stats).items():
        assert (value == names(after.batch_stats)[path]).all() == path.startswith(("bn1/", "bn2/")), path


def test_frozen_parameters_have_no_slots():
    slots = lambda *patterns: sorted(x.shape for x in jax.tree.leaves(shapes(frozen_patterns=patterns).opt_state))
    assert slots("!^head/") == [(), (5,), (12, 5)]  # the schedule's count, and the momentum of bias and kernel
    assert len(slots()) == 1 + len(jax.tree.leaves(shapes().params))


def test_frozen_batchnorm_normalizes_with_its_running_statistics():
    model = ResidualNet(frozen=lambda path: True)
    state = jax.tree.map(lambda x: jnp.linspace(0.3, 2, x.size).reshape(x.shape), shapes())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    image = jax.random.normal(jax.random.key(0), (16, SIZE, SIZE, 3))
    logits, updated = jax.jit(lambda v: model.apply(v, image, train=True, mutable=["batch_stats"]))(variables)
    np.testing.assert_allclose(logits, jax.jit(lambda v: ResidualNet().apply(v, image))(variables), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updated, {"batch_stats": state.batch_stats})
