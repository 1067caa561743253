"""Training, as a story: build, start or resume, claim the workdir, step, judge, save, report."""

import contextlib
import functools
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from imagenet_jax import checkpoint, hosts, models
from imagenet_jax import config as config_lib
from imagenet_jax.errors import UserError
from imagenet_jax.evaluation import exact
from imagenet_jax.hosts import watchdog
from imagenet_jax.input import loader, processes, service
from imagenet_jax.training import (
    adding,
    damaged,
    evaluating,
    judging,
    parallel,
    profiling,
    recipe,
    reporting,
    run_report,
    schedule,
    workdirs,
)
from imagenet_jax.training.run import Run, build, describe, identity
from imagenet_jax.training.saving import Progress, Saver, termination
from imagenet_jax.training.starting import start
from imagenet_jax.training.state import TrainState, variables_of

PyTree = Any


def train(config: config_lib.Config, workdir: str, *, extend: bool = False,
          profile: str = "") -> dict[str, dict[str, float]]:
    """Trains, or goes on where the last checkpoint of `workdir` stands, and writes everything there.

    Args:
        extend: a run that lies in `workdir` may be given another duration and schedule from its last checkpoint on.
        profile: a directory for a trace of some steps, see `profiling`; '' for none.

    Returns:
        The final metrics by split ('val' and 'holdout', where there are such).

    Raises:
        UserError: any mistake in the config, the data or the workdir; a loss that is not finite.
        SystemExit: after SIGTERM or Ctrl-C, once the state is saved.
    """
    config = models.fill_view(config)
    config_lib.check(config)
    workdirs.check_place(workdir)
    workdirs.check_hosts(config, workdir)
    changed = hosts.from_first("what the config changes", lambda: workdirs.changes(config, workdir, extend=extend))
    run = build(config, workdir)
    state, progress, notes = start(run, extended=bool(changed))
    first = int(state.step)
    profiling.check(profile, run.total_steps - first)
    notes = [*filter(None, [evaluating.variant_warning(run.dataset)]), *run.notes, *notes]
    opening = "\n".join([describe(run, state), *notes])
    workdirs.claim(config, workdir, keep_as=f"config.until_{first}.json" if changed else "")
    with reporting.Reporter(workdir, total_steps=run.total_steps, start_step=first, evaluated=progress.evaluated,
                            global_batch=config.global_batch) as reporter:
        reporter.say(opening)
        judged, progress = fit(run, parallel.put_state(state, run.layout), first, progress, reporter, profile)
        if progress.best_step:
            notes.append(f"Best holdout top-1 {progress.best_top1:.2%} at step {progress.best_step}: "
                         f"{workdir}/best/{progress.best_step}.")
        predictions = {split: found.predictions for split, found in judged.items()}
        results = {split: exact.metrics(found) for split, found in predictions.items()}
        if hosts.is_first():
            judging.write_evaluation(run, judged)
            changes = adding.gained_and_lost(workdir, predictions)
            path = run_report.write_report(workdir, results=results, summary=reporter.summary(),
                                           notes=[*notes, *changes, *damaged.note(progress.damaged),
                                                  *filter(None, [progress.finished])])
            reporter.say("\n".join([*changes, f"done: {path}"]))
    return results


@watchdog.watched("step")
def fit(run: Run, state: TrainState, first: int, progress: Progress, reporter: reporting.Reporter,
        profile: str = "") -> tuple[dict[str, judging.Judged], Progress]:
    """Steps from `first`, where an evaluation may be left to catch up with, to the end.

    Returns:
        What the last state says of every judged part, and how far the run has come.
    """
    evaluator = evaluating.make_evaluator(
        run.options.model, run.layout, batch=run.config.evaluation.batch, view=run.config.view,
        workers=loader.Workers(**run.config.loader))
    saver, judged = make_saver(run), {}
    pending, told = [], {}  # metrics of steps not yet looked at; what was said of damaged pictures
    batches = device_batches(run, first, told, run.total_steps - first)

    with contextlib.closing(batches), termination() as is_terminated:
        run_step = compile_ahead(run, state, first, evaluator, reporter)  # while the first batches are made
        for step in range(first, run.total_steps + 1):  # how many are done once it is
            if step > first:
                with reporter.timed("input"):
                    batch = next(batches)
                with (reporter.timed("compile") if step == first + 1 else watchdog.doing("waiting for the devices"),
                      profiling.window(profile, step - first)):
                    state, metrics = run_step(state, batch)
                    pending.append(metrics)
                    jax.block_until_ready(pending[-parallel.STEPS_IN_FLIGHT:][0])
                reporter.advance(step)
                watchdog.passed(f"step {step}")
                if profile and step - first == profiling.LAST:
                    found = profiling.costs(profile, parallel.compiled(run_step, state, batch).program)
                    reporter.say(profiling.words(profile, found))

            stop = is_terminated()
            judge = judging.is_due(run, step) and progress.evaluated < step
            save = step > first and (saver.is_due(step) or step == run.total_steps)
            log = step > first and (step % run.cadence.log == 0 or judge)
            if log or save or stop:
                progress, pending = added(run, progress, pending, step), []
                damaged.check(run, progress.damaged, step, told)
            if log:
                values = {name: total / count for name, (total, count) in progress.sums.items()
                          if total or name != "damaged"}
                reporter.train(step, values | {"lr": schedule.value(run.learning_rate, step - 1)})
                progress = progress._replace(sums={})
            if judge and not stop:
                try:
                    judged = judging.judge_all(run, evaluator, state, step, reporter, is_terminated)
                except evaluating.StoppedError:
                    stop = True
                else:
                    judging.tell(run, judged, reporter)
                    progress = judging.conclude(run, progress, judged, step)
                    if progress.best_step == step > 0:
                        with reporter.timed("checkpoint"):
                            saver.save("best", state, step, progress)
            if save or stop or progress.finished:
                with reporter.timed("checkpoint"):
                    saver.save("checkpoints", state, step, progress)
            if stop:
                raise _terminated(run, saver, step, reporter)
            if progress.finished:
                reporter.say(progress.finished)
                break
        with reporter.timed("checkpoint"):
            saver.finish()
        if not judged:  # it had ended before: what it is worth is known, but not in every detail
            try:
                judged = judging.judge_all(run, evaluator, state, step, reporter, is_terminated)
            except evaluating.StoppedError:
                raise _terminated(run, saver, step, reporter) from None
    return judged, progress


