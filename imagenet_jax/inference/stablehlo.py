"""A network as one file that runs without this package: StableHLO by jax.export, for any number of images.

    from jax import export
    net = export.deserialize(bytearray(open("OUT/model.stablehlo", "rb").read()))
    logits = net.call(images)  # uint8 [B, S, S, 3] RGB -> float32 [B, classes]

The weights and the normalisation are inside; `model.json` beside it says how images become such squares (`view`), what
the logits are of, and where it all comes from.
"""

import functools
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.inference import images as images_lib
from imagenet_jax.inference import reading
from imagenet_jax.input import loader
from imagenet_jax.training.evaluating import Trained
from imagenet_jax.training.step import make_apply

PLATFORMS = ("cpu", "cuda", "tpu")
MODEL, CARD = "model.stablehlo", "model.json"
_DRAWN = 8
_CHECKED_AT_ONCE = 16
_MOST = 200  # of those that were named
_TOLERANCE = {True: 1e-4, False: 2e-2}  # of the range of logits: in float32, and where products are rounded to less


def to_stablehlo(trained: Trained, out: str, images: str = "") -> str:
    """Writes a network into the folder `out`, reads it back, and compares what both say of images.

    Args:
        images: a folder, a tar or a pattern of images to compare on, up to 200, beside those that are drawn.

    Returns:
        A sentence about what was written, with the largest difference.

    Raises:
        UserError: the network cannot be lowered for all platforms, or what was read back computes something else.
    """
    model = models.make(num_classes=len(trained.classes.ids), **trained.config.model)
    apply, size = make_apply(model), trained.config.view.size

    def logits(variables: Any, image: jax.Array) -> jax.Array:
        return apply(variables, image).astype(jnp.float32)

    examples = _examples(trained, images)
    encoded = _lowered(functools.partial(logits, trained.variables), size, trained.config.model.name)
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, MODEL)
    with open(path, "wb") as file:
        file.write(encoded)
    with open(path, "rb") as file:
        reloaded = export.deserialize(bytearray(file.read()))
    compared = _compared(functools.partial(jax.jit(logits), trained.variables), jax.jit(reloaded.call), examples)
    differ = (f"its logits differ by {compared['largest_difference']:.2g} at most, of a range of "
              f"{compared['range']:.3g}, on {compared['images']} images")
    exact = jax.default_backend() == "cpu" and trained.config.model.dtype != "bfloat16"
    if not compared["largest_difference"] <= compared["range"] * _TOLERANCE[exact]:
        os.remove(path)
        raise UserError(f"{path} was not kept: read back, {differ}. This is not the network; please report it with "
                        "your release of jax")
    with open(os.path.join(out, CARD), "w", encoding="utf-8") as file:
        json.dump(_card(trained, model, reloaded, compared), file, indent=1, ensure_ascii=False)
        file.write("\n")
    return (f"{path}: {trained.config.model.name} for {', '.join(PLATFORMS)}, {os.path.getsize(path) / 1e6:,.1f} MB, "
            f"{trained.which} of {trained.source}; read back, {differ}")


def _lowered(logits: Any, size: int, name: str) -> bytearray:
    (batch,) = export.symbolic_shape("batch")
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    try:
        return export.export(jax.jit(logits), platforms=PLATFORMS)(image).serialize()
    except UserError:
        raise
    except Exception as error:  # what an operation raises that has no lowering, or needs to know the batch
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{name} cannot be exported for {', '.join(PLATFORMS)} and any batch: {reason}") from error


def _examples(trained: Trained, images: str) -> np.ndarray:
    """uint8 [n, S, S, 3]: drawn images, from noise to nearly one colour, and the centre crops of those at `images`."""
    view, rng = trained.config.view, np.random.default_rng(0)
    scale = np.linspace(0, 1, _DRAWN)[:, None, None, None]
    noise = rng.uniform(0, 256, (_DRAWN, view.size, view.size, 3))
    drawn = (scale * noise + (1 - scale) * rng.uniform(0, 256, (_DRAWN, 1, 1, 3))).astype(np.uint8)
    if not images:
        return drawn
    found, _ = images_lib.pointed_at([images])
    found = found._replace(count=min(found.count, _MOST))
    view = {**view, "crops": 1, "scales": ()}
    seen = [batch.image[i] for batch in reading.batches(
        found, batch=_CHECKED_AT_ONCE, view=view, workers=loader.DEFAULT)
        for i, picture in enumerate(batch.pictures) if not picture.fault]
    if not seen:
        raise UserError(f"--images={images}: no image there to compare on")
    return np.concatenate([drawn, np.stack(seen)])


def _compared(ours: Any, theirs: Any, images: np.ndarray) -> dict[str, Any]:
    """Both on all images, a few at a time, the last ones fewer."""
    parts = [images[first : first + _CHECKED_AT_ONCE] for first in range(0, len(images), _CHECKED_AT_ONCE)]
    expected, found = (np.concatenate([np.asarray(call(part)) for part in parts]) for call in (ours, theirs))
    return {"images": len(images), "largest_difference": float(np.abs(expected - found).max()),
            "range": float(np.ptp(expected)), "same_top1": int((expected.argmax(1) == found.argmax(1)).sum())}


def _card(trained: Trained, model: Any, exported: export.Exported, compared: dict[str, Any]) -> dict[str, Any]:
    config = trained.config
    return {
        "input": f"uint8 [batch, {config.view.size}, {config.view.size}, 3], RGB; normalised inside",
        "output": f"float32 [batch, {len(trained.classes.ids)}], logits",
        "view": config.view.to_dict(),
        "model": {key: value for key, value in config.model.items() if value is not None} | {
            "mean": model.mean, "std": model.std},
        "checkpoint": trained.source,
        "weights": trained.which,
        "platforms": exported.platforms,
        "versions": {"jax": jax.__version__, "calling_convention": exported.calling_convention_version},
        "read_back": compared,
        "evaluation": _evaluation(trained),
        "classes": [{"id": word, "name": name} for word, name in zip(*trained.classes, strict=True)],
    }


def _evaluation(trained: Trained) -> dict[str, Any] | None:
    """Metrics and protocol of the evaluation of this very checkpoint that lies in its workdir, if one does."""
    path = os.path.join(trained.directory, "evaluation", "results.json")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    same = results["protocol"]["checkpoint"] == trained.source and results["protocol"]["evaluated"] == trained.which
    return {key: results[key] for key in ("metrics", "protocol")} if same else None
