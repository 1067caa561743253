"""Pictures become batches of the pixels that evaluation sees, by all cores; a broken one stops nothing."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.inference.images import Images, Picture, judged
from imagenet_jax.input import chunks, loader

View = Callable[[Sequence[bytes]], np.ndarray]


class Seen(NamedTuple):
    """A batch. image: uint8 [B, S, S, 3] or [B, C, S, S, 3], zeros for padding and where there is a fault.

    pictures: of the batch, their bytes forgotten; fewer than B where the batch is padded.
    """

    image: np.ndarray
    pictures: list[Picture]


def batches(images: Images, *, batch: int, view: Mapping[str, Any], workers: loader.Workers) -> Iterator[Seen]:
    """All pictures in their order, `batch` at a time, the last batch padded.

    Args:
        view: the keys of `config.view`.
        workers: threads, of these.

    Raises:
        UserError: a shard of a dataset is damaged.
    """
    transform, threads = loader.eval_transform(view), workers.threads or chunks.cores()
    size = min(chunks.chunk_size(transform.shape), -(-min(batch, images.count) // threads))
    ahead = max(chunks.AHEAD, -(-size * 2 * threads // batch))
    see, queue = chunks.viewer(transform), collections.deque()
    crew = chunks.Executor(threads, "see")
    try:
        for first in range(0, images.count, batch):
            pixels = np.zeros((batch, *transform.shape), np.uint8)
            places = range(first, min(first + batch, images.count))
            parts = [range(places.start, places.stop)[at : at + size] for at in range(0, len(places), size)]
            queue.append((pixels, [crew.submit(_see, images, part, see, pixels[part.start - first :][: len(part)])
                                   for part in parts]))
            if len(queue) > ahead:
                yield _finish(*queue.popleft())
        while queue:
            yield _finish(*queue.popleft())
    finally:
        crew.shutdown(cancel_futures=True)


def _finish(pixels: np.ndarray, parts: list[chunks.Future]) -> Seen:
    return Seen(pixels, [picture for part in parts for picture in part.result()])


def _see(images: Images, part: range, see: View, pixels: np.ndarray) -> list[Picture]:
    """Writes the pixels of some pictures into their places; what one is does not depend on its neighbours."""
    pictures = [images.load(place) for place in part]
    sound = [i for i, picture in enumerate(pictures) if not picture.fault]
    try:
        if sound:
            pixels[sound] = see([pictures[i].encoded for i in sound])
    except chunks.Undecodable:
        for i in sound:
            pictures[i] = see_alone(pictures[i], see, pixels[i])
    return [picture._replace(encoded=b"") for picture in pictures]


def see_alone(picture: Picture, see: View, place: np.ndarray) -> Picture:
    """Writes the pixels of one, mended if they cannot be decoded as it is; or returns its fault."""
    try:
        place[:] = see([picture.encoded])[0]
    except chunks.Undecodable as error:
        mended = judged(picture, thorough=True)
        if mended.fault or mended.encoded == picture.encoded:
            return mended._replace(fault=mended.fault or str(error))
        place[:] = see([mended.encoded])[0]  # what has just been encoded here decodes
        return mended
    return picture