def compile_ahead(run: Run, state: TrainState, first: int, evaluator: evaluating.Evaluator,
                  reporter: reporting.Reporter) -> Callable[..., Any]:
    """The step with its programs for all sizes of images from step `first` on; that of the evaluations is made, too."""
    step = recipe.compile_step(run.config, run.options, run.layout)
    ahead = dict.fromkeys(size for _, size in loader.sizes(run.augment, first))
    examples = run.config.global_batch // jax.process_count()
    for size in ahead if first < run.total_steps else ():
        batch = parallel.put_batch({"image": np.zeros((examples, size, size, 3), np.uint8),
                                    "label": np.zeros(examples, np.int32),
                                    "damaged": np.zeros(examples, np.float32)}, run.layout, run.micro_batches)
        with reporter.timed("compile"):
            _, seconds, source = parallel.compiled(step, state, batch)
        reporter.say(f"The step for images of {size} px was compiled in {seconds:.1f} s ({source}).")
    if run.judged:
        with reporter.timed("compile"):
            _, seconds, source = evaluating.compile_ahead(evaluator, variables_of(state))
        reporter.say(f"The evaluation was compiled in {seconds:.1f} s ({source}).")
    return step


def _terminated(run: Run, saver: Saver, step: int, reporter: reporting.Reporter) -> SystemExit:
    """How a run ends that was asked to, once all is on disk."""
    saver.finish()
    reporter.say(f"Terminated: step {step} is saved in {run.workdir}/checkpoints; the same command goes on from it.")
    return SystemExit(128 + signal.SIGTERM)


def device_batches(run: Run, first: int, told: dict[str, None], steps: int | None = None) -> Iterator[PyTree]:
    """This host's batches of `steps` steps from `first` on (None: without end), laid over its devices ahead of time.

    told: see `damaged.tell`.
    """
    config, make = run.config, loader.train_batches
    host, workers = loader.Host(jax.process_index(), jax.process_count()), loader.Workers(**run.config.loader)
    if config.dataset.service:
        make = functools.partial(service.train_batches, config.dataset.service)
    elif (count := processes.count(loader.share(config.global_batch, host), workers)) > 1:
        make = functools.partial(processes.train_batches, processes=count)
    batches = make(run.train_part, seed=config.seed, start_step=first, global_batch=config.global_batch,
                   augment=run.augment, host_slice=host, workers=workers)

    def wanted() -> Iterator[loader.Batch]:
        with contextlib.closing(batches):
            yield from itertools.islice(batches, steps)

    def put(batch: loader.Batch) -> PyTree:
        damaged.tell(batch["fault"], told)
        shown = {"image": batch["image"], "label": batch["label"], "damaged": np.float32(batch["fault"] != b"")}
        return parallel.put_batch(shown, run.layout, run.micro_batches)

    return loader.prefetch(wanted(), put, config.loader.prefetch)


def added(run: Run, progress: Progress, pending: list[PyTree], step: int) -> Progress:
    """The progress with the sums and counts of the last steps, of which `step` is the last, added in order.

    Raises:
        UserError: a loss or the state is not finite; names the step, the last good checkpoint, the likely causes.
    """
    sums, damages = dict(progress.sums), progress.damaged
    for number, metrics in enumerate(pending, step - len(pending) + 1):
        fetched = {name: (float(total), float(count))
                   for name, (total, count) in parallel.get_state(metrics, run.layout).items()}
        if fetched.pop("finite")[0] != 1 or not np.isfinite(fetched["loss"][0]):
            raise _not_finite(run, number)
        damages += int(fetched["damaged"][0])
        for name, (total, count) in fetched.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + total, before[1] + count)
    return progress._replace(sums=sums, damaged=damages)


def _not_finite(run: Run, step: int) -> UserError:
    config, good = run.config, checkpoint.latest_step(os.path.join(run.workdir, "checkpoints"))
    return UserError(
        f"the loss of step {step}, or the weights after it, is not finite. Last good checkpoint: "
        f"{'none yet' if good is None else f'{run.workdir}/checkpoints/{good}'}.\n"
        f"Likely causes: a learning rate too high for the batch (schedule.peak={config.schedule.peak}, "
        f"global_batch={config.global_batch}), a warm-up too short (schedule.warmup={config.schedule.warmup!r}), no "
        f"clipping (optimizer.clip_norm={config.optimizer.clip_norm}), or init_from weights of another scale.")


def make_saver(run: Run) -> Saver:
    """Saves into the workdir with what every checkpoint must say of its run."""
    meta = {"config": run.config.to_dict(), "dataset": identity(run), "versions": dict(run_report.versions()),
            "classes": [run.dataset.classes, run.dataset.class_names]}
    return Saver(run.workdir, functools.partial(parallel.get_state, layout=run.layout), meta, run.cadence,
                 keep=run.config.checkpoint.keep, minutes=run.config.checkpoint.every_minutes)
