"""Evaluate a checkpoint or published weights exactly; write metrics, report, confusion matrix and predictions."""

from absl import flags

from imagenet_jax.commands import _hosts

WORKDIR = flags.DEFINE_string("workdir", None, "The run whose last checkpoint is evaluated.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Or a checkpoint: RUN/checkpoints/STEP, or RUN/best; or a file of "
                                 "weights, .safetensors or .pth; or a network whose published weights are installed.")
MODEL = flags.DEFINE_string("model", "", "The network that a file of weights is of, if it does not say so itself.")
LIBRARY = flags.DEFINE_enum("library", "", ["", "tf", "pil"], "What crops the images: 'pil' gives torchvision's pixels "
                            "bit for bit; by default the run's, 'pil' for a file.")
DATASET = flags.DEFINE_string("dataset", "", "A prepared dataset; by default the run's, or IMAGENET_DIR.")
SPLIT = flags.DEFINE_string("split", "", "By default the run's evaluation split; 'holdout' for what it kept out of the "
                            "training split.")
PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "Write the probabilities of every class as probabilities.npy, for `clean`.")
BATCH = flags.DEFINE_integer("batch", 0, "Examples at a time over all devices; changes no metric.", lower_bound=0)
OUT = flags.DEFINE_string("out", "", "Where the results go; by default RUN/evaluation.")
HOSTS = _hosts.define_flags()
flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=True)


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    from imagenet_jax import runtime

    runtime.configure()
    from imagenet_jax import hosts
    from imagenet_jax.training import evaluating

    with hosts.joined(**HOSTS()):
        results = evaluating.evaluate_checkpoint(
            WORKDIR.value or CHECKPOINT.value, model_name=MODEL.value, dataset_dir=DATASET.value, split=SPLIT.value,
            batch=BATCH.value, out=OUT.value, library=LIBRARY.value, probabilities=PROBABILITIES.value)
        if not hosts.is_first():
            return
    metrics, protocol = results["metrics"], results["protocol"]
    print(f"{protocol['dataset']}/{protocol['split']}, {protocol['checkpoint']}: top-1 {metrics['top1']:.2%}, "
          f"top-5 {metrics['top5']:.2%}, loss {metrics['loss']:.4f} on {metrics['seen']:,} examples")
