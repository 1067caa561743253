"""Batches: the same on any number of hosts and after any restart, and in evaluation every example once."""

import itertools
import threading
from collections import Counter
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from augmenting import augment

from imagenet_jax import dataset
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader, order, pixels
from imagenet_jax.input.loader import Host, Part
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

N = 23
AUGMENT = augment(antialias=True)
VIEW = {"size": 8, "resize": 9, "interpolation": "bilinear", "antialias": True}


def written(directory: Path, images: list[bytes]) -> dataset.Records:
    examples = [Example(image, i % 3, f"{i}.JPEG") for i, image in enumerate(images)]
    writer.write_dataset(directory, Source("tiny", ("a", "b", "c"), ("ant", "bee", "cat"), {"train": examples}))
    return dataset.open_split(dataset.open_dataset(directory), "train")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dataset.Records:
    return written(tmp_path_factory.mktemp("data") / "tiny", [ilsvrc.jpeg(i) for i in range(N)])


@pytest.fixture(scope="module")
def part(records: dataset.Records) -> Part:
    return Part(records, np.arange(N))


def train(part: Part, steps: int, *, seed: int = 0, start_step: int = 0, global_batch: int = 8, **more) -> list:
    batches = loader.train_batches(part, seed=seed, start_step=start_step, global_batch=global_batch, augment=AUGMENT,
                                   **more)
    return list(itertools.islice(batches, steps))


@pytest.fixture(scope="module")
def five(part: Part) -> list[loader.Batch]:
    """Five steps of 8 out of 23: over the ends of epochs."""
    return train(part, 5)


def joined(batches: list[loader.Batch]) -> loader.Batch:
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def assert_same(a: loader.Batch, b: loader.Batch) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and np.array_equal(a[key], b[key]), key


def test_a_batch_is_what_the_design_says(part) -> None:
    (batch,) = train(part, 1, start_step=4)
    shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert shapes == {"image": ((8, 8, 8, 3), "uint8"), "label": ((8,), "int32"), "index": ((8,), "int64"),
                      "mask": ((8,), "float32"), "file_name": ((8,), "object"), "fault": ((8,), "object")}
    assert np.array_equal(batch["index"], order.stream(0, N, np.arange(32, 40)))
    assert batch["file_name"].tolist() == [f"{i}.JPEG".encode() for i in batch["index"]]
    assert np.array_equal(batch["label"], batch["index"] % 3)
    assert batch["mask"].all()


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_the_global_batches_do_not_depend_on_the_hosts(part, five, hosts) -> None:
    together = [train(part, 5, host_slice=Host(host, hosts)) for host in range(hosts)]
    for step, batch in enumerate(five):
        assert_same(joined([batches[step] for batches in together]), batch)


@pytest.mark.parametrize("start", [1, 3, 4])
def test_a_restart_gives_the_same_bytes(part, five, start) -> None:
    for a, b in zip(five[start:], train(part, 5 - start, start_step=start), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4])
def test_where_the_size_changes_batches_are_those_of_that_size(part, start) -> None:
    section = augment(ramp=((2, 12), (3, 10)), policy="trivialaugment", repeats=2)
    asked = {"seed": 3, "global_batch": 8, "start_step": start}
    for step, batch in zip(range(start, 5), loader.train_batches(part, augment=section, **asked), strict=False):
        plain = loader.train_batches(part, augment=section | {"ramp": (), "size": (8, 8, 12, 10, 10)[step]},
                                     **asked | {"start_step": step})
        assert_same(batch, next(plain))


def test_threads_change_nothing(part, five) -> None:
    for a, b in zip(five, train(part, 5, workers=loader.Workers(threads=3)), strict=True):
        assert_same(a, b)


