"""Mixup, CutMix and random erasing: by position alone, with the shares that they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from stepping import DropoutNet, fresh, options, random_batches, run, sgd

from imagenet_jax import config
from imagenet_jax.models.layers import AXIS
from imagenet_jax.training import mixing
from imagenet_jax.training.mixing import Draw, Mix

SIZE, MANY = (40, 60), 2000


def test_the_config_has_the_defaults_of_no_mixing() -> None:
    assert Mix(**config.base().mix) == Mix() and not Mix().pairs


def laid(count, devices, hosts, micro):
    """0 .. count - 1 as `parallel.put_batch` lays a global batch: [devices, K, M]."""
    by_host = np.arange(count).reshape(hosts, micro, devices // hosts, -1)
    return by_host.swapaxes(1, 2).reshape(devices, micro, -1)


@pytest.mark.parametrize("devices, hosts", [(1, 1), (4, 1), (4, 2), (8, 4), (8, 8)])
@pytest.mark.parametrize("micro", [1, 3])
def test_every_example_knows_its_place_and_the_one_before_it(devices, hosts, micro):
    count = devices * micro * 2
    where = laid(count, devices, hosts, micro)

    def one(x):
        x = x[0]
        return mixing.positions(*x.shape[:2], devices, hosts)[None], mixing.before(x, hosts)[None]

    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    positions, partners = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS)))(
        where[..., None] * np.ones(3, int))
    np.testing.assert_array_equal(positions, where)
    np.testing.assert_array_equal(partners[..., 0], (where - 1) % count)


@functools.cache
def drawn(mix):
    return jax.tree.map(np.asarray, jax.jit(lambda key: mixing.draw(mix, key, jnp.arange(MANY), SIZE))(
        jax.random.key(0)))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_are_drawn_from_beta(alpha):
    share = drawn(Mix(mixup=alpha, group=1)).share
    assert not drawn(Mix(mixup=alpha, group=1)).box.any()
    assert abs(share.mean() - 0.5) < 0.03 and abs(share.var() - 0.25 / (2 * alpha + 1)) < 0.01


def test_shares_of_cutmix_are_the_areas_that_are_left():
    top, bottom, left, right = drawn(Mix(cutmix=1.0, group=1)).box.T
    np.testing.assert_allclose(drawn(Mix(cutmix=1.0, group=1)).share, 1 - (bottom - top) * (right - left) / 2400,
                               rtol=1e-6)
    assert (top >= 0).all() and (bottom <= 40).all() and (left >= 0).all() and (right <= 60).all()
    whole = (top > 0) & (bottom < 40) & (left > 0) & (right < 60) & (bottom > top + 10)
    aspect = (bottom - top)[whole] / (right - left)[whole]
    assert abs(aspect.mean() - 40 / 60) < 0.02  # a box is shaped as the image


def test_either_is_chosen_as_often_as_it_should_be():
    mix = Mix(mixup=0.8, cutmix=1.0, prob=0.75, switch=0.4, group=1)
    share, box = drawn(mix)
    cut = box.any(1)
    assert abs((share == 1).mean() - 0.25) < 0.04 and abs(cut.mean() - 0.75 * 0.4) < 0.04


def test_a_group_shares_its_draw():
    share = drawn(Mix(mixup=1.0, group=8)).share.reshape(-1, 8)
    assert (share == share[:, :1]).all() and len(np.unique(share)) == MANY // 8
    assert len(np.unique(drawn(Mix(mixup=1.0)).share)) == 1


def test_pixels_and_targets_are_mixed_in_the_same_shares():
    image, partner = jnp.zeros((MANY, *SIZE, 1)), jnp.ones((MANY, *SIZE, 1))
    for mix in (Mix(mixup=1.0, group=1), Mix(cutmix=1.0, group=1)):
        of_partner = mixing.mixed_images(image, partner, Draw(*map(jnp.asarray, drawn(mix)))).mean((1, 2, 3))
        targets = mixing.mixed_targets(jnp.zeros(MANY, int), jnp.full(MANY, 3), drawn(mix), 5)
        np.testing.assert_allclose(targets[:, 3], of_partner, atol=2e-6)
        np.testing.assert_allclose(targets[:, 0], 1 - of_partner, atol=2e-6)
        assert not np.asarray(targets[:, [1, 2, 4]]).any()


def test_erasing():
    mix = Mix(erase=0.4)
    image = jnp.ones((MANY, *SIZE, 1))
    gone = np.asarray(jax.jit(lambda key: mixing.erased(mix, image, key, jnp.arange(MANY)))(
        jax.random.key(1)))[..., 0] == 0
    area, height, width = gone.mean((1, 2)), gone.any(2).sum(1), gone.any(1).sum(1)
    np.testing.assert_array_equal(gone.sum((1, 2)), height * width)  # a box
    some = area > 0
    assert abs(some.mean() - 0.4) < 0.04
    assert area[some].min() > 0.015 and area[some].max() < 0.35 and abs(area[some].mean() - 0.175) < 0.02
    aspect = height[some] / width[some]
    assert aspect.min() > 0.25 and aspect.max() < 3.7 and abs(np.log(aspect).mean()) < 0.1


MIX = Mix(mixup=0.2, cutmix=1.0, group=6, erase=0.7)


@functools.cache
def mixed(devices, micro):
    """A global batch of 24 examples as all devices together make it: images and targets, in order."""
    rng = np.random.default_rng(0)
    where = laid(24, devices, 1, micro)
    batch = {"image": rng.integers(1, 256, (24, 8, 8, 3), np.uint8)[where], "label": (np.arange(24) % 5)[where]}

    def one(batch):
        batch = mixing.with_partners(MIX, jax.tree.map(lambda x: x[0], batch), 1)
        made = jax.lax.map(lambda micro: mixing.examples(MIX, jax.random.key(3), micro, lambda x: x.astype(float), 5),
                           batch)
        return jax.tree.map(lambda x: x[None], made)

    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    made = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS), check_vma=False))(batch)
    order = np.argsort(where.ravel())
    return [np.asarray(x).reshape(24, *x.shape[3:])[order] for x in made]


def test_devices_and_accumulation_change_nothing():
    for devices, micro in ((1, 3), (4, 1), (4, 3)):
        for ours, expected in zip(mixed(devices, micro), mixed(1, 1), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_an_example_is_mixed_with_the_one_before_both_erased():
    image, targets = mixed(1, 1)
    label = np.eye(5)[np.arange(24) % 5]
    share = ((targets - np.roll(label, 1, 0)) * label).sum(1)
    np.testing.assert_allclose(targets, share[:, None] * label + (1 - share[:, None]) * np.roll(label, 1, 0), atol=1e-6)
    raw = np.random.default_rng(0).integers(1, 256, (24, 8, 8, 3), np.uint8).astype(float)
    seen = lambda x: np.stack([x, 0 * x])  # as it is, or erased
    share = share[:, None, None, None]
    blends = [s * a + (1 - s) * b for s in (share, 1.0, 0.0) for a in seen(raw) for b in seen(np.roll(raw, 1, 0))]
    assert (np.abs(np.stack(blends) - image).min(0) < 1e-2).all()
    assert (image == 0).all(3).any((1, 2)).mean() > 0.3


def test_the_step_trains_on_mixed_examples():
    opts = options(DropoutNet(dropout=0.0), sgd(0.02), mix=Mix(mixup=0.2, cutmix=1.0, erase=0.25))
    _, curve = run(opts, fresh(opts), list(random_batches(1)) * 40)
    assert len(set(curve["loss"][:4, 0])) == 4 and curve["loss"][-5:, 0].mean() < curve["loss"][:5, 0].mean()
