"""A file of weights of a small network, servers of it, and pictures that `prepare` keeps, mends and refuses."""

import contextlib
import io

import jax
import numpy as np
import pytest
from PIL import Image
from served import Served
from small_data import draw
from small_net import SmallNet

from imagenet_jax import models
from imagenet_jax.inference import batching, serving
from imagenet_jax.models import weights
from imagenet_jax.training import evaluating

CLASSES = '[["n0", "n1", "n2", "n3"], ["one, first", "two", "", "four"]]'


@pytest.fixture
def network(monkeypatch):
    """The name of a network whose files are known, judged on crops of 32 px."""
    monkeypatch.setitem(models.REGISTRY, "small", models.Spec(
        SmallNet, names={"timm": [(r"^head", "fc")]}, size=32, resize=36))
    return "small"


@pytest.fixture
def weigh(network, tmp_path):
    """Writes weights drawn for the network, with notes of a view; returns the file."""
    variables = jax.jit(SmallNet(num_classes=4).init)(jax.random.key(0), np.zeros((1, 32, 32, 3)))
    arrays = weights.to_torch(network, jax.device_get(variables["params"]), jax.device_get(variables["batch_stats"]))

    def write(view='{"size": 32, "resize": 36, "library": "tf"}'):
        path = str(tmp_path / "drawn.safetensors")
        weights.write(path, arrays, model=network, classes=CLASSES, view=view)
        return path

    return write


@pytest.fixture
def serve(weigh):
    """Starts servers of the small network."""
    with contextlib.ExitStack() as stack:
        def start(limits=batching.USUAL, rules=None, index=None):
            served = Served(serving.make_app(evaluating.open_trained(weigh()), limits, rules, index))
            stack.callback(served.stop)
            return served
        yield start


@pytest.fixture
def photos(tmp_path):
    """A folder of drawn pictures: sound, odd and broken ones, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    sound = [example.image for example in draw(9, 4, 5)]
    picture = Image.open(io.BytesIO(sound[0]))
    for i, encoded in enumerate(sound):
        (folder / "deeper" / f"{i}.jpg").write_bytes(encoded)
    grey = np.asarray(picture.convert("L"))
    for name, image in {"cmyk.jpg": picture.convert("CMYK"), "palette.gif": picture.convert("P"),
                        "deep.png": Image.fromarray(grey.astype(np.uint16) << 8), "photo.webp": picture,
                        "no_ending": picture}.items():
        image.save(folder / name, "PNG" if name == "no_ending" else None)
    (folder / "cut.jpg").write_bytes(sound[1][:-100])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not an image")
    damaged = bytearray((folder / "no_ending").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (folder / "damaged.png").write_bytes(damaged)
    (folder / "notes.txt").write_text("left out")
    return folder
