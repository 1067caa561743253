"""Examples made of two, inside the step: mixup, CutMix, and random erasing.

Everything is a function of (seed, step, position in the global batch), so devices, hosts and accumulation change
nothing. An example is mixed with the one before it in the global batch, the first with the last, as torchvision's
references do within the batch of a process (references/classification/transforms.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from imagenet_jax.models.layers import AXIS

_TRIES = 10  # of a box that fits, as in torchvision's RandomErasing


class Mix(NamedTuple):
    """What is done to examples; see the section `mix` of the config.

    Attributes:
        mixup, cutmix: alpha of the Beta(alpha, alpha) that the share of the example itself is drawn from; 0 for none.
        prob: of mixing at all.
        switch: probability of CutMix where there are both.
        group: consecutive examples that share a draw, as those of a process did; None for all of the global batch.
        erase: probability that a box of an example is erased.
        erase_area, erase_aspect: ranges of its share of the image and of its height / width.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch: float = 0.5
    group: int | None = None
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.33)
    erase_aspect: tuple[float, float] = (0.3, 3.3)

    @property
    def pairs(self) -> bool:
        """Whether examples are mixed with others."""
        return bool(self.prob and (self.mixup or self.cutmix))


class Draw(NamedTuple):
    """How an example is mixed: it keeps `share` of the target, and of each pixel too unless a box is cut out.

    box: (top, bottom, left, right) of the pixels that are the partner's, empty for mixup.
    """

    share: jax.Array
    box: jax.Array


def with_partners(mix: Mix, batch: Mapping[str, jax.Array], hosts: int) -> dict[str, Any]:
    """This device's share of the global batch, leaves [K, M, ...], with all that mixing needs to know of others."""
    if not mix.pairs and not mix.erase:
        return dict(batch)
    micro_batches, micro_size = batch["label"].shape
    batch = {**batch, "position": positions(micro_batches, micro_size, lax.axis_size(AXIS), hosts)}
    partners = {name: before(value, hosts) for name, value in batch.items()} if mix.pairs else None
    return batch | {"partner": partners}


def examples(mix: Mix, key: jax.Array, micro: Mapping[str, Any], normalize: Callable[[jax.Array], jax.Array],
             classes: int) -> tuple[jax.Array, jax.Array]:
    """Images [M, H, W, 3] and targets of a micro-batch of `with_partners`: labels [M], or [M, K] if they are mixed.

    Args:
        key: of the step, the same on all devices.
        normalize: from uint8 to what the network takes.
    """
    key_draw, key_erase = jax.random.split(key)

    def seen(of: Mapping[str, Any]) -> jax.Array:
        image = normalize(of["image"])
        return erased(mix, image, key_erase, of["position"]) if mix.erase else image

    if not mix.pairs:
        return seen(micro), micro["label"]
    drawn = draw(mix, key_draw, micro["position"], micro["image"].shape[1:3])
    targets = mixed_targets(micro["label"], micro["partner"]["label"], drawn, classes)
    return mixed_images(seen(micro), seen(micro["partner"]), drawn), targets


def positions(micro_batches: int, micro_size: int, devices: int, hosts: int) -> jax.Array:
    """Where this device's examples [K, M] are in the global batch; see `parallel` for how they lie."""
    local = devices // hosts
    host, device = lax.axis_index(AXIS) // local, lax.axis_index(AXIS) % local
    micro = jnp.arange(micro_batches)[:, None]
    return ((host * micro_batches + micro) * local + device) * micro_size + jnp.arange(micro_size)


