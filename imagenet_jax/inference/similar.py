"""Pictures of an index beside those that a server is asked about."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from imagenet_jax.evaluation import mistakes
from imagenet_jax.inference import retrieval
from imagenet_jax.inference.images import Images
from imagenet_jax.inference.index import Index
from imagenet_jax.inference.predict import Prediction

PATH = "/similar/"  # and a place in the index: where its thumbnail is
Hits = list[dict[str, Any]]
Near = Callable[[Sequence[Prediction], int], Awaitable[list[Hits]]]


def near_with(index: Index) -> Near:
    """What finds so many pictures of an index for each that was predicted, see `retrieval.hits`, and their thumbnails.

    One search at a time goes on, in a thread of its own.
    """
    thread = retrieval.alone()

    def find(found: Sequence[Prediction], count: int) -> list[Hits]:
        return [[hit | {"thumbnail": f"{PATH[1:]}{place}"}
                 for hit, place in zip(retrieval.hits(index, cosines, places), places.tolist(), strict=True)]
                for cosines, places in retrieval.most_like(index, found, count)]

    async def near(found: Sequence[Prediction], count: int) -> list[Hits]:
        return await asyncio.get_running_loop().run_in_executor(thread, find, found, count)

    return near


def thumbnail(pictures: Images, place: int) -> bytes:
    """A small JPEG of a picture; a grey one where there is none any more."""
    jpeg = io.BytesIO()
    mistakes.thumbnail(pictures.load(place).encoded).save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()
