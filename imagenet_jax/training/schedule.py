"""Learning-rate schedules, in optimizer steps."""

from collections.abc import Callable

import optax

from imagenet_jax.errors import UserError

Schedule = Callable[[int], float]


def make(duration: Callable[[str], int], total: int, *, peak: float, warmup: str, decay: str,
         boundaries: tuple[str, ...], factor: float, power: float, final: float) -> Schedule:
    """Linear warm-up from 0 to `peak`, then a decay over the rest of the run.

    Args:
        duration: turns a duration such as '5 epochs' into steps.
        total: steps of the whole run.
        decay: 'cosine' (to `final`), 'polynomial' of `power` (to `final`), 'step' (times `factor` at each of
            `boundaries`, counted from step 0 as papers count them), or 'constant'.

    Returns:
        step -> learning rate, usable inside jit.

    Raises:
        UserError: a warm-up that leaves no step for the rest.
    """
    warm = duration(warmup)
    if warm >= total:
        raise UserError(f"schedule.warmup={warmup!r} is {warm} steps, but the whole run has {total}")
    rest = total - warm
    if decay == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=final / peak if peak else 0.0)
    elif decay == "polynomial":
        after = optax.polynomial_schedule(peak, final, power, rest)
    elif decay == "step":
        after = optax.piecewise_constant_schedule(peak, {duration(b) - warm: factor for b in boundaries})
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warm), after], [warm]) if warm else after