def before(x: jax.Array, hosts: int) -> jax.Array:
    """For each of this device's examples x [K, M, ...] the one before it in the global batch."""
    devices = lax.axis_size(AXIS)
    local = devices // hosts
    last = x[:, -1]  # of each micro-batch on this device; the first there follows that of the device before
    within = [(d, d // local * local + (d + 1) % local) for d in range(devices)]
    of_neighbour = lax.ppermute(last, AXIS, within)
    # The first device of a host follows the last one in the micro-batch before, and its first the host before.
    across = [(d, (d + 1) % devices) for d in range(local - 1, devices, local)]
    of_host = lax.ppermute(last[-1], AXIS, across)
    rolled = jnp.concatenate([of_host[None], of_neighbour[:-1]])
    first = jnp.where(lax.axis_index(AXIS) % local == 0, rolled, of_neighbour)
    return jnp.concatenate([first[:, None], x[:, :-1]], 1)


def draw(mix: Mix, key: jax.Array, position: jax.Array, size: tuple[int, int]) -> Draw:
    """How the examples at positions [B] of the global batch are mixed, images being (height, width) = `size`."""
    if not mix.group:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(position), *x.shape)), _draw_one(mix, key, size))
    return jax.vmap(lambda number: _draw_one(mix, jax.random.fold_in(key, number), size))(position // mix.group)


def _draw_one(mix: Mix, key: jax.Array, size: tuple[int, int]) -> Draw:
    key_any, key_switch, key_share, key_box = jax.random.split(key, 4)
    cut = jax.random.bernoulli(key_switch, mix.switch if mix.mixup and mix.cutmix else float(bool(mix.cutmix)))
    alpha = jnp.where(cut, mix.cutmix, mix.mixup)
    share = jax.random.beta(key_share, alpha, alpha)
    # Yun et al. 2019, algorithm 1: a box anywhere, of which what lies outside is cut off.
    centre = jax.random.uniform(key_box, (2,))
    middle, half = [jnp.floor(centre[i] * size[i]) for i in (0, 1)], 0.5 * jnp.sqrt(1 - share)
    box = jnp.stack([edge for side, at in zip(size, middle, strict=True) for edge in (
        jnp.clip(at - jnp.floor(half * side), 0, side), jnp.clip(at + jnp.floor(half * side), 0, side))])
    area = (box[1] - box[0]) * (box[3] - box[2]) / (size[0] * size[1])
    mixed = jax.random.bernoulli(key_any, mix.prob)
    return Draw(jnp.where(mixed, jnp.where(cut, 1 - area, share), 1.0),
                jnp.where(mixed & cut, box, 0).astype(jnp.int32))


def mixed_images(image: jax.Array, partner: jax.Array, drawn: Draw) -> jax.Array:
    """Images [B, H, W, C] mixed with their partners, as drawn [B]."""
    inside = _inside(drawn.box, image.shape[1:3])
    cut = (drawn.box[:, 1] > drawn.box[:, 0]) & (drawn.box[:, 3] > drawn.box[:, 2])
    share = jnp.where(cut, 1.0, drawn.share)[:, None, None, None].astype(image.dtype)
    return jnp.where(inside, partner, share * image + (1 - share) * partner)


def mixed_targets(label: jax.Array, partner: jax.Array, drawn: Draw, classes: int) -> jax.Array:
    """Shares of the classes [B, K] from labels [B]."""
    one_hot = lambda x: jax.nn.one_hot(x, classes, dtype=drawn.share.dtype)
    return drawn.share[:, None] * one_hot(label) + (1 - drawn.share[:, None]) * one_hot(partner)


def erased(mix: Mix, image: jax.Array, key: jax.Array, position: jax.Array) -> jax.Array:
    """Normalised images [B, H, W, C], with a box of some of them at 0, which is the mean of the pixels.

    Zhong et al. 2017; the box is drawn as torchvision's RandomErasing draws it, at most ten times until one fits.
    """
    boxes = jax.vmap(lambda number: _erase_one(mix, jax.random.fold_in(key, number), image.shape[1:3]))(position)
    return jnp.where(_inside(boxes, image.shape[1:3]), 0, image)


def _erase_one(mix: Mix, key: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(top, bottom, left, right), empty for none."""
    key_any, key_area, key_aspect, key_place = jax.random.split(key, 4)
    area = jax.random.uniform(key_area, (_TRIES,), minval=mix.erase_area[0], maxval=mix.erase_area[1])
    low, high = jnp.log(jnp.array(mix.erase_aspect))
    aspect = jnp.exp(jax.random.uniform(key_aspect, (_TRIES,), minval=low, maxval=high))
    sides = jnp.round(jnp.sqrt(area * size[0] * size[1])[:, None] * jnp.stack([aspect, 1 / aspect], 1) ** 0.5)
    fits = (sides < jnp.array(size)).all(1)
    side = sides[jnp.argmax(fits)]
    start = jnp.floor(jax.random.uniform(key_place, (2,)) * (jnp.array(size) - side + 1))
    box = jnp.stack([start[0], start[0] + side[0], start[1], start[1] + side[1]])
    return jnp.where(jax.random.bernoulli(key_any, mix.erase) & fits.any(), box, 0).astype(jnp.int32)


def _inside(box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Masks [B, H, W, 1] of boxes [B, 4]."""
    y, x = jnp.arange(size[0])[:, None], jnp.arange(size[1])
    top, bottom, left, right = (box[:, i, None, None] for i in range(4))
    return ((y >= top) & (y < bottom) & (x >= left) & (x < right))[..., None]
