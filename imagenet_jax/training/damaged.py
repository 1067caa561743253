"""Pictures of training that turn out to be damaged: named once, counted, and too many of them end the run."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

from imagenet_jax.errors import UserError
from imagenet_jax.training.run import Run

LIMIT = 0.001  # of an epoch, or of all examples shown once these are more
_NAMED = 20  # in a message


def tell(faults: Iterable[bytes], told: dict[str, None]) -> None:
    """Says on stderr what is wrong with the examples of a batch and is not in `told` yet, where it is kept."""
    for fault in dict.fromkeys(faults):
        if fault and (text := fault.decode()) not in told:
            told[text] = None
            tqdm.write(f"WARNING: {text}.", file=sys.stderr)


def note(damaged: int) -> list[str]:
    """What the report says of so many."""
    return [f"{damaged:,} of the examples shown were damaged; the log names them."] if damaged else []


def check(run: Run, damaged: int, step: int, told: Iterable[str]) -> None:
    """Raises UserError, on all hosts, if so many of the examples shown in `step` steps are too many.

    told: what this host has said of them.
    """
    examples, shown, told = len(run.train_part.pool), step * run.config.global_batch, list(told)
    if damaged > LIMIT * max(examples, shown):
        listed = told[:_NAMED] + [f"and {len(told) - _NAMED:,} more"] * (len(told) > _NAMED)
        summary = (f"{damaged:,} of {shown:,} examples shown until step {step} are damaged, and more than {LIMIT:.1%} "
                   f"of an epoch of {examples:,} end a run.")
        raise UserError("\n  ".join([summary, *listed]) + "\nCopy the dataset again, whole, or prepare it anew with "
                        "--verify=decode. The same command then goes on from the last checkpoint.")
