"""A picture that cannot be read or decoded after all: what training shows, the same everywhere, and what it says."""

import collections
import contextlib
import functools
import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from augmenting import augment
from PIL import Image

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import damage, loader, processes
from imagenet_jax.input.chunks import Workers
from imagenet_jax.input.loader import Host, Part
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

N = 12


def noise(seed: int) -> bytes:
    encoded, pixels = io.BytesIO(), np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(encoded, "JPEG")
    return encoded.getvalue()


IMAGES = [noise(i) for i in range(N)]
BROKEN = {1: b"no image", 6: IMAGES[6][: len(IMAGES[6]) // 2], 8: b""}
LOST = (3, 4, 10)  # of which 3 is followed by one that is lost, too, and 10 by one that is not in the pool

SMOOTH = augment(antialias=True)


def written(directory: Path, images: list[bytes]) -> Part:
    examples = [Example(image, i % 3, f"{i}.JPEG") for i, image in enumerate(images)]
    writer.write_dataset(directory, Source("tiny", ("a", "b", "c"), ("ant", "bee", "cat"), {"train": examples}))
    return Part(dataset.open_split(dataset.open_dataset(directory), "train"), np.arange(N - 1), (directory, "train"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Part:
    return written(tmp_path_factory.mktemp("data") / "sound", IMAGES)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Some examples have never been pictures, or not to their end; of others the disk has lost a bit."""
    directory = tmp_path_factory.mktemp("data") / "bad"
    part = written(directory, [BROKEN.get(i, image) for i, image in enumerate(IMAGES)])
    (shard,) = directory.glob("*array_record*")
    content = bytearray(shard.read_bytes())
    for i in LOST:
        content[content.index(IMAGES[i]) + 50] ^= 1
    shard.write_bytes(content)
    return part


def epochs(part: Part, host: Host = loader.ONE_HOST, make=loader.train_batches, augment=SMOOTH, count: int = 4,
           **options) -> dict[str, np.ndarray]:
    """Two epochs a batch, of which a host sees its share."""
    with contextlib.closing(make(part, seed=1, start_step=0, global_batch=2 * len(part.pool), augment=augment,
                                 host_slice=host, **options)) as batches:
        made = list(itertools.islice(batches, count))
    return {key: np.stack([batch[key] for batch in made]) for key in made[0]}


@pytest.mark.parametrize("changed", [{"antialias": True}, {"antialias": False, "policy": "trivialaugment"}])
def test_training_goes_on_and_says_what_it_shows(part, changed) -> None:
    seen = epochs(part, augment=augment(**changed))
    for index, faults in zip(seen["index"], seen["fault"], strict=True):
        said = collections.Counter(fault.decode() for fault in faults if fault)
        parsed = {re.match(r"(example \d+|\d\.JPEG) .*?([\w ]+) is shown in its place$", text).groups(): count
                  for text, count in said.items()}
        assert parsed == dict.fromkeys([("example 3", " Example 5"), ("example 4", " Example 5"),
                                        ("example 10", " Example 0"), ("1.JPEG", " Grey"),
                                        ("6.JPEG", " What can be of it"), ("8.JPEG", " Grey")], 2)
        assert collections.Counter(index.tolist()) == dict.fromkeys((1, 2, 6, 7, 8, 9), 2) | {0: 4, 5: 6}
    assert (seen["label"] == seen["index"] % 3).all()


def test_what_can_be_decoded_is_shown(part, sound) -> None:
    """Of a cut picture its beginning, and grey for the rest; and all others as ever."""
    whole = augment(antialias=True, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
    seen, wanted = epochs(part, augment=whole), epochs(sound, augment=whole)
    good, cut, nothing = seen["fault"] == b"", seen["index"] == 6, np.isin(seen["index"], [1, 8])
    assert np.array_equal(seen["image"][good], wanted["image"][good])
    off = abs(seen["image"][cut].astype(int) - wanted["image"][cut]).mean((0, 2, 3))  # by row
    assert off[0] < 1 and (off[-2:] > 3).all() and np.ptp(seen["image"][cut][:, -2:]) < 2
    assert (seen["image"][nothing] == 128).all()


@pytest.mark.parametrize("how", ["hosts", "threads", "processes"])
def test_it_is_the_same_everywhere(part, how) -> None:
    want = epochs(part)
    if how == "hosts":
        found = [epochs(part, Host(i, 2)) for i in range(2)]
        found = {key: np.concatenate([of_host[key] for of_host in found], axis=1) for key in want}
    elif how == "threads":
        found = epochs(part, workers=Workers(threads=1))
    else:
        found = epochs(part, make=functools.partial(processes.train_batches, processes=2))
    for key, values in want.items():
        assert np.array_equal(values, found[key]), key


def test_a_lost_shard_ends_it(part, monkeypatch) -> None:
    monkeypatch.setattr(damage, "TRIES", 2)  # as many as are lost in a row
    with pytest.raises(UserError, match="damaged.*Copy the dataset again"):
        epochs(part)


def test_evaluation_stops(part) -> None:
    view = {"size": 8, "resize": 9, "interpolation": "bilinear", "antialias": True}
    with pytest.raises(UserError, match="damaged"):
        list(loader.eval_batches(part._replace(pool=np.array([0, 3])), batch=2, view=view))
    with pytest.raises(UserError, match="could not be decoded: 6.JPEG"):
        list(loader.eval_batches(part._replace(pool=np.array([0, 6])), batch=2, view=view))


def test_a_lost_file_is_not_asked_again_for_every_example() -> None:
    class Lost:
        asked = 0

        def read(self, indices):
            self.asked += 1
            raise UserError("it does not hold 9 whole records")

    lost = Lost()
    with pytest.raises(UserError, match="whole records"):
        damage.read(lost, np.arange(3), lambda index: index + 1)
    assert lost.asked == 1
