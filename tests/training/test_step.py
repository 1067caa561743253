"""The train step: PyTorch's numbers, exact metrics, averaged weights, dropout, micro-batches."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from stepping import CLASSES, DropoutNet, ResidualNet, fresh, options, random_batches, run, sgd

from imagenet_jax import config
from imagenet_jax.training import losses, schedule
from imagenet_jax.training.recipe import step_options
from imagenet_jax.training.state import make_state
from imagenet_jax.training.step import make_apply, normalize
from imagenet_jax.transfer import freeze

REFERENCE = dict(np.load(pathlib.Path(__file__).with_name("torch_sgd.npz")))  # see make_torch_reference.py
VARIANTS = json.loads(str(REFERENCE["variants"]))


def from_reference(prefix, dtype):
    """Flat stored variables as (params, batch_stats)."""
    flat = {k.removeprefix(prefix): v.astype(dtype) for k, v in REFERENCE.items() if k.startswith(prefix)}
    stats = {path for path in flat if path.endswith(("/mean", "/var"))}
    return tuple(traverse_util.unflatten_dict({path: flat[path] for path in flat if (path in stats) == wanted}, sep="/")
                 for wanted in (False, True))


def run_variant(variant, dtype):
    """Our side of make_torch_reference.train: the last state, and the loss of each step."""
    labels = REFERENCE["label"]
    duration = functools.partial(config.steps, examples=labels.size, global_batch=labels.shape[1])
    stated = dict(config.base().schedule) | json.loads(str(REFERENCE["schedule"]))
    del stated["batch"], stated["scaling"]
    rate = schedule.make(duration, len(labels), epoch=1.0, **stated)
    loss = functools.partial(losses.cross_entropy, label_smoothing=float(REFERENCE["label_smoothing"]))
    opts = options(ResidualNet(dtype=dtype), sgd(rate, **VARIANTS[variant]), loss=loss)
    batches = [{"image": image, "label": label} for image, label in zip(REFERENCE["image"], labels, strict=True)]
    state, curve = run(opts, make_state(*from_reference("initial/", dtype), opts.optimizer), batches)
    return state, curve["loss"][:, 0] / curve["loss"][:, 1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_is_pytorch(variant):
    with jax.enable_x64(True):
        state, curve = run_variant(variant, np.float64)
    ours = traverse_util.flatten_dict({"params": state.params, "stats": state.batch_stats}, sep="/")
    params, stats = from_reference(f"{variant}/final/", np.float64)
    theirs = traverse_util.flatten_dict({"params": params, "stats": stats}, sep="/")
    assert ours.keys() == theirs.keys() and len(ours) == 17
    for path, value in theirs.items():
        assert ours[path].dtype == np.float64
        np.testing.assert_allclose(ours[path], value, rtol=1e-8, atol=0, err_msg=path)
    np.testing.assert_allclose(curve, REFERENCE[f"{variant}/loss64"], rtol=1e-8)


def test_float32_is_pytorch():
    state, curve = run_variant("nesterov", np.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.float32), np.dtype(np.int32)}
    np.testing.assert_allclose(curve, REFERENCE["nesterov/loss32"], atol=1e-3)


def test_the_reference_tells_the_variants_apart():
    """Else agreeing with each of them would prove little."""
    finals = [REFERENCE[f"{variant}/loss64"][-1] for variant in VARIANTS]
    assert min(abs(a - b) for i, a in enumerate(finals) for b in finals[:i]) > 5e-3


def test_metrics_are_sums_and_counts_over_devices_and_micro_batches():
    opts = options(DropoutNet(dropout=0.0), sgd(0.0))
    (batch,) = random_batches(1, 24)
    state = fresh(opts)
    _, curve = run(opts, state, [batch], micro=3, devices=4)
    logits = jax.jit(make_apply(opts.model))({"params": state.params}, batch["image"])
    expected = losses.cross_entropy(logits, batch["label"])
    np.testing.assert_allclose(curve["loss"], [[expected.sum(), 24]], rtol=1e-5)
    assert curve["top1"].tolist() == [[(logits.argmax(-1) == batch["label"]).sum(), 24]]


@pytest.mark.parametrize(("warmup", "decays"), [(False, (0.3, 0.3, 0.3)), (True, (1 / 10, 2 / 11, 3 / 12))])
def test_averaged_weights_and_statistics(warmup, decays):
    opts = options(ema_decay=0.3, ema_warmup=warmup)
    state = fresh(opts)
    expected = {"params": state.params, "batch_stats": state.batch_stats}
    for i, (batch, decay) in enumerate(zip(random_batches(3), decays, strict=True)):
        state, _ = run(opts, state, [batch])
        assert state.step == i + 1
        expected = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, expected,
                                {"params": state.params, "batch_stats": state.batch_stats})
    assert jax.tree.leaves(expected["batch_stats"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.ema, expected)


def test_dropout_is_a_function_of_seed_and_step():
    opts = options(DropoutNet(), sgd(0.0))  # a rate of 0: only dropout can change the loss
    batches = list(random_batches(1)) * 4
    state, curve = run(opts, fresh(opts), batches)
    assert len(set(curve["loss"][:, 0])) == 4  # of one batch
    middle, first = run(opts, fresh(opts), batches[:2])
    _, second = run(opts, middle, batches[2:])
    np.testing.assert_array_equal(np.concatenate([first["loss"], second["loss"]]), curve["loss"])
    _, other = run(opts._replace(seed=1), fresh(opts), batches)
    assert not set(other["loss"][:, 0]) & set(curve["loss"][:, 0])


@pytest.mark.parametrize("how", [{"devices": 8}, {"micro": 8}], ids=str)
def test_dropout_differs_between_devices_and_micro_batches(how):
    opts = options(DropoutNet(), sgd(0.0))
    batch = {key: value[[0] * 8] for key, value in next(random_batches(1)).items()}
    correct = [run(opts, fresh(opts), [batch | {"label": np.full_like(batch["label"], label)}], **how)[1]["top1"][0, 0]
               for label in range(CLASSES)]
    assert sum(correct) == 8 and max(correct) < 8  # one image, eight times with the same weights


def test_a_net_with_dropout_and_without_batchnorm_trains():
    opts = options(DropoutNet(dropout=0.2), sgd(0.02))
    state, curve = run(opts, fresh(opts), list(random_batches(1)) * 60)
    assert state.batch_stats == {}
    assert curve["loss"][-5:, 0].mean() < 0.5 * curve["loss"][0, 0]


class AuxiliaryNet(DropoutNet):
    """A head, and an auxiliary one."""

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        layer = lambda name: nn.Dense(CLASSES, name=name)(x)
        self.keep("aux", "1", layer("aux1"))
        return layer("head")


def test_the_losses_of_auxiliary_heads_are_added_by_their_weight():
    opts = options(AuxiliaryNet(), sgd(1.0), aux_weight=0.25)
    state, (batch,) = fresh(opts), random_batches(1)
    params = state.params | {"aux1": state.params["head"]}  # so both heads have the same loss and gradient
    (after, curve), (plain, plain_curve) = (
        run(o, state._replace(params=params), [batch]) for o in (opts, opts._replace(aux_weight=0.0)))
    np.testing.assert_allclose(curve["loss"][0, 0], 1.25 * plain_curve["loss"][0, 0], rtol=1e-5)
    moves = {name: after.params[name]["bias"] - params[name]["bias"] for name in params}
    np.testing.assert_allclose(moves["aux1"], 0.25 * moves["head"], rtol=1e-4)
    np.testing.assert_array_equal(after.params["head"]["bias"], plain.params["head"]["bias"])


@pytest.mark.parametrize("frozen", [(), ("^conv1/",)], ids=str)
def test_sam_is_its_formula_on_any_hardware(frozen):
    """The gradient at w + rho * g / |g|, g over what trains; it is clipped and decayed as any other."""
    rho, rate, decay, clip = 0.5, 0.2, 0.01, 0.1
    with jax.enable_x64(True):
        opts = options(ResidualNet(bn_group=4, dtype=jnp.float64), freeze=frozen, sam_rho=rho, transform=sgd(
            rate, momentum=0.0, weight_decay=decay, decay=".*", clip_norm=clip))
        before, (batch,) = fresh(opts), random_batches(1)
        trainable, fixed = freeze.split(before.params, frozen)

        def mean_loss(trainable):
            variables = {"params": freeze.merge(trainable, fixed), "batch_stats": before.batch_stats}
            logits, _ = opts.model.apply(variables, normalize(batch["image"], opts.model), train=True,
                                         mutable=["batch_stats"])
            return losses.cross_entropy(logits, batch["label"]).mean()

        gradient = jax.jit(jax.grad(mean_loss))
        norm = lambda tree: np.sqrt(sum(np.square(leaf).sum() for leaf in tree.values()))
        first = gradient(trainable)
        there = gradient({path: w + rho * first[path] / norm(first) for path, w in trainable.items()})
        assert norm(there) > clip
        expected = {path: w - rate * (there[path] * clip / norm(there) + decay * w) for path, w in trainable.items()}
        plain, plain_curve = run(opts._replace(sam_rho=0.0), before, [batch])
        for hardware in ({}, {"devices": 2, "micro": 2}):
            after, curve = run(opts, before, [batch], **hardware)
            ours = traverse_util.flatten_dict(after.params, sep="/")
            for path, value in (expected | fixed).items():
                np.testing.assert_allclose(ours[path], value, rtol=1e-9, atol=1e-12, err_msg=path)
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), (after.batch_stats, curve),
                         (plain.batch_stats, plain_curve))


def test_the_rho_of_a_recipe_is_the_step_s():
    recipe = config.base()
    recipe.optimizer.sam_rho = 0.05
    assert step_options(recipe, CLASSES, lambda step: 0.1).sam_rho == 0.05


def test_micro_batches_change_nothing():
    with jax.enable_x64(True):
        opts = options(ResidualNet(bn_group=4, dtype=jnp.float64), sgd(nesterov=True, weight_decay=1e-3))
        whole, curve = run(opts, fresh(opts), random_batches(4))
        cut, cut_curve = run(opts, fresh(opts), random_batches(4), micro=4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), cut, whole)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), cut_curve, curve)
