"""Say what is on pictures: FILE is an image, a folder, a tar, a pattern such as '*.jpg', or - for names on stdin."""

import sys

from absl import flags

from imagenet_jax.commands import _network, _pictures
from imagenet_jax.errors import UserError

ARGUMENTS = "FILE ..."

NETWORK = _network.define_flags("is asked")
DATASET = flags.DEFINE_string("dataset", "", "In the place of files: a prepared dataset.")
SPLIT = flags.DEFINE_string("split", "validation", "Of that dataset.")
CLASSES = flags.DEFINE_string("classes", "", "Only these of the network's classes count: a file as `prepare --classes` "
                              "takes it, whose order gives the labels.")
TOPK = flags.DEFINE_integer("topk", 5, "How many classes of each picture, the best first.", lower_bound=1)
FORMAT = flags.DEFINE_enum("format", "json", ["json", "csv"], "An object a line, or a table.")
OUT = flags.DEFINE_string("out", "", "The file to write; by default stdout.")
FEATURES = flags.DEFINE_string("features", "", "A .npy file for the pooled features, float32, a row for each line.")
ANNOTATE = flags.DEFINE_string("annotate", "", "In the place of lines: a CSV of labels to look through, the least "
                               "certain first, that `prepare --images` reads; an empty label there is for none.")
EXPLAIN = flags.DEFINE_string("explain", "", "A folder for pictures of where the network looked: Grad-CAM of the best "
                              "class over the crop, called like the picture with .png behind.")
BATCH = flags.DEFINE_integer("batch", 0, "Pictures at a time over all devices; changes no prediction.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds its name and the files."""
    from imagenet_jax import runtime

    _check(argv[1:])
    runtime.configure()
    from tqdm import tqdm

    from imagenet_jax.inference import explain, predict, writing
    from imagenet_jax.training import evaluating

    trained = evaluating.open_trained(*NETWORK())
    images = _pictures.named(argv[1:], DATASET.value, SPLIT.value)
    classes, columns = predict.counting(CLASSES.value, trained.classes)
    asked = predict.Asked(2 if ANNOTATE.value else TOPK.value, bool(FEATURES.value), bool(EXPLAIN.value),
                          columns=columns)
    failed = mended = 0
    lines_seen = not (OUT.value or ANNOTATE.value) and sys.stdout.isatty()
    hidden = lines_seen or None  # None: unless stderr is a terminal
    writer = writing.proposals(ANNOTATE.value, classes) if ANNOTATE.value else writing.lines(
        OUT.value, FORMAT.value, classes, TOPK.value)
    with writer as write, writing.features(FEATURES.value, images.count) as keep:
        for prediction in tqdm(predict.predict(trained, images, asked, BATCH.value), total=images.count,
                               unit=" images", disable=hidden):
            write(prediction)
            keep(prediction)
            if prediction.heat is not None:
                explain.draw(EXPLAIN.value, prediction.picture.name, prediction.crop, prediction.heat)
            failed += bool(prediction.picture.fault)
            mended += bool(prediction.picture.mended)
    if mended:
        print(f"{mended} of {images.count} pictures were mended", file=sys.stderr)
    if failed:
        print(f"{failed} of {images.count} pictures could not be read or decoded", file=sys.stderr)
        sys.exit(1)


def _check(names: list[str]) -> None:
    """Raises UserError if the flags do not go together."""
    if bool(names) == bool(DATASET.value):
        raise UserError("predict what? Name files, folders, tars or patterns, - for names on stdin; or --dataset=DIR")
    if ANNOTATE.value and (DATASET.value or any(name.lower().endswith(".tar") for name in names)):
        raise UserError("--annotate lists files, which `prepare` cannot find in a tar or a dataset: name a folder")
    if ANNOTATE.value and not ANNOTATE.value.lower().endswith(".csv"):
        raise UserError(f"--annotate={ANNOTATE.value}: call it .csv, by which `prepare` knows a table")
    if ANNOTATE.value and (OUT.value or FEATURES.value):
        raise UserError("--annotate writes a table of an order of its own: leave out --out and --features")
