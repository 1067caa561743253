"""What a trained network says of pictures, on all devices."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imagenet_jax import models
from imagenet_jax.classes import Classes, join
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact
from imagenet_jax.inference import explain, reading
from imagenet_jax.inference.images import Images, Picture
from imagenet_jax.input import loader, pixels
from imagenet_jax.prepare.sources import naming
from imagenet_jax.training import evaluating, parallel
from imagenet_jax.training.step import make_apply, normalize

PyTree = Any


class Asked(NamedTuple):
    """What is wanted of each picture.

    topk: how many classes. features: the pooled ones, too. heat: see `explain`. pixels: what the network sees, small.
    columns: int32 [K], the logits of the classes that count, in the order of their labels; by default all.
    """

    topk: int = 5
    features: bool = False
    heat: bool = False
    pixels: bool = False
    columns: np.ndarray | slice = slice(None)


USUAL = Asked()
SMALL = 32  # px


class Judge(NamedTuple):
    """A network on all devices, which share a batch equally; every size of batch is compiled when it first comes.

    put: uint8 [B, S, S, 3] or [B, C, S, S, 3] -> the same on the devices. run: that -> what is found there, on its
    way. get: waits for it; the fields of `Prediction`, numpy [B, ...].
    """

    put: Callable[[np.ndarray], PyTree]
    run: Callable[[PyTree], PyTree]
    get: Callable[[PyTree], dict[str, np.ndarray]]
    devices: int


class Prediction(NamedTuple):
    """What a network says of a picture; nothing where that has a fault.

    labels: int32 [k], best first. probabilities: float32 [k]. features: float32 [D], if they were asked for.
    heat: float32 [h, w], if it was, and crop: uint8 [S, S, 3], what the network saw. pixels: float32
    [SMALL * SMALL * 3], that made small, as normalised for the network; of several crops the last, which of five or ten
    is the centre.
    """

    picture: Picture
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    features: np.ndarray | None = None
    heat: np.ndarray | None = None
    crop: np.ndarray | None = None
    pixels: np.ndarray | None = None


def counting(file: str, model: Classes) -> tuple[Classes, np.ndarray | slice]:
    """The classes of a file, as `prepare --classes` takes it, and their columns of a model's logits; all without one.

    One that the file gives no name is called as the model calls it.

    Raises:
        UserError: no such file, or a class in it that the model has not.
    """
    if not file:
        return model, slice(None)
    named = naming.read_classes(file)
    try:
        columns = join(Classes(tuple(named), tuple(named.values())), model).columns
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    names = (model.names[column] if name == word else name
             for (word, name), column in zip(named.items(), columns, strict=True))
    return Classes(tuple(named), tuple(names)), columns


def predict(trained: evaluating.Trained, images: Images, asked: Asked = USUAL,
            batch: int = 0) -> Iterator[Prediction]:
    """Predictions for all pictures in their order, as the network's evaluation would see them.

    batch: pictures at a time over all devices, by default the config's; it changes nothing.

    Raises:
        UserError: a shard of a dataset is damaged; heat of several crops, or of a network without maps.
    """
    config, judge = trained.config, ready(trained, asked)
    batch = min(batch or config.evaluation.batch, evaluating.fitting(config.view))
    batch = -(-max(1, min(batch, images.count)) // judge.devices) * judge.devices
    workers = loader.Workers(**config.loader)
    batches = reading.batches(images, batch=batch, view=config.view, workers=workers)
    with contextlib.closing(loader.prefetch(batches, lambda seen: (seen, judge.put(seen.image)),
                                            workers.prefetch)) as placed:
        for seen, outputs in parallel.dispatched((seen, judge.run(each)) for seen, each in placed):
            yield from each_of(seen.pictures, judge.get(outputs) | ({"crop": seen.image} if asked.heat else {}))


def ready(trained: evaluating.Trained, asked: Asked = USUAL) -> Judge:
    """Lays a network on all devices of this host.

    Raises:
        UserError: heat of several crops.
    """
    config = trained.config
    if asked.heat and pixels.crop_axes(config.view.crops, config.view.scales):
        raise UserError(f"Grad-CAM shows what one crop says, and {trained.source} is judged by several")
    layout = parallel.make_layout(config.parallel)
    model = models.make(num_classes=len(trained.classes.ids), **config.model)
    step = parallel.compile_eval(_judge(model, asked, config.view), layout)
    variables = parallel.put_state(trained.variables, layout)
    return Judge(lambda image: parallel.put_batch({"image": image}, layout), lambda batch: step(variables, batch),
                 lambda outputs: parallel.get_examples(outputs, layout), len(layout.devices))


def _judge(model: nn.Module, asked: Asked, view: Mapping[str, Any]) -> Callable[[PyTree, PyTree], PyTree]:
    """(variables, {image}) -> the fields of `Prediction`, each with a leading axis for the pictures."""
    apply, mirrored = make_apply(model), view.get("crops") in pixels.MIRRORED

    def pooled(variables: PyTree, image: jax.Array) -> jax.Array:
        _, kept = model.apply(variables, normalize(image, model).astype(model.dtype), mutable=["features"])
        return kept["features"]["pooled"].astype(jnp.float32)

    def judge(variables: PyTree, batch: PyTree) -> PyTree:
        image, several = batch["image"], batch["image"].ndim == 5
        logits = lambda crop: jnp.asarray(apply(variables, crop), jnp.float32)[:, asked.columns]
        outcome = exact.over_crops(logits, image, mirrored) if several else logits(image)
        probabilities, labels = jax.lax.top_k(jax.nn.softmax(outcome), min(asked.topk, outcome.shape[-1]))
        found = {"labels": labels, "probabilities": probabilities}
        if asked.features:  # XLA computes the network once for both
            found["features"] = jax.lax.map(lambda crop: pooled(variables, crop), image.swapaxes(0, 1)).mean(axis=0) \
                if several else pooled(variables, image)
        if asked.heat:
            found["heat"] = explain.grad_cam(model, variables, image, asked.columns)
        if asked.pixels:
            seen = normalize(image[:, -1] if several else image, model)
            small = jax.image.resize(seen, (len(seen), SMALL, SMALL, 3), "linear").astype(jnp.float32)
            found["pixels"] = small.reshape(len(seen), -1)
        return found

    return judge


def each_of(pictures: Sequence[Picture], outputs: Mapping[str, np.ndarray]) -> Iterator[Prediction]:
    """The prediction of each picture of a batch; `outputs` holds its fields, [B, ...]."""
    for i, picture in enumerate(pictures):
        yield Prediction(picture) if picture.fault else Prediction(
            picture, **{name: values[i] for name, values in outputs.items()})