def test_seeds_and_epochs_have_crops_and_orders_of_their_own(part) -> None:
    seeds = [train(part, 1, seed=seed, global_batch=N)[0] for seed in (0, 1)]
    epochs = train(part, 2, global_batch=N)
    for a, b in (seeds, epochs):
        assert not np.array_equal(a["index"], b["index"])
        a, b = (batch["image"][np.argsort(batch["index"])] for batch in (a, b))
        assert not any(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_only_the_pool_is_read(records) -> None:
    pool = np.array([2, 3, 5, 7, 11])
    batch = joined(train(Part(records, pool), 5))
    assert Counter(batch["index"].tolist()) == dict.fromkeys(pool.tolist(), 8)


class Counting:
    """Records that count how many are read."""

    def __init__(self, records: dataset.Records) -> None:
        self.records, self.count = records, 0

    def read(self, indices: np.ndarray) -> list[bytes]:
        self.count += len(indices)
        return self.records.read(indices)


def test_a_late_step_starts_at_once(records) -> None:
    """Nothing is read on the way to step 1,000,000, and afterwards no more than is prefetched."""
    counting = Counting(records)
    (batch,) = train(Part(counting, np.arange(N)), 1, start_step=10**6)
    assert np.array_equal(batch["index"], order.stream(0, N, np.arange(8 * 10**6, 8 * 10**6 + 8)))
    assert counting.count < 1000 * 8  # by many threads, of chunks that are made at a time


def test_hosts_that_cannot_share_the_batch_are_told(part) -> None:
    with pytest.raises(UserError, match="global_batch=8 cannot be shared by 3 hosts"):
        train(part, 1, host_slice=Host(0, 3))


@pytest.fixture(scope="module")
def reference(part) -> loader.Batch:
    """All examples in one batch."""
    (batch,) = loader.eval_batches(part, batch=N, view=VIEW)
    return batch


@pytest.mark.parametrize(("hosts", "devices", "sizes"), [(1, 1, [*range(1, N + 1), 64]), (3, 1, [1, 4, 7, 30]),
                                                         (1, 8, [1, 10, 64]), (3, 2, [7, 23])])
def test_every_example_is_seen_once(part, reference, hosts, devices, sizes) -> None:
    for size in sizes:
        of_hosts = [list(loader.eval_batches(part, batch=size, view=VIEW, host_slice=Host(host, hosts),
                                             local_devices=devices)) for host in range(hosts)]
        assert len({len(batches) for batches in of_hosts}) == 1  # or a collective would wait for ever
        shares = {len(batch["index"]) for batches in of_hosts for batch in batches}
        assert len(shares) == 1 and shares.pop() % devices == 0
        seen = joined([batch for batches in of_hosts for batch in batches])
        assert set(seen["mask"]) <= {0.0, 1.0}
        real = {key: value[seen["mask"] == 1] for key, value in seen.items()}
        ordered = np.argsort(real["index"])
        assert_same({key: value[ordered] for key, value in real.items()}, reference)


def test_pil_s_pixels_come_through_the_pipeline(records, part, reference) -> None:
    (batch,) = loader.eval_batches(part, batch=N, view=VIEW | {"library": "pil"})
    assert_same({key: batch[key] for key in batch if key != "image"},
                {key: reference[key] for key in batch if key != "image"})
    assert np.array_equal(batch["image"][3], pixels.pil_crops(ilsvrc.jpeg(3), 8, (9,), "bilinear")[0])


def test_evaluation_reads_its_part_in_order(records, reference) -> None:
    pool = np.array([20, 3, 9])
    (batch,) = loader.eval_batches(Part(records, pool), batch=5, view=VIEW)
    assert batch["index"].tolist() == [20, 3, 9, 9, 9] and batch["mask"].tolist() == [1, 1, 1, 0, 0]
    assert np.array_equal(batch["image"], reference["image"][batch["index"]])


BAD = {"text": b"no image", "empty": b"", "cut short": ilsvrc.jpeg(0)[:300]}


@pytest.mark.parametrize("kind", BAD)
def test_an_undecodable_image_ends_an_evaluation_and_is_named(tmp_path, kind) -> None:
    images = [ilsvrc.jpeg(i) for i in range(5)]
    bad = Part(written(tmp_path / "bad", [*images, BAD[kind], *images]), np.arange(11))
    message = r"could not be decoded: 5\.JPEG \(.*\)\. Prepare the dataset again with --verify=decode"
    for library in ("tf", "pil"):
        seen = []
        with pytest.raises(UserError, match=message):
            seen.extend(batch["index"] for batch in loader.eval_batches(bad, batch=2, view=VIEW | {"library": library}))
        assert np.concatenate(seen).tolist() == [0, 1, 2, 3]  # what came before it is not lost


def test_a_damaged_shard_is_told_as_such(tmp_path) -> None:
    records = written(tmp_path / "bad", [ilsvrc.jpeg(i) for i in range(5)])
    (shard,) = (tmp_path / "bad").glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[300:4000] = bytes(3700)
    shard.write_bytes(content)
    with pytest.raises(UserError, match="damaged.*Copy the dataset again"):
        list(loader.eval_batches(Part(records, np.arange(5)), batch=2, view=VIEW))


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_prefetch_keeps_order_and_runs_ahead_by_its_depth(depth) -> None:
    put, semaphore = [], threading.Semaphore(0)

    def place(batch):
        put.append(batch)
        semaphore.release()
        return batch * 10

    batches = loader.prefetch((i for i in range(4)), place, depth)
    while len(put) < min(4, depth):  # before any is asked for
        assert semaphore.acquire(timeout=10)
    for taken, batch in enumerate(batches, 1):
        assert batch == (taken - 1) * 10
        while len(put) < min(4, taken + depth):
            assert semaphore.acquire(timeout=10)
        assert len(put) == min(4, taken + depth)
    assert put == [0, 1, 2, 3]


def test_a_stall_is_not_felt_while_batches_are_ahead_and_an_error_comes_in_its_turn() -> None:
    go_on, closed = threading.Event(), []

    def source():
        try:
            yield from range(3)
            assert go_on.wait(10)
            yield 3
            raise UserError("a damaged shard")
        finally:
            closed.append(True)

    batches = loader.prefetch(source(), lambda batch: batch, 2)
    assert [next(batches) for _ in range(3)] == [0, 1, 2] and not go_on.is_set()
    go_on.set()
    assert next(batches) == 3 and not closed[1:]
    with pytest.raises(UserError, match="a damaged shard"):
        next(batches)
    endless = loader.prefetch((i for i in itertools.count()), lambda batch: batch, 2)
    assert next(endless) == 0
    endless.close()
    assert closed == [True]
    loader.prefetch(source(), lambda batch: batch, 2).close()  # none was asked for
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("put")]
