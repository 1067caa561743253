"""Two datasets in a stated ratio: all of both, each in its own epochs, the same for every host, thread and restart."""

import functools
import itertools
from collections import Counter
from pathlib import Path

import ilsvrc
import numpy as np
import pytest
from augmenting import augment

from imagenet_jax import config as config_lib
from imagenet_jax import dataset, models
from imagenet_jax.errors import UserError
from imagenet_jax.input import loader, order, parts, processes
from imagenet_jax.input.loader import Host
from imagenet_jax.input.parts import Added, Part
from imagenet_jax.prepare import writer
from imagenet_jax.prepare.writer import Example, Source

FIRST, SECOND, COUNT = 23, 7, 3  # examples of each, and of the second in a batch of 12
LABELS = np.array([2, 0], np.int32)
SECTION = augment(policy="randaugment")


def written(directory: Path, count: int, classes: tuple[str, ...], hue: int) -> Part:
    examples = [Example(ilsvrc.jpeg(hue + i), i % len(classes), f"{directory.name}_{i}.JPEG") for i in range(count)]
    writer.write_dataset(directory, Source("tiny", classes, classes, {"train": examples}))
    return Part(dataset.open_split(dataset.open_dataset(directory), "train"), np.arange(count), (directory, "train"))


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    folder = tmp_path_factory.mktemp("data")
    second = written(folder / "second", SECOND, ("c", "a"), 100)._replace(labels=LABELS)
    first = written(folder / "first", FIRST, ("a", "b", "c"), 0)
    return first._replace(pool=np.arange(FIRST)[1:], added=Added(second, COUNT))


def train(part: Part, steps: int, start_step: int = 0, make=loader.train_batches, **more) -> list[loader.Batch]:
    batches = make(part, seed=4, start_step=start_step, global_batch=12, augment=SECTION, **more)
    try:
        return list(itertools.islice(batches, steps))
    finally:
        batches.close()


@pytest.fixture(scope="module")
def six(part: Part) -> list[loader.Batch]:
    return train(part, 6)


def assert_same(a: loader.Batch, b: loader.Batch) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and np.array_equal(a[key], b[key]), key


@pytest.mark.parametrize(("global_batch", "count"), [(12, 3), (12, 1), (12, 11), (16, 5), (2, 1), (256, 64), (7, 3)])
def test_both_streams_are_read_in_order_and_their_share_is_exact_and_even(global_batch, count) -> None:
    steps = 5
    second, own = order.parted(np.arange(steps * global_batch), global_batch, count)
    for which, share in ((second, count), (~second, global_batch - count)):
        assert np.array_equal(own[which], np.arange(steps * share))
        assert (which.reshape(steps, -1).sum(axis=1) == share).all()
    for width in (2, 4, 8):  # whatever is cut out of a batch has its part of both, to one example
        seen = np.lib.stride_tricks.sliding_window_view(second[:global_batch], min(width, global_batch)).sum(axis=1)
        assert np.ptp(seen) <= 1
    assert np.array_equal(order.parted(np.arange(31, 40), global_batch, count)[1],
                          order.parted(np.arange(40), global_batch, count)[1][31:])


def test_every_example_of_both_is_seen_once_in_an_epoch_of_its_own(part) -> None:
    asked = {"seed": 1, "global_batch": 12, "repeats": 1}
    index = parts.shown(part, np.arange(12 * FIRST * SECOND), **asked)
    second = index >= FIRST
    for seen, pool in ((index[~second], part.pool), (index[second] - FIRST, np.arange(SECOND))):
        epochs = seen[: len(seen) // len(pool) * len(pool)].reshape(-1, len(pool))
        assert len(epochs) > 50 and np.array_equal(np.sort(epochs), np.tile(pool, (len(epochs), 1)))
        assert not np.array_equal(epochs[0], epochs[1])
    late = np.arange(12 * 10**6, 12 * 10**6 + 12)  # asked for at once, in any order
    assert np.array_equal(parts.shown(part, late[::-1], **asked)[::-1], parts.shown(part, late, **asked))


def test_repeats_are_those_of_each_dataset(part) -> None:
    batch = parts.shown(part, np.arange(12), seed=1, global_batch=12, repeats=3)
    assert sorted(Counter(batch[batch < FIRST]).values()) == [3, 3, 3] and len(set(batch[batch >= FIRST])) == 1


def test_orders_of_the_two_have_nothing_to_do_with_each_other(part) -> None:
    twin = part._replace(pool=np.arange(FIRST), added=Added(part._replace(pool=np.arange(FIRST), added=None), 6))
    index = parts.shown(twin, np.arange(12 * FIRST), seed=0, global_batch=12, repeats=1)
    second = index >= FIRST
    assert not np.array_equal(index[second] - FIRST, index[~second])


def test_without_a_second_dataset_the_order_is_what_it_was(part) -> None:
    alone = parts.shown(part._replace(added=None), np.arange(50), seed=3, global_batch=12, repeats=1)
    assert np.array_equal(alone, part.pool[order.stream(3, len(part.pool), np.arange(50))])


def test_an_epoch_is_one_of_the_first(part) -> None:
    examples = parts.epoch(part, 12)
    index = parts.shown(part, np.arange(examples), seed=0, global_batch=12, repeats=1)
    assert examples == 30 and set(index[index < FIRST]) == set(part.pool)
    assert parts.epoch(part._replace(added=None), 12) == len(part.pool)


def test_labels_names_and_pictures_are_those_of_the_example(part, six) -> None:
    for batch in six:
        second = batch["index"] >= FIRST
        assert second.sum() == COUNT
        own = np.where(second, batch["index"] - FIRST, batch["index"])
        names = [f"{'second' if which else 'first'}_{i}.JPEG".encode() for which, i in zip(second, own, strict=True)]
        assert batch["file_name"].tolist() == names
        assert np.array_equal(batch["label"], np.where(second, LABELS[own % 2], own % 3))
    (judged,) = loader.eval_batches(part.added.part, batch=SECOND, view={"size": 8, "resize": 9, "antialias": True,
                                                                         "interpolation": "bilinear"})
    assert judged["label"].tolist() == [2, 0, 2, 0, 2, 0, 2] and judged["index"].tolist() == list(range(SECOND))


@pytest.mark.parametrize("hosts", [2, 3, 12])
def test_hosts_change_no_bit(part, six, hosts) -> None:
    together = [train(part, 2, host_slice=Host(host, hosts)) for host in range(hosts)]
    for step in range(2):
        joined = {key: np.concatenate([batches[step][key] for batches in together]) for key in six[0]}
        assert_same(joined, six[step])


@pytest.mark.parametrize("more", [{"workers": loader.Workers(threads=3)}, {
    "make": functools.partial(processes.train_batches, processes=2)}], ids=["threads", "processes"])
def test_threads_processes_and_a_restart_change_no_bit(part, six, more) -> None:
    for a, b in zip(six[2:5], train(part, 3, start_step=2, **more), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(("keys", "message"), [
    ({"add_share": 0.3}, r"add_share=0.3 makes no sense: of global_batch=256 it is 76.8 examples.*from 1 to 255"),
    ({"add_share": 0.001}, "it is 0.256 examples"), ({"add_share": 1.0}, "above 0 and below 1"),
    ({"service": "localhost:1"}, "decodes one dataset and not two")])
def test_what_cannot_be_shared_is_told(keys, message) -> None:
    config = models.fill_view(config_lib.base())
    config.dataset.update({"add_dir": "somewhere"} | keys)
    with pytest.raises(UserError, match=message):
        config_lib.check(config)
