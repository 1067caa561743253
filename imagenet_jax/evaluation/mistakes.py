"""The mistakes that a model is surest of, and what they look like: often it is the label that is wrong."""

import contextlib
import io
import os
import shutil

import numpy as np
from PIL import Image

from imagenet_jax.dataset import Records, features
from imagenet_jax.evaluation import exact

FOLDER = "mistakes"
_MOST = 24
_SIDE = 192  # px, the longer side of a thumbnail


def most_confident(predictions: exact.Predictions) -> np.ndarray:
    """Rows of the predictions that are wrong, the surest first, int64 [at most 24]."""
    wrong = np.flatnonzero(predictions.top5[:, 0] != predictions.label)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_MOST]


def draw(out_dir: str, index: np.ndarray, records: Records) -> None:
    """Writes thumbnails of some examples as OUT_DIR/mistakes/INDEX.jpg, in the place of earlier ones."""
    folder = os.path.join(out_dir, FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    if len(index):
        os.makedirs(folder)
    for i, record in zip(index.tolist(), records.read(index.tolist()), strict=True):
        small = thumbnail(features(record)["image"].bytes_list.value[0])
        small.save(os.path.join(folder, f"{i}.jpg"), quality=85)


def thumbnail(encoded: bytes) -> Image.Image:
    """The image, small; grey where Pillow, unlike what evaluated it, cannot decode it, or where there is none."""
    with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError), \
            Image.open(io.BytesIO(encoded)) as image:
        image.draft("RGB", (_SIDE, _SIDE))
        small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        return small
    return Image.new("RGB", (_SIDE, _SIDE), "grey")
