"""The index stream: every example once an epoch, the same on any number of hosts and after any restart."""

import numpy as np
import pytest

from imagenet_jax.input import order


def hosts_of(step: int, global_batch: int, hosts: int) -> list[np.ndarray]:
    return [order.host_positions(step, global_batch, host, hosts) for host in range(hosts)]


@pytest.mark.parametrize("n", [1, 2, 97, 1000])
def test_an_epoch_holds_every_index_once(n) -> None:
    drawn = order.stream(3, n, np.arange(5 * n)).reshape(5, n)
    assert np.array_equal(np.sort(drawn, axis=1), np.tile(np.arange(n), (5, 1)))


def test_epochs_seeds_and_sizes_have_orders_of_their_own() -> None:
    orders = {tuple(order.permutation(seed, epoch, 100)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_orders_are_uniform() -> None:
    """Over 4,000 epochs each of 5 examples is as often at each rank, whatever the epoch before had there."""
    drawn = np.array([order.permutation(0, epoch, 5) for epoch in range(4000)])
    counts = np.array([[(drawn[:, rank] == i).sum() for i in range(5)] for rank in range(5)])
    assert abs(counts - 800).max() < 5 * np.sqrt(4000 * 0.2 * 0.8)
    stays = (drawn[1:] == drawn[:-1]).mean()
    assert abs(stays - 0.2) < 0.015


def test_the_order_is_the_one_it_always_was() -> None:
    """Another NumPy, or a change here, must not give a resumed run other examples than it would have had."""
    assert order.permutation(0, 0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert order.permutation(1, 2, 10).tolist() == [4, 2, 0, 6, 1, 5, 9, 8, 7, 3]
    far = np.array([0, 1_281_166, 1_281_167, 10**12])
    assert order.stream(7, 1_281_167, far).tolist() == [220364, 33141, 675046, 575043]
    assert order.split_holdout(50, 0.1)[1].tolist() == [0, 25, 38, 41, 43]


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_share_the_global_batch_in_order(hosts) -> None:
    for step in (0, 1, 12_345):
        joined = np.concatenate(hosts_of(step, 16, hosts))
        assert np.array_equal(joined, np.arange(step * 16, (step + 1) * 16))


def test_a_restart_reads_on_where_it_stopped() -> None:
    """Batches do not divide the epoch, and none is cut at its end."""
    read = lambda step: order.stream(5, 103, order.host_positions(step, 32, 0, 1))
    whole = order.stream(5, 103, np.arange(20 * 32))
    for step in (19, 3, 11):  # in any order: nothing is remembered but a cache
        assert np.array_equal(read(step), whole[step * 32 : (step + 1) * 32])


def test_the_next_epoch_is_drawn_before_it_begins(monkeypatch) -> None:
    drawn, draw = [], order._draw
    monkeypatch.setattr(order, "_draw", lambda seed, epoch, n: drawn.append(epoch) or draw(seed, epoch, n))
    n, seed = 1000, 77
    for first, known in ((0, [0]), (400, [0]), (500, [0, 1]), (900, [0, 1])):
        order.stream(seed, n, np.arange(first, first + 100))
        order._drawing().submit(int).result()  # what was asked of the thread before this is done
        assert drawn == known
    order.permutation(seed, 1, n)
    assert drawn == [0, 1]


def test_a_batch_larger_than_the_epoch_still_takes_every_example_equally() -> None:
    drawn = order.stream(0, 7, order.host_positions(2, 21, 0, 1))
    assert np.bincount(drawn, minlength=7).tolist() == [3] * 7


def test_a_cached_permutation_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        order.permutation(0, 0, 10)[0] = 5


@pytest.mark.parametrize(("n", "fraction", "count"), [(1000, 0.01, 10), (99, 0.1, 10), (10, 0.0, 0), (3, 0.99, 3)])
def test_holdout_and_pool_are_disjoint_and_complete(n, fraction, count) -> None:
    pool, holdout = order.split_holdout(n, fraction)
    assert len(holdout) == count
    assert np.array_equal(np.sort(np.concatenate([pool, holdout])), np.arange(n))
    assert np.array_equal(pool, np.sort(pool)) and np.array_equal(holdout, np.sort(holdout))


@pytest.mark.parametrize(("n", "fraction", "folds"), [(1000, 0.1, 10), (99, 0.25, 4), (7, 0.5, 2), (100, 1 / 3, 3)])
def test_folds_are_disjoint_equal_and_together_everything(n, fraction, folds) -> None:
    cut = [order.split_holdout(n, fraction, fold) for fold in range(folds)]
    assert np.array_equal(np.sort(np.concatenate([holdout for _, holdout in cut])), np.arange(n))
    assert np.ptp([len(holdout) for _, holdout in cut]) <= 1
    for pool, holdout in cut:
        assert np.array_equal(np.sort(np.concatenate([pool, holdout])), np.arange(n))
    for ours, first in zip(cut[0], order.split_holdout(n, fraction), strict=True):
        assert np.array_equal(ours, first)


def test_the_holdout_is_spread_over_the_dataset_and_grows() -> None:
    """Examples lie by class, so that the first tenth would be a tenth of the classes."""
    small, large = (order.split_holdout(10_000, fraction)[1] for fraction in (0.05, 0.1))
    assert np.histogram(large, 10, (0, 10_000))[0].min() > 70
    assert set(small) < set(large)


@pytest.mark.parametrize("count", [1, 8, 23])
def test_draws_are_the_same_from_wherever_they_are_asked(count) -> None:
    whole = order.draws(3, 0, 100, count)
    assert whole.shape == (100, count) and whole.dtype == np.float32
    for start, positions in ((0, 1), (17, 40), (99, 1)):
        assert np.array_equal(order.draws(3, start, positions, count), whole[start : start + positions])
    assert len(np.unique(whole[:, 0])) == 100


def test_draws_are_uniform_and_apart_for_seeds_positions_and_numbers() -> None:
    drawn = np.stack([order.draws(seed, 10**12, 4000, 5) for seed in range(2)])
    assert (drawn >= 0).all() and (drawn < 1).all()
    assert abs(np.histogram(drawn, 10, (0, 1))[0] - 4000).max() < 5 * np.sqrt(40_000 * 0.09)
    columns = np.concatenate([drawn[0, :-1], drawn[1, :-1], drawn[0, 1:, :1]], axis=1)  # and the next position
    assert abs(np.corrcoef(columns.T) - np.eye(11)).max() < 0.08


def test_the_draws_are_the_ones_they_always_were() -> None:
    assert order.draws(1, 2, 1, 3)[0].tolist() == [0.43539106845855713, 0.7753187417984009, 0.5383819341659546]


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_what_the_hosts_read_together_is_the_stream(hosts) -> None:
    whole = order.stream(0, 1003, np.arange(201 * 64))
    joined = [order.stream(0, 1003, positions) for step in range(201) for positions in hosts_of(step, 64, hosts)]
    assert np.array_equal(np.concatenate(joined), whole)


@pytest.mark.parametrize(("global_batch", "repeats"), [(12, 1), (12, 3), (12, 4), (8, 3), (7, 7)])
def test_repeats_are_spread_over_a_batch_and_nothing_is_left_out(global_batch: int, repeats: int) -> None:
    positions = np.arange(5 * global_batch)
    shown = order.repeated(positions, global_batch, repeats).reshape(5, global_batch)
    different = -(-global_batch // repeats)
    for step, batch in enumerate(shown):
        assert sorted(set(batch)) == list(range(step * different, (step + 1) * different))
        assert max(np.bincount(batch - step * different)) == -(-global_batch // different)
        assert different == 1 or (np.diff(batch) != 0).all()
    again = order.repeated(positions[global_batch : 2 * global_batch], global_batch, repeats)
    np.testing.assert_array_equal(again, shown[1])


def test_purposes_draw_what_has_nothing_to_do_with_each_other() -> None:
    crops, other = (order.draws(0, 5, 1000, 8, purpose).ravel() for purpose in (0, 1))
    assert abs(np.corrcoef(crops, other)[0, 1]) < 0.05
    np.testing.assert_array_equal(order.draws(0, 7, 3, 8, 1), order.draws(0, 5, 1000, 8, 1)[2:5])
