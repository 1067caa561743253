"""Evaluate a checkpoint or published weights exactly; write metrics, report, confusion matrix and predictions."""

from typing import Any

from absl import flags

from imagenet_jax.commands import _hosts, _network

NETWORK = _network.define_flags("is evaluated")
LIBRARY = flags.DEFINE_enum("library", "", ["", "tf", "pil"], "What crops the images: 'pil' gives torchvision's pixels "
                            "bit for bit; by default the run's, 'pil' for a file.")
CROPS = flags.DEFINE_integer("crops", None, "How many of an image its probabilities are averaged over: 1, the centre; "
                             "5, the corners too; 10, these and their mirror images; 50, a grid of 25 and their mirror "
                             "images. By default the run's.")
SIZE = flags.DEFINE_integer("size", None, "Px, side of a crop; by default the run's.")
RESIZE = flags.DEFINE_integer("resize", None, "Px, shorter side before the crop; by default in proportion to it.")
SCALES = flags.DEFINE_list("scales", None, "Or several shorter sides, 256,288,320, that are averaged over as well.")
BN_EXAMPLES = flags.DEFINE_integer("bn_examples", 0, "Training examples that BatchNorm's statistics are taken from "
                                   "anew, as this evaluation sees them; by default they are the checkpoint's.",
                                   lower_bound=0)
DATASET = flags.DEFINE_string("dataset", "", "A prepared dataset; by default the run's, or IMAGENET_DIR.")
SPLIT = flags.DEFINE_string("split", "", "By default the run's evaluation split; 'holdout' for what it kept out of the "
                            "training split.")
PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "Write the probabilities of every class as probabilities.npy, for `clean`.")
BATCH = flags.DEFINE_integer("batch", 0, "Examples at a time over all devices; changes no metric.", lower_bound=0)
OUT = flags.DEFINE_string("out", "", "Where the results go; by default RUN/evaluation.")
HOSTS = _hosts.define_flags()
flags.mark_flags_as_mutual_exclusive(["resize", "scales"])


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    from imagenet_jax import runtime

    view = _view()
    runtime.configure()
    from imagenet_jax import hosts
    from imagenet_jax.training import evaluating

    path, model_name = NETWORK()
    with hosts.joined(**HOSTS()):
        results = evaluating.evaluate_checkpoint(
            path, model_name=model_name, dataset_dir=DATASET.value, split=SPLIT.value, batch=BATCH.value,
            out=OUT.value, view=view, bn_examples=BN_EXAMPLES.value, probabilities=PROBABILITIES.value)
        if not hosts.is_first():
            return
    metrics, protocol = results["metrics"], results["protocol"]
    print(f"{protocol['dataset']}/{protocol['split']}, {protocol['checkpoint']}: top-1 {metrics['top1']:.2%}, "
          f"top-5 {metrics['top5']:.2%}, loss {metrics['loss']:.4f} on {metrics['seen']:,} examples")


def _view() -> dict[str, Any]:
    """The keys of `config.view` that the flags set."""
    from imagenet_jax.errors import UserError

    try:
        scales = SCALES.value and tuple(map(int, SCALES.value))
    except ValueError:
        raise UserError(f"--scales={','.join(SCALES.value)} are no whole numbers of px; such are 256,288,320") from None
    found = {"library": LIBRARY.value, "crops": CROPS.value, "size": SIZE.value, "resize": RESIZE.value,
             "scales": scales}
    return {key: value for key, value in found.items() if value not in (None, "")}
