"""Chunks: the bits of one example after the other whatever the threads and the cuts, and a slow store is hidden."""

import itertools
import threading
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from augmenting import augment

from imagenet_jax import dataset
from imagenet_jax.input import chunks, crops, loader, order, pixels
from imagenet_jax.input.loader import Host, Part
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

N = 23
DRAWN = {"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3), "flip": True}
RESIZED = {"size": 8, "interpolation": "bilinear", "antialias": True}
PLAIN = RESIZED | {"antialias": False}  # by OpenCV
VIEW = {"size": 8, "interpolation": "bilinear", "antialias": True}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dataset.Records:
    directory: Path = tmp_path_factory.mktemp("data") / "tiny"
    examples = [Example(ilsvrc.jpeg(i), i % 3, f"{i}.JPEG") for i in range(N)]
    writer.write_dataset(directory, Source("tiny", ("a", "b", "c"), ("ant", "bee", "cat"), {"train": examples}))
    return dataset.open_split(dataset.open_dataset(directory), "train")


def encoded(records: dataset.Records, index: int) -> bytes:
    """By protobuf's own parser."""
    (record,) = records.read([index])
    return dataset.features(record)["image"].bytes_list.value[0]


@pytest.fixture(scope="module", params=[RESIZED, PLAIN], ids=["tensorflow", "opencv"])
def resized(request) -> dict:
    return request.param


@pytest.fixture(scope="module")
def one_by_one(records, resized) -> dict[int, np.ndarray]:
    """The image of each of the first 40 positions with seed 5, made alone."""
    made = {}
    for position in range(40):
        (index,) = order.stream(5, N, np.array([position]))
        image = encoded(records, index)
        (crop,) = crops.random_resized(order.draws(5, position, 1, crops.DRAWS), np.array([pixels.image_size(image)]),
                                       **DRAWN)
        if resized["antialias"]:
            made[position] = pixels.train_example(pixels.tf.constant(image), crop, **resized).numpy()
        else:
            window = pixels.train_window(pixels.tf.constant(image), crop, **resized).numpy()
            made[position] = np.empty((8, 8, 3), np.uint8)
            pixels.place_window(window, crop, made[position])
    return made


@pytest.mark.parametrize(("threads", "size"), [(1, 1), (1, 16), (2, 3), (3, 8), (5, 7), (8, 2)])
@pytest.mark.parametrize("host", [Host(0, 1), Host(1, 2)])
def test_threads_and_chunks_change_no_bit(records, one_by_one, resized, monkeypatch, threads, size, host) -> None:
    monkeypatch.setattr(chunks, "CHUNKS", (size, size))
    batches = loader.train_batches(Part(records, np.arange(N)), seed=5, start_step=1, global_batch=10, host_slice=host,
                                   augment=augment(**resized), workers=loader.Workers(threads=threads))
    for step, batch in zip((1, 2, 3), batches, strict=False):
        positions = order.host_positions(step, 10, *host)
        index = order.stream(5, N, positions)
        assert np.array_equal(batch["image"], [one_by_one[position] for position in positions])
        assert np.array_equal(batch["index"], index) and np.array_equal(batch["label"], index % 3)
        assert batch["file_name"].tolist() == [f"{i}.JPEG".encode() for i in index]
    batches.close()


@pytest.mark.parametrize(("threads", "size"), [(1, 1), (2, 3), (5, 16)])
@pytest.mark.parametrize("library", ["tf", "pil"])
def test_nor_do_they_in_evaluation(records, monkeypatch, threads, size, library) -> None:
    monkeypatch.setattr(chunks, "CHUNKS", (size, size))
    batches = loader.eval_batches(Part(records, np.arange(N)), batch=10, view=VIEW | {"resize": 9, "library": library},
                                  workers=loader.Workers(threads=threads))
    images = np.concatenate([batch["image"] for batch in batches])[:N]
    for index in range(N):
        image = pixels.tf.constant(encoded(records, index))
        assert np.array_equal(images[index], pixels.eval_example(image, resize_to=9, library=library, **VIEW))


@pytest.mark.parametrize("library", ["tf", "pil"])
def test_crops_have_an_axis_of_their_own(records, library) -> None:
    several = {"library": library, "crops": 5, "scales": (9, 11)}
    batch = next(loader.eval_batches(Part(records, np.arange(N)), batch=7, view=VIEW | {"resize": 9} | several))
    assert batch["image"].shape == (7, 10, 8, 8, 3) and batch["label"].shape == (7,)
    wanted = pixels.eval_example(pixels.tf.constant(encoded(records, 3)), resize_to=9, **several, **VIEW)
    assert np.array_equal(batch["image"][3], wanted)


class Slow:
    """Records that are not handed out before `chunks.READS` reads are waiting at the same time."""

    def __init__(self, records: dataset.Records) -> None:
        self.records, self.enough = records, threading.Event()
        self.count, self.lock = 0, threading.Lock()

    def read(self, indices: np.ndarray) -> list[bytes]:
        with self.lock:
            self.count += 1
            if self.count == chunks.READS:
                self.enough.set()
        assert self.enough.wait(60)
        return self.records.read(indices)


@pytest.mark.parametrize("batch", [4, 64, 300])
def test_many_reads_are_in_flight_while_a_slow_store_is_waited_for(records, batch) -> None:
    slow = Slow(records)
    batches = loader.train_batches(Part(slow, np.arange(N)), seed=0, start_step=0, global_batch=batch,
                                   augment=augment(**RESIZED), workers=loader.Workers(threads=1))
    assert len(next(batches)["label"]) == batch
    batches.close()


@pytest.mark.parametrize(("shape", "size"), [((8, 8, 3), 64), ((64, 64, 3), 64), ((224, 224, 3), 32),
                                             ((5, 224, 224, 3), 16), ((9999, 9999, 3), 16)])
def test_small_images_come_in_large_chunks(shape, size) -> None:
    assert chunks.chunk_size(shape) == size


def test_memory_for_images_on_their_way_is_kept_to(records) -> None:
    started = []

    def plan(step: int) -> chunks.Plan:
        started.append(step)
        return chunks.Plan(np.zeros(4, np.int64))

    transform = loader.train_transform(augment(**RESIZED))._replace(
        draw=None, view=lambda encoded, crop, **_: np.zeros((8, 8, 3), np.uint8))
    for workers, most in ((chunks.Workers(ram_gb=3 * 4 * 8 * 8 * 3 / 1e9), 4), (chunks.Workers(ram_gb=1e-9), 2)):
        started.clear()
        batches = chunks.batches(records, itertools.count(), plan, transform, 4, workers)
        next(batches)
        batches.close()
        assert len(started) <= most


def test_a_closed_stream_leaves_no_threads(records) -> None:
    before = threading.active_count()
    batches = loader.train_batches(Part(records, np.arange(N)), seed=0, start_step=0, global_batch=8,
                                   augment=augment(**RESIZED))
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_augmented_batches_are_those_of_plain_ones_augmented(records) -> None:
    section = augment(policy="randaugment", magnitude=20.0, jitter=(0.4, 0.4, 0.4, 0.1), repeats=3)
    plain, augmented = (next(loader.train_batches(Part(records, np.arange(N)), seed=5, start_step=2, global_batch=9,
                                                  augment=each, host_slice=Host(), workers=loader.Workers(threads=3)))
                        for each in (section | {"policy": "", "jitter": (0.0,) * 4}, section))
    done = loader.augmentation(section)
    drawn = order.draws(5, 18, 9, done.draws, purpose=1)
    np.testing.assert_array_equal(augmented["image"], [done.apply(*each) for each in zip(plain["image"], drawn,
                                                                                         strict=True)])
    np.testing.assert_array_equal(augmented["index"], np.tile(order.stream(5, N, np.arange(6, 9)), 3))
    assert (augmented["image"] != plain["image"]).any(axis=(1, 2, 3)).mean() > 0.5
