"""What a checkpoint of a recipe takes: how long training waits for it, how long all is on its way, and to read it."""

import os
import statistics
import tempfile
import time
from typing import NamedTuple

from imagenet_jax import checkpoint, trees
from imagenet_jax import config as config_lib
from imagenet_jax.benchmarking import timing
from imagenet_jax.dataset.places import local_folder
from imagenet_jax.errors import UserError
from imagenet_jax.training import parallel
from imagenet_jax.training.saving import items_of

ROUNDS = 5


class Saved(NamedTuple):
    """Sizes in bytes, of the arrays and of the files; times in seconds, medians of ROUNDS.

    copy_s: the state comes from the devices. begin_s: until training goes on. whole_s: until all is on disk, both
    included. restore_s: to read it and compare it with its checksums, from the system's memory if that holds it.
    """

    arrays: int
    files: int
    copy_s: float
    begin_s: float
    whole_s: float
    restore_s: float


def measure(config: config_lib.Config, directory: str) -> Saved:
    """Saves the state of a filled recipe after two steps into a folder of its own in `directory`, and restores it.

    Raises:
        UserError: the recipe cannot be run, or nothing can be written there.
    """
    folder = local_folder(directory, "dir")
    if not folder.is_dir():
        raise UserError(f"--dir={directory} is no folder: a checkpoint is tried in one that is there")
    layout = parallel.make_layout(config.parallel)
    side = timing.ready(config, layout)
    state, _ = timing.run(side.step, side.state, side.batch, 2)
    taken, sizes = [], (0, 0)
    with tempfile.TemporaryDirectory(dir=folder, prefix="benchmark-checkpoint-") as scratch:
        manager = checkpoint.open_manager(scratch, keep=1)
        for step in range(ROUNDS):
            times = [time.perf_counter()]
            items = items_of(parallel.get_state(state, layout))
            times.append(time.perf_counter())
            checkpoint.save(manager, step, items, {"step": step, "config": config.to_dict()})
            times.append(time.perf_counter())
            manager.wait_until_finished()
            times.append(time.perf_counter())
            checkpoint.restore(scratch, items)
            times.append(time.perf_counter())
            taken.append([times[1] - times[0], times[2] - times[0], times[3] - times[0], times[4] - times[3]])
            arrays = sum(leaf.nbytes for tree in items.values() for leaf in trees.flatten(tree).values())
            sizes = (arrays, _bytes(os.path.join(scratch, str(step))))
        checkpoint.finish(manager)
    return Saved(*sizes, *map(statistics.median, zip(*taken, strict=True)))


def _bytes(directory: str) -> int:
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(directory) for name in names)


def words(config: config_lib.Config, directory: str, found: Saved) -> str:
    """The figures for people."""
    mega = found.arrays / 1e6
    rows = [("from the devices", found.copy_s), ("until training goes on", found.begin_s),
            ("until all is on disk", found.whole_s), ("read and compared", found.restore_s)]
    return "\n".join([
        f"{config.model.name} with {config.optimizer.name}: {mega:,.1f} MB of arrays, {found.files / 1e6:,.1f} MB in "
        f"{directory} (median of {ROUNDS})",
        *(f"{what:>24}{seconds:10.3f} s{mega / seconds if seconds else 0:10,.0f} MB/s" for what, seconds in rows),
        f"A checkpoint every 15 minutes takes {found.begin_s / 900:.2%} of the time of training."])
