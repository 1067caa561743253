"""A trained network as files that run without this package, each read back by its own runtime before it is kept.

Beside the network lies `model.json`: how images become its squares (`view`), what the logits are of, where it all comes
from, and what it was compared on.
"""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from imagenet_jax import models
from imagenet_jax.errors import UserError
from imagenet_jax.inference import images as images_lib
from imagenet_jax.inference import program as program_lib
from imagenet_jax.inference import reading, to_onnx, to_onnx_int8, to_saved_model, to_stablehlo
from imagenet_jax.input import loader
from imagenet_jax.training.evaluating import Trained

CARD = "model.json"
_DRAWN = 8
_AT_ONCE = 16
_MOST = 200  # of those that were named
_TOLERANCE = {True: 1e-4, False: 2e-2}  # of the range of logits: in float32, and where products are rounded to less


class Form(NamedTuple):
    """What a network can be written as.

    file: its name in a folder. write: (program, path) -> what the card says. read: path -> images uint8 [B, S, S, 3] ->
    logits. read_encoded: the same of encoded images, where it takes such. least_same: the share of images that must
    keep their class, of a form that is rounded.
    """

    file: str
    write: Callable[[program_lib.Program, str], dict[str, Any]]
    read: Callable[[str], Callable[[np.ndarray], np.ndarray]]
    read_encoded: Callable[[str], Callable[[Sequence[bytes]], np.ndarray]] | None = None
    least_same: float = 0.0


FORMS = {"stablehlo": Form("model.stablehlo", to_stablehlo.write, to_stablehlo.read),
         "savedmodel": Form("saved_model", to_saved_model.write, to_saved_model.read, to_saved_model.read_encoded),
         "onnx": Form("model.onnx", to_onnx.write, to_onnx.read),
         "onnx_int8": Form("model.int8.onnx", to_onnx_int8.write, to_onnx.read, least_same=0.5)}


class Examples(NamedTuple):
    """What is compared on. image: uint8 [n, S, S, 3]. encoded: the images that some are of, by their row.

    calibration: others, for a form that is rounded.
    """

    image: np.ndarray
    encoded: dict[int, bytes]
    calibration: np.ndarray


def export(trained: Trained, to: str, out: str, images: str = "") -> str:
    """Writes a network into the folder `out`, reads it back, and compares what both say of images.

    Args:
        to: a key of FORMS.
        images: a folder, a tar or a pattern of images to compare on, up to 200, beside those that are drawn.

    Returns:
        What was written and how far it differs, in words.

    Raises:
        UserError: the network cannot be written so, or what was read back computes something else.
    """
    form = FORMS[to]
    examples = _examples(trained, images, form)
    program = program_lib.of(trained, examples.calibration)
    expected = _by_parts(functools.partial(jax.jit(program.logits), program.variables), examples.image)
    exact = jax.default_backend() == "cpu" and trained.config.model.dtype != "bfloat16"
    with tempfile.TemporaryDirectory() as scratch:
        path, kept = os.path.join(scratch, form.file), os.path.join(out, form.file)
        said = _write(form, program, path, trained.config.model.name)
        compared = {"read_back": _compared(expected, _by_parts(form.read(path), examples.image))}
        _check(compared["read_back"], kept, _TOLERANCE[exact], form.least_same)
        if examples.encoded:
            found = _by_parts(form.read_encoded(path), [*examples.encoded.values()])
            compared["encoded"] = _compared(expected[[*examples.encoded]], found)
        os.makedirs(out, exist_ok=True)
        _take_place(path, kept)
    with open(os.path.join(out, CARD), "w", encoding="utf-8") as file:
        json.dump(_card(trained) | said | compared, file, indent=1, ensure_ascii=False)
        file.write("\n")
    told = [f"{kept}: {trained.config.model.name}, {_megabytes(kept):,.1f} MB, {trained.which} of {trained.source}; "
            f"read back, {_words(compared['read_back'])}"]
    if "encoded" in compared:
        told.append(f"fed the images as they are, {_words(compared['encoded'])}: its pixels are TensorFlow's, those of "
                    f"this network's view {trained.config.view.library}'s")
    return "\n".join(told)


