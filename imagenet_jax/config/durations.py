"""Durations with units: '90 epochs', '5000 steps', '10%'."""

import re

from imagenet_jax.errors import UserError


def steps(duration: str, examples: int, global_batch: int, total: int | None = None, stretch: float = 1.0) -> int:
    """Optimizer steps in a duration: '90 epochs' of `examples`, '5000 steps', or '10%' of `total` steps.

    Epochs and steps are so many more as `stretch` says.

    Raises:
        UserError: not a duration, or a percentage where there is no total.
    """
    number, unit = parse(duration)
    if unit == "%":
        if total is None:
            raise UserError(f"duration {duration!r}: a percentage of what? Use 'N epochs' or 'N steps' here")
        return round(number / 100 * total)
    return round(stretch * (number * examples / global_batch if unit == "epochs" else number))


def parse(duration: str) -> tuple[float, str]:
    """The number of a duration and its unit: 'epochs', 'steps' or '%'.

    Raises:
        UserError: not a duration.
    """
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d*)?)\s*(epochs?|steps?|%)\s*", str(duration))
    if not match:
        raise UserError(f"{duration!r} is not a duration; write it as '90 epochs', '5000 steps' or '10%'")
    unit = match[2].rstrip("s")
    return float(match[1]), unit if unit == "%" else unit + "s"
