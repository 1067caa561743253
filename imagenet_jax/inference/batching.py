"""Pictures from many callers, judged together: seen by threads, gathered, padded to one of a few compiled sizes."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagenet_jax.errors import UserError
from imagenet_jax.inference import predict, reading
from imagenet_jax.inference.images import Picture, judged
from imagenet_jax.input import chunks, loader
from imagenet_jax.training import evaluating, parallel


class FullError(Exception):
    """There is no place for more pictures now."""


class Limits(NamedTuple):
    """batch: pictures at a time over all devices. queue: accepted and not answered. wait_s: for a fuller batch."""

    batch: int = 32
    queue: int = 256
    wait_s: float = 0.005


USUAL = Limits()


class _Waiting(NamedTuple):
    picture: Picture
    pixels: np.ndarray
    answer: asyncio.Future[predict.Prediction]


class Batcher:
    """Answers `ask` from an event loop, while `run` goes on in it.

    A batch leaves when it is full; or `wait_s` after its first picture, if the devices have nothing else to do: until
    then it grows. Whatever batch a picture comes into, its prediction is the same.

    Attributes:
        waiting: pictures accepted and not answered.
        no_heat: why predictions have no heat; empty if they have it.
        sizes: of batches, all compiled.
    """

    def __init__(self, trained: evaluating.Trained, limits: Limits = USUAL,
                 observe: Callable[[int], None] = lambda count: None, features: bool = False) -> None:
        """Compiles everything.

        observe: is told how many pictures each batch has. features: predictions have them, too.
        """
        config, transform = trained.config, loader.eval_transform(trained.config.view)
        self._see, self._shape = chunks.viewer(transform), transform.shape
        self._judge, self.no_heat = _ready(trained, transform.shape, features)
        self.sizes = batch_sizes(min(limits.batch, evaluating.fitting(config.view)), self._judge.devices)
        for size in self.sizes:
            self._judge.get(self._run(np.zeros((size, *self._shape), np.uint8)))
        self.limits, self.waiting, self._observe = limits, 0, observe
        self._threads = chunks.Executor(config.loader.threads or chunks.cores(), "see")
        self._devices = chunks.Executor(parallel.STEPS_IN_FLIGHT, "judge")
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()

    def check_room(self, count: int = 1) -> None:
        """Raises FullError if there is no place for so many more pictures."""
        if self.waiting + count > self.limits.queue:
            raise FullError

    async def ask(self, pictures: Sequence[Picture]) -> list[predict.Prediction]:
        """Predictions of all classes for pictures as they came, in their order; heat and crop if there can be heat.

        Raises:
            FullError: there is no place for all of them.
        """
        self.check_room(len(pictures))
        self.waiting += len(pictures)
        try:
            return await asyncio.gather(*map(self._ask, pictures))
        finally:
            self.waiting -= len(pictures)

    async def run(self) -> None:
        """Gathers and judges batches until it is cancelled."""
        free, flying = asyncio.Semaphore(parallel.STEPS_IN_FLIGHT), set()
        while True:
            await free.acquire()
            flight = asyncio.create_task(self._fly(await self._gathered(flying)))
            flying.add(flight)  # the loop itself keeps no reference
            flight.add_done_callback(lambda done: (flying.discard(done), free.release()))

    def close(self) -> None:
        """Ends the threads."""
        for executor in (self._threads, self._devices):
            executor.shutdown(wait=False, cancel_futures=True)

    async def in_threads(self, call: Callable[..., Any], *args: Any) -> Any:
        """The outcome of a call, which a thread of those that see pictures makes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def _ask(self, picture: Picture) -> predict.Prediction:
        picture, pixels = await self.in_threads(self._seen, picture)
        if picture.fault:
            return predict.Prediction(picture)
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Waiting(picture, pixels, answer))
        return await answer

    def _seen(self, picture: Picture) -> tuple[Picture, np.ndarray]:
        pixels = np.zeros(self._shape, np.uint8)
        picture = judged(picture)
        if not picture.fault:
            picture = reading.see_alone(picture, self._see, pixels)
        return picture._replace(encoded=b""), pixels

    async def _gathered(self, flying: set[asyncio.Task[None]]) -> list[_Waiting]:
        batch = [await self._queue.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.wait_s):
                await self._fill(batch)
        if flying:
            filling = asyncio.create_task(self._fill(batch))
            await asyncio.wait({filling, *flying}, return_when=asyncio.FIRST_COMPLETED)
            filling.cancel()
            await asyncio.wait({filling})
        return [each for each in batch if not each.answer.done()]  # whoever gave up is done

    async def _fill(self, batch: list[_Waiting]) -> None:
        while len(batch) < self.sizes[-1]:
            batch.append(await self._queue.get())

    async def _fly(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        self._observe(len(batch))
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._devices, self._predictions, batch)
        except Exception as error:
            found = [error] * len(batch)
        for each, prediction in zip(batch, found, strict=True):
            if each.answer.done():
                continue
            if isinstance(prediction, Exception):
                each.answer.set_exception(prediction)
            else:
                each.answer.set_result(prediction)

    def _predictions(self, batch: list[_Waiting]) -> list[predict.Prediction]:
        size = next(size for size in self.sizes if size >= len(batch))
        image = np.zeros((size, *self._shape), np.uint8)
        image[: len(batch)] = [each.pixels for each in batch]
        outputs = self._judge.get(self._run(image)) | ({} if self.no_heat else {"crop": image})
        return list(predict.each_of([each.picture for each in batch], outputs))

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return self._judge.run(self._judge.put(image))


def batch_sizes(most: int, devices: int) -> list[int]:
    """Powers of two up to `most`, and that, each as the next multiple of the devices."""
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return sorted({-(-size // devices) * devices for size in (*powers, most)})


def _ready(trained: evaluating.Trained, shape: tuple[int, ...], features: bool) -> tuple[predict.Judge, str]:
    """The network with heat, which costs next to nothing: a gradient from the last map on; or without, and why.

    shape: of a picture's pixels.
    """
    asked = predict.Asked(len(trained.classes.ids), features)
    try:
        judge = predict.ready(trained, asked._replace(heat=True))
        judge.run(judge.put(np.zeros((judge.devices, *shape), np.uint8)))
    except UserError as error:
        return predict.ready(trained, asked), str(error)
    return judge, ""
