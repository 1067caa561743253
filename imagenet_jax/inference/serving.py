"""What a trained network says of pictures, over HTTP: an ASGI application, and the page that asks it."""

import asyncio
import base64
import contextlib
import hashlib
import io
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib import resources
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagenet_jax.classes import Classes
from imagenet_jax.inference import batching, explain, similar, writing
from imagenet_jax.inference import index as index_lib
from imagenet_jax.inference.images import Picture
from imagenet_jax.inference.predict import Prediction
from imagenet_jax.training.evaluating import Trained

Take = Callable[[int], None]
Endpoint = Callable[[Request], Awaitable[Response]]
_PATHS = {"/": "GET", "/healthz": "GET", "/metrics": "GET", "/predict": "POST"}
_TOPK = 5
_SIMILAR = 100  # at most
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_BODIES = 16  # of the largest size: so many bytes of requests are held at a time
_SOON = {"Retry-After": "1"}  # s


class Rules(NamedTuple):
    """What a request may take. max_bytes: of its body. timeout_s: for the body to come, and then for the answer."""

    max_bytes: int = 32_000_000
    timeout_s: float = 30.0


class Asked(NamedTuple):
    """The query of a request. topk: classes. explained: whether there shall be heat. similar: pictures of the index."""

    topk: int
    explained: bool
    similar: int


class Meters(NamedTuple):
    """What Prometheus is told."""

    registry: CollectorRegistry
    requests: Counter
    images: Counter
    batches: Histogram
    seconds: Histogram


