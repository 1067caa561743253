"""Training, as a story: claim the workdir, build, start or resume, step, judge, save, report."""

import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from imagenet_jax import checkpoint, models
from imagenet_jax import config as config_lib
from imagenet_jax.classes import Classes
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact, report
from imagenet_jax.input import loader, service
from imagenet_jax.training import evaluating, parallel, reporting, run_report
from imagenet_jax.training.run import Run, build, describe, identity
from imagenet_jax.training.saving import Best, Saver, items_of, termination
from imagenet_jax.training.state import TrainState, init_variables, make_state
from imagenet_jax.training.step import train_step
from imagenet_jax.training.workdir import claim
from imagenet_jax.transfer.load import init_from

PyTree = Any
STEPS_IN_FLIGHT = 2  # dispatched ahead of the devices; more would only pile up batches there


class Judged(NamedTuple):
    """An evaluation of one part after `step` steps."""

    step: int
    predictions: exact.Predictions
    file_names: list[str]


def train(config: config_lib.Config, workdir: str) -> dict[str, dict[str, float]]:
    """Trains, or goes on where the last checkpoint of `workdir` stands, and writes everything there.

    Returns:
        The final metrics by split ('val', and 'holdout' where there is one).

    Raises:
        UserError: any mistake in the config, the data or the workdir; a loss that is not finite.
        SystemExit: after SIGTERM or Ctrl-C, once the state is saved.
    """
    config = models.fill_view(config)
    config_lib.check(config)
    run = build(config, workdir)
    claim(config, workdir)
    state, best, notes = start(run)
    notes = [*filter(None, [evaluating.variant_warning(run.dataset)]), *run.notes, *notes]
    first = int(state.step)
    with reporting.Reporter(workdir, total_steps=run.total_steps, start_step=first,
                            global_batch=config.global_batch) as reporter:
        reporter.say("\n".join([describe(run, state), *notes]))
        final, best, why = fit(run, parallel.put_state(state, run.layout), first, best, reporter)
        if best.step:
            notes.append(f"Best holdout top-1 {best.top1:.2%} at step {best.step}: {workdir}/best/{best.step}.")
        results = {split: exact.metrics(judged.predictions) for split, judged in final.items()}
        if jax.process_index() == 0:
            write_evaluation(run, final["val"])
            path = run_report.write_report(workdir, results=results, summary=reporter.summary(),
                                          notes=[*notes, why] if why else notes)
            reporter.say(f"done: {path}")
    return results


def start(run: Run) -> tuple[TrainState, Best, list[str]]:
    """The state to go on from, on the host: of the last checkpoint, of `init_from`, or fresh."""
    config = run.config
    initial = functools.partial(init_variables, run.options.model, config.augment.size, config.seed)
    shapes = jax.eval_shape(lambda: fresh_state(run, *initial()))
    directory = os.path.join(run.workdir, "checkpoints")
    if checkpoint.latest_step(directory) is not None:
        items, meta = checkpoint.restore(directory, items_of(shapes))
        if meta["dataset"] != identity(run):
            raise UserError(f"{run.workdir} was trained on other data: {meta['dataset']}, now {identity(run)}. "
                            "Point dataset.dir at the data it began with, or use another --workdir.")
        state = TrainState(step=np.int32(meta["step"]), **{"ema": None} | items)
        return state, Best(*meta["best"]), [f"Resumed from step {meta['step']} of {directory}."]
    params, batch_stats = initial()
    notes = []
    if config.init_from:
        params, batch_stats, loaded = init_from(params, batch_stats, config.init_from, config.model.name,
                                                Classes(run.dataset.classes, run.dataset.class_names))
        notes = [str(loaded)]
    return fresh_state(run, params, batch_stats), Best(), notes


def fresh_state(run: Run, params: PyTree, batch_stats: PyTree) -> TrainState:
    """The state before the first step."""
    return make_state(params, batch_stats, run.options.optimizer, run.options.freeze, bool(run.config.ema_decay))


def fit(run: Run, state: TrainState, first: int, best: Best,
        reporter: reporting.Reporter) -> tuple[dict[str, Judged], Best, str]:
    """Steps from `first` to the end.

    Returns:
        What the last state says of every judged part, the best, and why it stopped early ('' if it did not).
    """
    compiled = parallel.compile_step(functools.partial(train_step, run.options), run.layout)
    evaluator = evaluating.make_evaluator(
        run.options.model, run.layout, batch=run.config.evaluation.batch, view=run.config.view,
        workers=loader.Workers(**run.config.loader))
    log_every, judge_every, save_every = (
        max(1, run.steps(d)) for d in (run.config.log_every, run.config.evaluation.every, run.config.checkpoint.every))
    patience = run.steps(run.config.early_stopping) if run.config.early_stopping else run.total_steps
    saver = make_saver(run)
    judged, pending, why = {}, [], ""  # pending: metrics of steps not yet looked at

    with contextlib.closing(device_batches(run, first)) as batches, termination() as is_terminated:
        for step in range(first + 1, run.total_steps + 1):  # how many are done once it is
            with reporter.timed("input"):
                batch = next(batches)
            with reporter.timed("compile") if step == first + 1 else contextlib.nullcontext():
                state, metrics = compiled(state, batch)
                pending.append(metrics)
                jax.block_until_ready(pending[-STEPS_IN_FLIGHT:][0])
            reporter.advance(step)

            stop, last = is_terminated(step), step == run.total_steps
            judge = not stop and (step % judge_every == 0 or last)
            save = step % save_every == 0 or saver.is_due() or last or stop
            if step % log_every == 0 or judge or save:
                values = means_if_finite(run, pending, step)
                reporter.train(step, values | {"lr": float(run.learning_rate(step - 1))})
                pending = []
            if judge:
                judged = judge_all(run, evaluator, state, step, reporter)
                best, improved = better(best, judged, step)
                if improved:
                    saver.save("best", state, step, best)
                if best.step and step - best.step >= patience:
                    why = f"Stopped early at step {step}: no better holdout top-1 since step {best.step}."
            if save or why:
                with reporter.timed("checkpoint"):
                    saver.save("checkpoints", state, step, best)
            if stop:
                saver.finish()
                reporter.say(f"Terminated: step {step} is saved in {run.workdir}/checkpoints; "
                             "the same command goes on from it.")
                raise SystemExit(128 + signal.SIGTERM)
            if why:
                reporter.say(why)
                break
    with reporter.timed("checkpoint"):
        saver.finish()
    return judged or judge_all(run, evaluator, state, first, reporter), best, why


