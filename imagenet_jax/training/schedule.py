"""Learning-rate schedules, in optimizer steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagenet_jax.errors import UserError

Schedule = Callable[[int], float]
Duration = Callable[[str], int]


def make(duration: Duration, total: int, *, epoch: float, peak: float, warmup: str, warmup_kind: str,
         warmup_from: float, decay: str, boundaries: tuple[str, ...], values: tuple[float, ...], factor: float,
         every: str, staircase: bool, power: float, final: float, per_epoch: bool) -> Schedule:
    """A warm-up to `peak`, then a decay over the rest of the run.

    Args:
        duration: turns a duration such as '5 epochs' into steps.
        total: steps of the whole run.
        epoch: steps of an epoch, which need not be whole.
        warmup_kind: from `warmup_from` to `peak` 'linear' or 'exponential', or 'constant' at `warmup_from`.
        decay: 'cosine' (to `final`), 'polynomial' of `power` (to `final`), 'step' (times `factor` at each of
            `boundaries`), 'exponential' (times `factor` in every `every`, at once if `staircase`), 'piecewise' (in
            straight lines from `peak` at the end of the warm-up through `values` at `boundaries` to `final` at the
            end), or 'constant'. Boundaries and `every` are counted from step 0, as papers count them.
        per_epoch: the rate of an epoch's beginning holds for all of it.

    Returns:
        step -> learning rate, usable inside jit.

    Raises:
        UserError: a warm-up that leaves no step for the rest, or begins at nothing and is exponential; boundaries that
            do not rise from after the warm-up to before the end, or are not as many as values.
    """
    warm = duration(warmup)
    if warm >= total:
        raise UserError(f"schedule.warmup={warmup!r} is {warm} steps, but the whole run has {total}")
    if decay == "cosine":
        after = optax.cosine_decay_schedule(peak, total - warm, alpha=final / peak if peak else 0.0)
    elif decay == "polynomial":
        after = optax.polynomial_schedule(peak, final, power, total - warm)
    elif decay == "exponential":
        begin = optax.exponential_decay(peak, max(duration(every), 1), factor, staircase=staircase)
        after = lambda step: begin(step + warm)
    elif decay == "constant":
        after = optax.constant_schedule(peak)
    else:
        marks = _marks(boundaries, [duration(boundary) for boundary in boundaries], warm, total)
        if decay == "step":
            after = optax.piecewise_constant_schedule(peak, {mark - warm: factor for mark in marks})
        else:
            after = _through(values, marks, (peak, final), (warm, total))
    rate = optax.join_schedules([_warmup(warmup_kind, warmup_from, peak, warm), after], [warm]) if warm else after

    def at(step: int) -> jax.Array:
        step = jnp.asarray(step, float)  # of an int32 the rate would be float32 in double precision too
        # An epoch begins with the step nearest to its beginning, as boundaries do.
        return rate(jnp.round(jnp.floor((step + 0.5) / epoch + 1e-6) * epoch) if per_epoch else step)

    return at


def value(schedule: Schedule, step: int) -> float:
    """What a schedule says of a step, for people: one program, and no copies but the number itself."""
    return float(jax.device_get(jax.jit(schedule)(jax.device_put(np.int32(step)))))


def scaled(peak: float, *, batch: int | None, rule: str, global_batch: int) -> float:
    """A peak that is stated for `batch`, for another global batch by the 'linear' or the 'sqrt' rule.

    Goyal et al. 2017 (section 2.1) and Krizhevsky 2014 (section 5) give reasons for the two. None: the peak is for any.
    """
    if batch is None:
        return peak
    return peak * (global_batch / batch) ** {"linear": 1.0, "sqrt": 0.5}[rule]


def _warmup(kind: str, start: float, peak: float, steps: int) -> Schedule:
    if kind == "constant":
        return optax.constant_schedule(start)
    if kind == "linear":
        return optax.linear_schedule(start, peak, steps)
    if not start or not peak:
        raise UserError(f"schedule.warmup_kind='exponential' needs schedule.warmup_from and schedule.peak above 0, not "
                        f"{start} and {peak}")
    return optax.exponential_decay(start, steps, peak / start)


def _marks(boundaries: tuple[str, ...], marks: list[int], warm: int, total: int) -> list[int]:
    """The steps of boundaries.

    Raises:
        UserError: they do not rise from after the warm-up to before the end.
    """
    if not marks or sorted({warm, *marks}) != [warm, *marks]:
        raise UserError(f"schedule.decay='step' or 'piecewise' needs schedule.boundaries that rise from after the "
                        f"warm-up ({warm} steps); {boundaries!r} are steps {marks}")
    if marks[-1] >= total:
        raise UserError(f"schedule.boundaries={boundaries!r} are steps {marks}, but the whole run has {total}: the "
                        "rate would not fall there. Shorten them like the duration, or write them as percentages")
    return marks


def _through(values: tuple[float, ...], marks: list[int], ends: tuple[float, float],
             steps: tuple[int, int]) -> Schedule:
    if len(values) != len(marks):
        raise UserError(f"schedule.decay='piecewise' needs as many schedule.values as boundaries, not {len(values)} "
                        f"and {len(marks)}")
    x, y = [steps[0], *marks, steps[1]], [ends[0], *values, ends[1]]
    return lambda step: jnp.interp(step + steps[0], jnp.array(x, float), jnp.array(y, float))
