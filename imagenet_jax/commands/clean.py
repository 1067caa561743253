"""Look for bad images, duplicates, leaks and wrong labels; write a manifest of them and a report with pictures."""

from absl import flags

DATASET = flags.DEFINE_string("dataset", "", "A prepared dataset; by default IMAGENET_DIR. It is only read.")
OUT = flags.DEFINE_string("out", None, "Where manifest.jsonl, report.md and the measurements go.")
PROBABILITIES = flags.DEFINE_list(
    "probabilities", [], "Files of `evaluate --split=holdout --probabilities`, one a fold; * is expanded.")
RUNNER = flags.DEFINE_string(
    "runner", "local", "Who measures: local processes, or an Apache Beam runner such as DirectRunner, FlinkRunner or "
    "DataflowRunner.")
RUNNER_OPTIONS = flags.DEFINE_list("runner_options", [], "Options of the Beam runner, as name=value,name=value.")
WORKERS = flags.DEFINE_integer("workers", 0, "Local processes; by default one a core.", lower_bound=0)
flags.mark_flags_as_required(["out"])


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    import functools

    from imagenet_jax import config
    from imagenet_jax.cleaning import clean, measure

    run = functools.partial(measure.run_local, workers=WORKERS.value)
    if RUNNER.value != "local":
        options = [f"--{option.lstrip('-')}" for option in RUNNER_OPTIONS.value]
        run = functools.partial(measure.run_beam, runner=RUNNER.value, options=options)
    cleaned = clean.clean(config.dataset_dir(DATASET.value), OUT.value, clean.expand(PROBABILITIES.value), run)
    splits = list(next(iter(cleaned.counts.values())))
    row = "{:<16}" + "{:>12}" * len(splits)
    print(row.format("flag", *splits))
    for flag, counts in cleaned.counts.items():
        print(row.format(flag, *(f"{counts[split]:,}" for split in splits)))
    if cleaned.covered:
        print(f"label_error: among {cleaned.covered:,} examples with probabilities, which agree with "
              f"{cleaned.agreement:.1%} of the labels; a weak model suspects more than is wrong")
    print(f"{cleaned.manifest}\n{cleaned.report}")
