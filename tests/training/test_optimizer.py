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


def adamw(grad, weight, slots, step, decays, rate=0.01, b1=0.8, b2=0.99, epsilon=1e-3, weight_decay=0.1):
    """torch.optim.AdamW."""
    weight = weight * (1 - rate * weight_decay * decays)
    first, second = (slots or (0, 0))
    first, second = b1 * first + (1 - b1) * grad, b2 * second + (1 - b2) * grad**2
    update = (first / (1 - b1**step)) / (np.sqrt(second / (1 - b2**step)) + epsilon)
    return weight - rate * update, (first, second)


def lamb(grad, weight, slots, step, decays, rate=0.01, b1=0.8, b2=0.99, epsilon=1e-3, weight_decay=0.1):
    """timm.optim.Lamb without its clipping of the gradient: the trust ratio where there is weight decay."""
    first, second = (slots or (0, 0))
    first, second = b1 * first + (1 - b1) * grad, b2 * second + (1 - b2) * grad**2
    update = (first / (1 - b1**step)) / (np.sqrt(second / (1 - b2**step)) + epsilon) + weight_decay * decays * weight
    trust = np.linalg.norm(weight) / np.linalg.norm(update) if decays else 1
    return weight - rate * trust * update, (first, second)


def lars(grad, weight, slots, step, decays, rate=0.01, momentum=0.8, trust=0.02, epsilon=1e-3, weight_decay=0.1):
    """You et al. 2017, algorithm 1."""
    grad = grad + weight_decay * decays * weight
    local = trust * np.linalg.norm(weight) / (np.linalg.norm(grad) + epsilon) if decays else 1
    slots = momentum * (0 if slots is None else slots) + rate * local * grad
    return weight - slots, slots


def rmsprop(grad, weight, slots, step, decays, rate=0.01, momentum=0.8, rho=0.7, epsilon=1e-3, weight_decay=0.1):
    """tf.compat.v1.train.RMSPropOptimizer, on a loss with L2 of the weights."""
    grad = grad + weight_decay * decays * weight
    square, moved = slots or (1, 0)
    square = rho * square + (1 - rho) * grad**2
    moved = momentum * moved + rate * grad / np.sqrt(square + epsilon)
    return weight - moved, (square, moved)


@pytest.mark.parametrize("formula", [adamw, lamb, lars, rmsprop])
def test_fifty_steps_are_those_of_the_formula(formula):
    rng = np.random.default_rng(0)
    start = {path: rng.normal(size=value.shape) for path, value in PARAMS.items()}
    with jax.enable_x64(True):
        transform = sgd(0.01, name=formula.__name__, momentum=0.8, betas=(0.8, 0.99), rho=0.7, epsilon=1e-3, trust=0.02,
                        weight_decay=0.1)
        params = jax.tree.map(jnp.asarray, start)
        state, update = transform.init(params), jax.jit(transform.update)
        expected, slots = start, dict.fromkeys(start)
        for step in range(1, 51):
            grads = {path: rng.normal(size=value.shape) + value for path, value in start.items()}
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
            new = {path: formula(grads[path], expected[path], slots[path], step, path.endswith("kernel"))
                   for path in start}
            expected, slots = ({path: each[i] for path, each in new.items()} for i in (0, 1))
    for path, value in expected.items():
        np.testing.assert_allclose(params[path], value, rtol=1e-10, err_msg=path)


def test_clipping_of_numbers_and_of_units():
    grads = jax.tree.map(lambda x: jnp.full_like(x, 3.0), PARAMS)
    after = update(sgd(1.0, clip_value=0.5), grads)
    for path, before in PARAMS.items():
        np.testing.assert_allclose(after[path], before - 0.5)
    after = update(sgd(1.0, clip_adaptive=0.1), grads)  # of a unit's norm of weights: a column of a kernel
    np.testing.assert_allclose(after["conv1/kernel"], 2 - 0.1 * 2, rtol=1e-5)
    np.testing.assert_allclose(after["head/kernel"], 5 - 0.1 * 5, rtol=1e-5)


def test_parameters_may_have_rates_of_their_own():
    after = update(sgd(0.5, rates=(("^head/kernel", 10.0), ("^head/", 0.0))), jax.tree.map(jnp.ones_like, PARAMS))
    moved = {path: float((PARAMS[path] - after[path]).max()) for path in PARAMS}
    assert moved == {"conv1/kernel": 0.5, "bn1/scale": 0.5, "head/kernel": 5.0, "head/bias": 0.0}


def test_binary_cross_entropy_asks_of_each_class():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)) * 3, np.arange(6) % 5
    soft = rng.dirichlet(np.ones(5), 6)
    with jax.enable_x64(True):
        for targets, used in ((labels, np.eye(5)[labels] * 0.8 + 0.2 / 5), (soft, soft * 0.8 + 0.2 / 5)):
            for threshold, wanted in ((0.0, used), (0.3, used > 0.3)):
                loss = functools.partial(losses.binary_cross_entropy, label_smoothing=0.2, target_threshold=threshold)
                grads = jax.grad(lambda x, loss=loss, targets=targets: loss(x, targets).sum())(logits)
                probability = 1 / (1 + np.exp(-logits))
                expected = -(wanted * np.log(probability) + (1 - wanted) * np.log(1 - probability)).mean(1)
                np.testing.assert_allclose(loss(logits, targets), expected, rtol=1e-9)
                np.testing.assert_allclose(grads, (probability - wanted) / 5, rtol=1e-7)  # as PyTorch's


def test_cross_entropy_of_shares_of_classes():
    rng = np.random.default_rng(0)
    logits, soft = rng.normal(size=(6, 5)) * 3, rng.dirichlet(np.ones(5), 6)
    with jax.enable_x64(True):
        loss = losses.make(name="cross_entropy", label_smoothing=0.1, target_threshold=0.0)
        grads = jax.grad(lambda x: loss(x, soft).sum())(logits)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(grads, softmax - (0.9 * soft + 0.1 / 5), rtol=1e-7)  # as PyTorch's


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
