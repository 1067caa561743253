"""Learning-rate schedules, in optimizer steps."""

from collections.abc import Callable

import jax.numpy as jnp
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
        UserError: a warm-up that leaves no step for the rest; boundaries that do not rise from after the warm-up to
            before the end.
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
        drops = [duration(b) for b in boundaries]
        if not drops or sorted({warm, *drops}) != [warm, *drops]:
            raise UserError(f"schedule.decay='step' needs schedule.boundaries that rise from after the warm-up ({warm} "
                            f"steps); {boundaries!r} are steps {drops}")
        if drops[-1] >= total:
            raise UserError(f"schedule.boundaries={boundaries!r} are steps {drops}, but the whole run has {total}: the "
                            "rate would not fall there. Shorten them like the duration, or write them as percentages")
        after = optax.piecewise_constant_schedule(peak, {drop - warm: factor for drop in drops})
    else:
        after = optax.constant_schedule(peak)
    rate = optax.join_schedules([optax.linear_schedule(0.0, peak, warm), after], [warm]) if warm else after
    return lambda step: rate(jnp.asarray(step, float))  # of an int32 it would be float32 in double precision too