def device_batches(run: Run, first: int) -> Iterator[PyTree]:
    """This host's batches from step `first` on, laid over its devices ahead of time."""
    config = run.config
    served = functools.partial(service.train_batches, config.dataset.service)
    batches = (served if config.dataset.service else loader.train_batches)(
        run.train_part, seed=config.seed, start_step=first, global_batch=config.global_batch, augment=config.augment,
        host_slice=loader.Host(jax.process_index(), jax.process_count()), workers=loader.Workers(**config.loader))

    def put(batch: loader.Batch) -> PyTree:
        return parallel.put_batch({key: batch[key] for key in ("image", "label")}, run.layout, run.micro_batches)

    return loader.prefetch(batches, put, config.loader.prefetch)


def means_if_finite(run: Run, pending: list[PyTree], step: int) -> dict[str, float]:
    """Means of the metrics of the last steps, of which `step` is the last.

    Raises:
        UserError: a loss or the state is not finite; names the step, the last good checkpoint, the likely causes.
    """
    sums = jax.tree.map(lambda *x: np.array(x, np.float64), *[parallel.get_state(m, run.layout) for m in pending])
    finite = np.isfinite(sums["loss"][0]) & (sums.pop("finite")[0] == 1)
    if not finite.all():
        good = checkpoint.latest_step(os.path.join(run.workdir, "checkpoints"))
        where = f"{run.workdir}/checkpoints/{good}" if good is not None else "none yet"
        raise UserError(
            f"the loss of step {step - len(finite) + 1 + int(np.argmin(finite))}, or the weights after it, is not "
            f"finite. Last good checkpoint: {where}.\n"
            f"Likely causes: a learning rate too high for the batch (schedule.peak={run.config.schedule.peak}, "
            f"global_batch={run.config.global_batch}), a warm-up too short "
            f"(schedule.warmup={run.config.schedule.warmup!r}), no clipping "
            f"(optimizer.clip_norm={run.config.optimizer.clip_norm}), or init_from weights of another scale.")
    return {name: float(total.sum() / count.sum()) for name, (total, count) in sums.items()}


def judge_all(run: Run, evaluator: evaluating.Evaluator, state: TrainState, step: int,
              reporter: reporting.Reporter) -> dict[str, Judged]:
    """Evaluates every judged part; with averaged weights where there are any."""
    variables = {"params": state.params if state.ema is None else state.ema, "batch_stats": state.batch_stats}
    judged = {}
    for split, part in run.judged.items():
        with reporter.timed("evaluation"):
            judged[split] = Judged(step, *evaluating.evaluate(evaluator, variables, part))
        values = exact.metrics(judged[split].predictions)
        reporter.scores(step, split, {key: values[key] for key in ("top1", "top5", "loss")})
    return judged


def better(best: Best, judged: dict[str, Judged], step: int) -> tuple[Best, bool]:
    """The best so far, and whether it is this one; without a holdout nothing is ever best."""
    top1 = exact.metrics(judged["holdout"].predictions)["top1"] if "holdout" in judged else best.top1
    return (Best(top1, step), True) if top1 > best.top1 else (best, False)


def make_saver(run: Run) -> Saver:
    """Saves into the workdir with what every checkpoint must say of its run."""
    config = run.config.checkpoint
    meta = {"config": run.config.to_dict(), "dataset": identity(run), "versions": dict(run_report.versions()),
            "classes": [run.dataset.classes, run.dataset.class_names]}
    fetch = functools.partial(parallel.get_state, layout=run.layout)
    return Saver(run.workdir, fetch, meta, keep=config.keep,
                 milestone_steps=run.steps(config.milestones) if config.milestones else 0,
                 minutes=config.every_minutes)


def write_evaluation(run: Run, judged: Judged) -> None:
    """Writes `workdir`/evaluation of the evaluation split."""
    config = run.config
    protocol = evaluating.protocol(run.dataset, config.dataset.eval_split, config, run.options.model,
                                   f"checkpoints/{judged.step}")
    report.write_evaluation(os.path.join(run.workdir, "evaluation"), judged.predictions, run.dataset.classes,
                            class_names=run.dataset.class_names, file_names=judged.file_names, protocol=protocol)
