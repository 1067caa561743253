"""Hardware changes nothing: devices, pmap or shard_map, accumulation or not give the same parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_net import SmallNet
from stepping import compilations, sgd

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import BatchNorm
from imagenet_jax.training import losses, parallel
from imagenet_jax.training.state import init_variables, make_state
from imagenet_jax.training.step import StepOptions, train_step

GLOBAL_BATCH, BN_GROUP, STEPS, SIZE = 32, 8, 10, 10


def options(dtype):
    loss = functools.partial(losses.cross_entropy, label_smoothing=0.1)
    return StepOptions(SmallNet(num_classes=5, bn_group=BN_GROUP, dtype=dtype), sgd(nesterov=True, weight_decay=1e-3),
                       loss)


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        yield {"image": rng.integers(0, 256, (GLOBAL_BATCH, SIZE, SIZE, 3), np.uint8),
               "label": rng.integers(0, 5, GLOBAL_BATCH).astype(np.int32)}


def run(dtype, mode, devices, max_per_device):
    """Flat parameters and statistics after STEPS steps, and the mean loss of each step."""
    opts = options(dtype)
    layout = parallel.make_layout(mode, jax.devices()[:devices])
    micro = parallel.micro_batches(layout, GLOBAL_BATCH, max_per_device, BN_GROUP)
    assert GLOBAL_BATCH // devices // micro <= max_per_device
    state = parallel.put_state(make_state(*init_variables(opts.model, SIZE, 0), opts.optimizer), layout)
    step, curve = parallel.compile_step(functools.partial(train_step, opts), layout), []
    for batch in batches():
        state, metrics = step(state, parallel.put_batch(batch, layout, micro))
        total, count = parallel.get_state(metrics, layout)["loss"]
        assert count == GLOBAL_BATCH
        curve.append(total / count)
    state = parallel.get_state(state, layout)
    leaves = [np.ravel(x) for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.floating)]
    return np.concatenate(leaves), np.array(curve)


@functools.cache
def reference(dtype):
    return run(dtype, "pmap", 1, GLOBAL_BATCH)


@pytest.mark.parametrize("accumulate", [False, True], ids=["whole", "accumulated"])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_same_parameters_on_any_hardware(mode, devices, accumulate):
    share = GLOBAL_BATCH // devices
    for dtype, tolerance in ((jnp.float64, 1e-8), (jnp.float32, 1e-4)):
        with jax.enable_x64(dtype == jnp.float64):
            values, curve = run(dtype, mode, devices, max(share // 4, 2) if accumulate else share)
            expected, expected_curve = reference(dtype)
        assert values.dtype == dtype
        np.testing.assert_allclose(curve, expected_curve, rtol=tolerance)
        assert np.linalg.norm(values - expected) <= tolerance * np.linalg.norm(expected)


def test_the_group_size_matters():
    """Else the test above could not fail: other groups give other parameters."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(GLOBAL_BATCH, 4, 4, 3)), jnp.float32)
    outputs = [BatchNorm(group, True).init_with_output(jax.random.key(0), x)[0] for group in (4, 8)]
    assert not np.allclose(*outputs, atol=1e-2)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
@pytest.mark.parametrize("micro", [None, 2])
def test_batches_come_back_as_they_were_put(mode, micro):
    layout = parallel.make_layout(mode, jax.devices()[:4])
    batch = {"index": np.arange(16)}
    put = parallel.put_batch(batch, layout, micro)
    assert put["index"].size == 16
    if micro is None:
        assert parallel.get_examples(put, layout)["index"].tolist() == list(range(16))


def test_consecutive_examples_lie_on_neighbouring_devices_of_one_micro_batch():
    layout = parallel.make_layout("pmap", jax.devices()[:2])
    put = np.asarray(parallel.put_batch({"index": np.arange(8)}, layout, 2)["index"])
    assert put.tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]  # [device, micro-batch, example]


def test_options_reach_the_compiler_once_and_what_it_does_not_know_is_told():
    layout = parallel.make_layout("shard_map", jax.devices()[:2])
    state, batch = parallel.put_state(np.ones(8), layout), parallel.put_batch({"x": np.ones((4, 8))}, layout, 1)

    def step(state, batch):
        return state * jnp.sin(batch["x"].sum()) + jnp.cos(state).sum(), batch["x"].sum()

    def compiled(*options):
        made = parallel.compile_step(step, layout, options)
        return made, parallel.compiled(made, state, batch).program.as_text().count("fusion(")

    (_, usual), (made, fusions) = compiled(), compiled("xla_cpu_use_fusion_emitters=false")
    assert usual != fusions
    with compilations() as found:
        jax.block_until_ready(made(state, batch))
    assert not found
    for option, words in (("xla_nope=1", "compiler_options: No such compile option: 'xla_nope'"),
                          ("xla_cpu_use_fusion_emitters=maybe", "'maybe' is not a valid bool value$")):
        with pytest.raises(UserError, match=words):
            compiled(option)
    with pytest.raises(UserError, match="pmap takes none"):
        parallel.compile_step(step, layout._replace(mode="pmap"), ("a=1",))


@pytest.mark.parametrize("batch, limit, group, words", [
    (30, 256, None, "global_batch=30 cannot be shared by 8 devices; the nearest that can is 32"),
    (64, 2, 32, "raise max_per_device_batch=2 or lower bn_group"),
    (64, 8, 6, "model.bn_group=6 neither divides"),
])
def test_a_batch_that_does_not_fit_is_told(batch, limit, group, words):
    with pytest.raises(UserError, match=words):
        parallel.micro_batches(parallel.make_layout(), batch, limit, group)


def test_no_more_micro_batches_than_needed():
    layout = parallel.make_layout()
    assert parallel.micro_batches(layout, 96, 12, None) == 1
    assert parallel.micro_batches(layout, 96, 5, None) == 3  # 12 a device: 4 at a time, 5 does not divide
