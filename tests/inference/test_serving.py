"""A server answers as `predict` does, refuses what is no picture in words, and loses nothing when it stops."""

import base64
import concurrent.futures
import contextlib
import hashlib
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image
from served import JPEG
from small_net import SmallNet

from imagenet_jax.inference import batching, images, predict, serving, writing
from imagenet_jax.training import evaluating


def form(files, boundary="xyz"):
    """The body of a form with (name, bytes) as its files, and its headers."""
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode() + data
             for name, data in files]
    return b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()]), {
        "Content-Type": f"multipart/form-data; boundary={boundary}"}


def huge_png(side):
    """A PNG whose header promises side x side px."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


@pytest.mark.parametrize("batch", [1, 8])
def test_answers_are_those_of_predict_whatever_the_batch(serve, weigh, photos, batch):
    trained = evaluating.open_trained(weigh())
    found, _ = images.pointed_at([str(photos)])
    expected = [writing.said(each, trained.classes) for each in predict.predict(trained, found)]
    served = serve(batching.Limits(batch=batch))
    files = [(row["file"], Path(row["file"]).read_bytes()) for row in expected]

    def ask(files):
        body, headers = form(files)
        return served.predict(body, "?topk=4", headers)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda file: ask([file]), files))
    status, together = ask(files)
    assert status == 200 and len(expected) == 18
    for row, (code, one), among in zip(expected, alone, together["predictions"], strict=True):
        assert code == (400 if "error" in row else 200)
        for ours in (one["predictions"][0], among):
            assert ours.keys() == row.keys() and ours["file"] == row["file"]
            assert (ours.get("error"), ours.get("mended")) == (row.get("error"), row.get("mended"))
            for got, wanted in zip(ours.get("top", ()), row.get("top", ()), strict=True):
                assert (got["label"], got["id"], got["name"]) == (wanted["label"], wanted["id"], wanted["name"])
                assert got["probability"] == pytest.approx(wanted["probability"], abs=1e-5)
    metrics = served.ask("GET", "/metrics")[2].decode()
    assert 'imagenet_jax_images_total{outcome="sound"} 20.0' in metrics
    assert 'imagenet_jax_requests_total{path="/predict",status="400"} 4.0' in metrics
    assert "imagenet_jax_queue_length 0.0" in metrics and "imagenet_jax_batch_size_bucket" in metrics
    assert "imagenet_jax_batch_size_sum 28.0" in metrics


def test_a_picture_alone_its_best_classes_and_where_the_network_looked(serve, photos, monkeypatch):
    monkeypatch.setattr(SmallNet, "pool", lambda self, x: self.feature(32, x).mean((1, 2)))
    status, said = serve().predict((photos / "photo.webp").read_bytes(), "?topk=2&explain=1", {})
    (row,) = said["predictions"]
    assert status == 200 and len(row["top"]) == 2 and "WEBP" in row["mended"]
    kind, _, data = row["explained"].partition(",")
    assert kind == "data:image/png;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (32, 32)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_refused_in_words(serve, photos):
    served = serve(rules=serving.Rules(max_bytes=100_000, timeout_s=20))
    sound, cut = (photos / "deeper" / "0.jpg").read_bytes(), (photos / "cut.jpg").read_bytes()
    body, headers = form([("a.jpg", sound), ("b.jpg", sound)])
    for code, word, method, path, sent, told in [
            (400, "not an image", "POST", "/predict", b"not an image", JPEG),
            (400, "an empty file", "POST", "/predict", b"", JPEG),
            (400, "truncated", "POST", "/predict", cut, JPEG),
            (400, "1600000000 pixels", "POST", "/predict", huge_png(40_000), {"Content-Type": "image/png"}),
            (415, "application/json is no picture", "POST", "/predict", b"{}", {"Content-Type": "application/json"}),
            (413, "more than 0.1 MB", "POST", "/predict", bytes(100_001), JPEG),
            (413, "more than 0.1 MB", "POST", "/predict", iter([bytes(60_000)] * 2), JPEG),
            (400, "cut short", "POST", "/predict", body[:-30], headers),
            (400, "cut short", "POST", "/predict", body, {"Content-Type": "multipart/form-data"}),
            (400, "cannot be read", "POST", "/predict", b"nothing--xyz--", headers),
            (400, "no file in the form", "POST", "/predict", b"--xyz--\r\n", headers),
            (400, "is no file", "POST", "/predict", body.replace(b'; filename="a.jpg"', b""), headers),
            (400, "topk=0", "POST", "/predict?topk=0", sound, JPEG),
            (400, "topk=-1", "POST", "/predict?topk=-1", sound, JPEG),
            (400, "explain=yes", "POST", "/predict?explain=yes", sound, JPEG),
            (400, "SmallNet keeps none of its maps", "POST", "/predict?explain=1", sound, JPEG),
            (400, "10000 x 10000 px", "POST", "/predict", huge_png(10_000), {}),
            (404, "there is no GET /nothing", "GET", "/nothing", None, {}),
            (405, "there is no GET /predict", "GET", "/predict", None, {})]:
        status, _, answer = served.ask(method, path, sent, told)
        assert (status, word in json.loads(answer)["error"]) == (code, True), (word, answer)
    assert served.predict(sound)[0] == 200


def test_the_page_asks_nobody_else_and_runs_nothing_but_its_own(serve):
    status, headers, page = serve().ask("GET", "/")
    page, policy = page.decode(), headers["Content-Security-Policy"]
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert policy.startswith("default-src 'self'; script-src 'sha256-") and "unsafe" not in policy
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert not re.search(r"https?://|//\w|@import|<link(?! rel=\"icon\" href=\"data:,\")|style=\"| on\w+=\"", page)


def test_a_body_that_does_not_come_is_not_waited_for(serve):
    served = serve(rules=serving.Rules(timeout_s=0.3))
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nslow")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not come within 0.3 s" in answer


@pytest.fixture
def stalled(monkeypatch):
    """An event for which the devices wait once `arm` is set."""
    arm, go, real = threading.Event(), threading.Event(), batching.Batcher._predictions

    def predictions(self, batch):
        if arm.is_set():
            assert go.wait(60)
        return real(self, batch)

    monkeypatch.setattr(batching.Batcher, "_predictions", predictions)
    arm.set()
    yield go
    go.set()


def waiting(served, count):
    while f"imagenet_jax_queue_length {count:.1f}" not in served.ask("GET", "/metrics")[2].decode():
        time.sleep(0.01)


def test_a_full_queue_is_told_and_a_stop_answers_all_that_was_accepted(serve, photos, stalled):
    served, sound = serve(batching.Limits(batch=2, queue=6)), (photos / "deeper" / "0.jpg").read_bytes()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        accepted = [pool.submit(served.ask, "POST", "/predict", sound, JPEG) for _ in range(6)]
        waiting(served, 6)
        status, headers, answer = served.ask("POST", "/predict", sound, JPEG)
        assert status == 429 and headers["Retry-After"] == "1" and b"try again later" in answer
        assert served.ask("GET", "/healthz")[0] == 200
        served.server.should_exit = True
        time.sleep(0.3)
        assert served.thread.is_alive() and not any(each.done() for each in accepted)
        stalled.set()
        assert [(each.result()[0], each.result()[1]["Connection"]) for each in accepted] == [(200, "close")] * 6
    served.thread.join(30)
    assert not served.thread.is_alive()


def test_who_waits_too_long_is_told_and_leaves_his_place(serve, photos, stalled):
    served = serve(batching.Limits(batch=1, queue=4), serving.Rules(timeout_s=0.3))
    sound = (photos / "deeper" / "0.jpg").read_bytes()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {each[0] for each in pool.map(served.predict, [sound] * 4)} == {503}
    waiting(served, 0)
    stalled.set()
    assert served.predict(sound)[0] == 200


def test_bodies_hold_a_bounded_number_of_bytes(monkeypatch, serve):
    monkeypatch.setattr(serving, "_BODIES", 1)
    served = serve(rules=serving.Rules(max_bytes=1000))
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + bytes(800))
        while served.predict(bytes(300))[0] != 429:
            time.sleep(0.01)
    while served.predict(bytes(300))[0] != 400:  # they are given back
        time.sleep(0.01)


def test_a_network_that_fails_is_no_fault_of_the_pictures(serve, photos, monkeypatch):
    served = serve()
    monkeypatch.setattr(batching.Batcher, "_predictions", lambda self, batch: 1 / 0)
    status, said = served.predict((photos / "deeper" / "0.jpg").read_bytes())
    assert status == 500 and "ZeroDivision" not in str(said)
    assert 'path="/predict",status="500"} 1.0' in served.ask("GET", "/metrics")[2].decode()


def test_sizes_of_batches():
    assert batching.batch_sizes(32, 1) == [1, 2, 4, 8, 16, 32] and batching.batch_sizes(24, 1) == [1, 2, 4, 8, 16, 24]
    assert batching.batch_sizes(32, 8) == [8, 16, 32] and batching.batch_sizes(1, 4) == [4]


def test_sigterm_is_a_good_end():
    """What serves is told to stop in the middle of an answer, gives it, and exits with 0."""
    code = """
import asyncio
from imagenet_jax.inference import listening
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    print("asked", flush=True)
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})
bound = listening.bind("127.0.0.1", 0)
print(listening.url(bound), flush=True)
listening.listen(app, bound)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline().rpartition(":")[2])
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=30)
                break
        with connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert process.stdout.readline() == "asked\n"
            process.send_signal(signal.SIGTERM)
            assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"answer")
        assert process.wait(30) == 0