def _check(compared: dict[str, Any], kept: str, tolerance: float, least_same: float) -> None:
    """Raises UserError if what was read back is another network; one that is rounded need only mean the same."""
    told = f"{kept} was not written: read back, {_words(compared)}"
    if least_same and compared["same_top1"] < least_same * compared["images"]:
        raise UserError(f"{told}. Rounded so, this network is not worth keeping; more --images may help")
    if not least_same and not compared["largest_difference"] <= compared["range"] * tolerance:
        raise UserError(f"{told}. This is not the network; please report it with your releases of jax and of what runs "
                        "the file")


def _write(form: Form, program: program_lib.Program, path: str, name: str) -> dict[str, Any]:
    try:
        return form.write(program, path)
    except UserError:
        raise
    except Exception as error:  # what an operation raises that has no lowering, or needs to know the batch
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{name} cannot be exported as {form.file} for any batch: {reason}") from error


def _take_place(path: str, kept: str) -> None:
    if os.path.isdir(kept):
        shutil.rmtree(kept)
    shutil.move(path, kept)


def _megabytes(path: str) -> float:
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    return sum(map(os.path.getsize, files)) / 1e6


def _examples(trained: Trained, images: str, form: Form) -> Examples:
    """Drawn images, from noise to nearly one colour, and the centre crops of those at `images`.

    For a form that is rounded no drawn ones, and every second of the others is for calibration. Encoded are those that
    need no mending, for a form that takes them.
    """
    rounded = form.least_same > 0
    view, rng = trained.config.view, np.random.default_rng(0)
    scale = np.linspace(0, 1, _DRAWN)[:, None, None, None]
    noise = rng.uniform(0, 256, (_DRAWN, view.size, view.size, 3))
    drawn = (scale * noise + (1 - scale) * rng.uniform(0, 256, (_DRAWN, 1, 1, 3))).astype(np.uint8)
    if rounded:
        drawn = drawn[:0]
    if not images:
        if rounded:
            raise UserError("a network of 8 bits is calibrated on pictures like those that it will see: give --images")
        return Examples(drawn, {}, drawn)
    found, _ = images_lib.pointed_at([images])
    found = found._replace(count=min(found.count, _MOST))
    view = {**view, "crops": 1, "scales": ()}
    batches = reading.batches(found, batch=_AT_ONCE, view=view, workers=loader.DEFAULT)
    seen = [(image, picture) for batch in batches for image, picture in zip(batch.image, batch.pictures, strict=False)]
    sound = [(place, *each) for place, each in enumerate(seen) if not each[1].fault]
    if len(sound) < 1 + rounded:
        raise UserError(f"--images={images}: no image there to compare on")
    kept, calibration = (sound[::2], sound[1::2]) if rounded else (sound, [])
    return Examples(np.concatenate([drawn, [image for _, image, _ in kept]]), {
        row: found.load(place).encoded for row, (place, _, picture) in enumerate(kept, len(drawn))
        if form.read_encoded and not picture.mended}, np.array([image for _, image, _ in calibration]))


def _by_parts(call: Callable[[Any], Any], images: Sequence[Any]) -> np.ndarray:
    """Logits of all images, a few at a time, the last ones fewer."""
    return np.concatenate([np.asarray(call(images[first : first + _AT_ONCE]))
                           for first in range(0, len(images), _AT_ONCE)])


def _compared(expected: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    return {"images": len(found), "largest_difference": float(np.abs(expected - found).max()),
            "range": float(np.ptp(expected)), "same_top1": int((expected.argmax(1) == found.argmax(1)).sum())}


def _words(compared: dict[str, Any]) -> str:
    return (f"its logits differ by {compared['largest_difference']:.2g} at most, of a range of "
            f"{compared['range']:.3g}, on {compared['images']} images, and {compared['same_top1']} have the same class")


def _card(trained: Trained) -> dict[str, Any]:
    config = trained.config
    model = models.make(num_classes=0, **config.model)
    return {
        "input": f"uint8 [batch, {config.view.size}, {config.view.size}, 3], RGB; normalised inside",
        "output": f"float32 [batch, {len(trained.classes.ids)}], logits",
        "view": config.view.to_dict(),
        "model": {key: value for key, value in config.model.items() if value is not None} | {
            "mean": model.mean, "std": model.std},
        "checkpoint": trained.source,
        "weights": trained.which,
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