def make_app(trained: Trained, limits: batching.Limits = batching.USUAL, rules: Rules | None = None,
             index: index_lib.Index | None = None) -> ASGIApp:
    """An application that answers with a network: POST /predict, GET /healthz, GET /metrics, and the page at GET /.

    The network is compiled here, for every size of batch.

    index: in which similar pictures are found, and shown to whoever asks, at GET /similar/PLACE.

    Raises:
        UserError: another network made the index.
    """
    if index:
        index_lib.check_network(index, trained)
    meters = _make_meters(limits.batch)
    batcher = batching.Batcher(trained, limits, meters.batches.observe, features=bool(index))
    Gauge("imagenet_jax_queue_length", "Images accepted and not answered.",
          registry=meters.registry).set_function(lambda: batcher.waiting)
    page, policy = _page()
    health = {"status": "ok", "network": trained.config.model.name, "checkpoint": trained.source,
              "weights": trained.which, "classes": len(trained.classes.ids), "no_explain": batcher.no_heat,
              "index": len(index.names) if index else 0}

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers=_NOSNIFF | {"Content-Security-Policy": policy})

    async def tell_health(request: Request) -> Response:
        return JSONResponse(health)

    async def tell_metrics(request: Request) -> Response:
        return Response(generate_latest(meters.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        batcher.close()

    endpoints = (show, tell_health, tell_metrics, _predict_with(
        trained.classes, batcher, rules or Rules(), meters, similar.near_with(index) if index else None))
    thumbnails = [Route(similar.PATH + "{place}", _thumbnail_with(index, batcher))] if index else []
    return _counted(meters.requests, Starlette(
        routes=thumbnails + [Route(path, endpoint, methods=[method])
                             for (path, method), endpoint in zip(_PATHS.items(), endpoints, strict=True)],
        exception_handlers={HTTPException: _refused, batching.FullError: _full, ClientDisconnect: _gone,
                            Exception: _failed}, lifespan=lifespan))


def _predict_with(classes: Classes, batcher: batching.Batcher, rules: Rules, meters: Meters,
                  near: similar.Near | None) -> Endpoint:
    """The endpoint /predict."""
    budget = _make_budget(_BODIES * rules.max_bytes)

    async def predict(request: Request) -> Response:
        start = time.monotonic()
        asked = _asked(request, len(classes.ids), batcher.no_heat, near)
        batcher.check_room()
        with budget() as take:
            async with _within(rules.timeout_s, HTTPException(
                    408, f"the body did not come within {rules.timeout_s:g} s", {"Connection": "close"})):
                pictures = await _pictures(request, rules.max_bytes, batcher.limits.queue, take)
            async with _within(rules.timeout_s, HTTPException(
                    503, f"there was no answer within {rules.timeout_s:g} s; try again later", _SOON)):
                found = await batcher.ask(pictures)
                nearest = await near(found, asked.similar) if asked.similar else None
        for each in found:
            meters.images.labels(_outcome(each.picture)).inc()
        rows = await batcher.in_threads(lambda: [_row(each, classes, asked) for each in found])
        if nearest:
            rows = [row | ({"similar": hits} if hits else {}) for row, hits in zip(rows, nearest, strict=True)]
        meters.seconds.observe(time.monotonic() - start)
        if all(each.picture.fault for each in found):
            return JSONResponse({"error": found[0].picture.fault, "predictions": rows}, 400)
        return JSONResponse({"predictions": rows})

    return predict


def _thumbnail_with(index: index_lib.Index, batcher: batching.Batcher) -> Endpoint:
    """The endpoint of thumbnails: of the pictures of an index, by their place in it, and of nothing else."""
    pictures = index_lib.pictures(index)
    pictures.load(0)  # in TFRecord files all records are found at the first, which is better now

    async def show(request: Request) -> Response:
        place = _whole(request.path_params["place"])
        if place is None or place >= pictures.count:
            raise HTTPException(404)
        jpeg = await batcher.in_threads(similar.thumbnail, pictures, place)
        return Response(jpeg, media_type="image/jpeg", headers=_NOSNIFF)

    return show


def _whole(word: str) -> int | None:
    """The whole number that a word of somebody's is, if it is one, and no endless one."""
    return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else None


def _asked(request: Request, classes: int, no_heat: str, near: similar.Near | None) -> Asked:
    """The query; raises HTTPException where something cannot be had."""
    topk, explained, count = (request.query_params.get(key, usual) for key, usual in (
        ("topk", str(_TOPK)), ("explain", "0"), ("similar", "0")))
    if not _whole(topk):
        raise HTTPException(400, f"topk={topk[:20]}: a whole number from 1 to {classes}, the classes there are")
    if explained not in ("0", "1"):
        raise HTTPException(400, f"explain={explained[:20]}: 1 for a picture of where the network looked, or 0")
    if explained == "1" and no_heat:
        raise HTTPException(400, f"explain=1: {no_heat}")
    if _whole(count) is None or int(count) > _SIMILAR:
        raise HTTPException(400, f"similar={count[:20]}: a whole number up to {_SIMILAR}, of pictures of the index")
    if int(count) and not near:
        raise HTTPException(400, f"similar={count}: there is no index to find pictures in; start with --index=DIR")
    return Asked(min(int(topk), classes), explained == "1", int(count))


async def _pictures(request: Request, max_bytes: int, max_files: int, take: Take) -> list[Picture]:
    """The encoded pictures of a request: the body itself, or the files of a form; raises HTTPException."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        body = await _body(request, max_bytes, take)
        return await _files(request, body, options.get(b"boundary", b""), max_files)
    if kind and kind != b"application/octet-stream" and not kind.startswith(b"image/"):
        raise HTTPException(415, f"{kind.decode('latin-1')[:50]} is no picture: send its bytes with Content-Type: "
                            "image/jpeg (or whatever it is), or one or several files as multipart/form-data")
    return [Picture("picture", await _body(request, max_bytes, take))]


async def _body(request: Request, max_bytes: int, take: Take) -> bytes:
    too_large = HTTPException(413, f"the body has more than {max_bytes / 1e6:g} MB; send a smaller picture, or fewer")
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise too_large
    chunks, count = [], 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > max_bytes:
            raise too_large
        take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


async def _files(request: Request, body: bytes, boundary: bytes, max_files: int) -> list[Picture]:
    if not body.rstrip().endswith(b"--" + boundary + b"--"):  # what is cut off would be left out without a word
        raise HTTPException(400, "the form is cut short: it does not end with its boundary")

    async def whole() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(request.headers, whole(), max_files=max_files).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    try:
        parts = form.multi_items()
        if fields := [name for name, part in parts if isinstance(part, str)]:
            raise HTTPException(400, f"the part {fields[0][:50]!r} of the form is no file: give it a filename")
        if not parts:
            raise HTTPException(400, "there is no file in the form")
        return [Picture(part.filename or "picture", await part.read()) for _, part in parts]
    finally:
        await form.close()


def _row(prediction: Prediction, classes: Classes, asked: Asked) -> dict[str, Any]:
    """What is answered of a picture."""
    if prediction.picture.fault:
        return writing.said(prediction, classes)
    best = prediction._replace(labels=prediction.labels[: asked.topk],
                               probabilities=prediction.probabilities[: asked.topk])
    row = writing.said(best, classes)
    if asked.explained:
        png = io.BytesIO()
        explain.overlay(prediction.crop, prediction.heat).save(png, "PNG")
        row["explained"] = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return row


def _outcome(picture: Picture) -> str:
    if picture.fault:
        return "refused"
    return "mended" if picture.mended else "sound"


def _make_budget(most: int) -> Callable[[], contextlib.AbstractContextManager[Take]]:
    """What requests may hold together: in the context it gives, `take(count)` raises FullError beyond `most` bytes."""
    held = 0

    @contextlib.contextmanager
    def budget() -> Iterator[Take]:
        nonlocal held
        mine = 0

        def take(count: int) -> None:
            nonlocal held, mine
            if held + count > most:
                raise batching.FullError
            held, mine = held + count, mine + count

        try:
            yield take
        finally:
            held -= mine

    return budget


@contextlib.asynccontextmanager
async def _within(seconds: float, late: HTTPException) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise late from None


def _make_meters(batch: int) -> Meters:
    registry = CollectorRegistry()
    sizes = [1 << i for i in range(batch.bit_length() + 1)]
    return Meters(
        registry,
        Counter("imagenet_jax_requests", "Requests by path and status.", ["path", "status"], registry=registry),
        Counter("imagenet_jax_images", "Images answered: sound, mended or refused.", ["outcome"], registry=registry),
        Histogram("imagenet_jax_batch_size", "Images of a batch on the devices.", buckets=sizes, registry=registry),
        Histogram("imagenet_jax_request_seconds", "From the head of a request to its predictions.", registry=registry))


def _counted(requests: Counter, app: ASGIApp) -> ASGIApp:
    """The application, its answers counted."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        path = similar.PATH if path.startswith(similar.PATH) else path if path in _PATHS else "other"

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                requests.labels(path, message["status"]).inc()
            await send(message)

        await app(scope, receive, told)

    return counted


def _page() -> tuple[str, str]:
    """The page, and the policy under which nothing but its own style and script runs, and nobody else is asked."""
    page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    def digests(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
                        for text in found)

    return page, (f"default-src 'self'; script-src {digests('script')}; style-src {digests('style')}; "
                  "img-src 'self' data: blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")


async def _refused(request: Request, error: HTTPException) -> Response:
    known, detail = ", ".join(f"{method} {path}" for path, method in _PATHS.items()), error.detail
    if error.status_code in (404, 405):
        detail = f"there is no {request.method} {request.url.path[:50]} here; there is {known}"
    return JSONResponse({"error": detail}, error.status_code, error.headers)


async def _full(request: Request, error: batching.FullError) -> Response:
    return JSONResponse({"error": "more pictures wait than there is place for; try again later"}, 429, _SOON)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # which nobody reads


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its operator finds the reason on its stderr"}, 500)
