"""What a run thinks of itself: its evaluations, which of them is the best, and when no better one is to be expected."""

import os
from collections.abc import Callable
from typing import NamedTuple

from imagenet_jax import hosts
from imagenet_jax.classes import Classes
from imagenet_jax.evaluation import exact, report
from imagenet_jax.training import adding, evaluating, reporting
from imagenet_jax.training.run import Run
from imagenet_jax.training.saving import Progress
from imagenet_jax.training.state import TrainState, variables_of


class Judged(NamedTuple):
    """An evaluation of one part after `step` steps."""

    step: int
    predictions: exact.Predictions
    file_names: list[str]


def is_due(run: Run, step: int) -> bool:
    """Whether the run is to be evaluated after so many steps; before the first if it is to tell what it gained."""
    if step == 0:
        return bool(run.train_part.added and run.config.init_from)
    return step % run.cadence.judge == 0 or step == run.total_steps


def judge_all(run: Run, evaluator: evaluating.Evaluator, state: TrainState, step: int, reporter: reporting.Reporter,
              is_stopped: Callable[[], bool]) -> dict[str, Judged]:
    """Evaluates every judged part; with averaged weights and statistics where there are any.

    Raises:
        evaluating.StoppedError: is_stopped() became true between two batches.
    """
    judged = {}
    for split, part in run.judged.items():
        with reporter.timed("evaluation"):
            judged[split] = Judged(step, *evaluating.evaluate(evaluator, variables_of(state), part,
                                                              is_stopped=is_stopped))
    return judged


def tell(run: Run, judged: dict[str, Judged], reporter: reporting.Reporter) -> None:
    """Writes the metrics of all parts at once, so that an evaluation that was stopped leaves no half of them.

    Of the starting weights it keeps which examples they have right, too.
    """
    start = {split: found.predictions for split, found in judged.items() if found.step == 0}
    if start and hosts.is_first():
        adding.keep_start(run.workdir, start)
    for split, found in judged.items():
        values = exact.metrics(found.predictions)
        reporter.scores(found.step, split, {key: values[key] for key in ("top1", "top5", "loss")})


def conclude(run: Run, progress: Progress, judged: dict[str, Judged], step: int) -> Progress:
    """What an evaluation means for the run: it may be the best on the holdout, or one too many that is not."""
    progress = progress._replace(evaluated=step)
    if "holdout" not in judged or step == 0:
        return progress
    top1 = exact.metrics(judged["holdout"].predictions)["top1"]
    if top1 > progress.best_top1:
        return progress._replace(best_top1=top1, best_step=step)
    patience = run.cadence.patience
    if patience and step - progress.best_step >= patience and step < run.total_steps:
        return progress._replace(finished=f"Stopped early at step {step}: no better holdout top-1 since step "
                                          f"{progress.best_step}.")
    return progress


def write_evaluation(run: Run, judged: dict[str, Judged]) -> None:
    """Writes `workdir`/evaluation of the evaluation split, or of the holdout where there is none."""
    split = next((split for split in ("val", "holdout") if split in judged), None)
    if split is None:
        return
    config, (step, predictions, file_names) = run.config, judged[split]
    which = "averaged weights" if config.ema_decay else "weights"
    protocol = evaluating.protocol(run.dataset, config.dataset.eval_split if split == "val" else split, config,
                                   run.options.model, f"checkpoints/{step}", which)
    report.write_evaluation(os.path.join(run.workdir, "evaluation"), predictions,
                            Classes(run.dataset.classes, run.dataset.class_names), file_names=file_names,
                            records=run.judged[split].records, protocol=protocol)
