"""Verify that a dataset, or the checkpoints of a run, are what was written: read all of it, after a copy perhaps."""

from collections.abc import Iterator

from absl import flags

from imagenet_jax.errors import UserError

DATASET = flags.DEFINE_string("dataset", None, "A prepared dataset, or one that `tfds build` wrote.")
WORKDIR = flags.DEFINE_string("workdir", None, "A run: every checkpoint in checkpoints/ and best/.")
flags.mark_flags_as_mutual_exclusive(["dataset", "workdir"], required=True)


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    damaged = 0
    for what, damages in _dataset(DATASET.value) if DATASET.value else _workdir(WORKDIR.value):
        print(f"{what}: {'as written' if not damages else 'DAMAGED'}", *damages, sep="\n  ", flush=True)
        damaged += bool(damages)
    if damaged:
        raise UserError(f"{DATASET.value or WORKDIR.value} is not what was written: {damaged} damaged. Copy it again, "
                        "or make it anew")


def _dataset(directory: str) -> Iterator[tuple[str, list[str]]]:
    from imagenet_jax.dataset import verify

    for split, count, damages in verify.damages(directory):
        yield f"{split}, {count:,} examples", damages


def _workdir(workdir: str) -> Iterator[tuple[str, list[str]]]:
    import os

    from imagenet_jax import checkpoint

    found = [(kind, step) for kind in ("checkpoints", "best")
             for step in checkpoint.complete_steps(os.path.join(workdir, kind))]
    if not found:
        raise UserError(f"{workdir} holds no complete checkpoint, neither in checkpoints/ nor in best/")
    for kind, step in found:
        path = os.path.join(workdir, kind, str(step))
        try:
            checkpoint.read(path, checkpoint.ITEMS)
        except checkpoint.DamagedError as error:
            yield path, [str(error)]
        else:
            yield path, []
