"""Find the pictures that a network sees as most like one, or as most like a class, in an index made once.

    search --checkpoint=C --index=DIR photos/ more.tar          makes it, of files as `predict` takes them, or --dataset
    search --index=DIR --query=photo.jpg                        the ten most similar, as a line of JSON
"""

import json
import os
import sys
from typing import Any

from absl import flags

from imagenet_jax.commands import _network, _pictures
from imagenet_jax.errors import UserError

ARGUMENTS = "[FILE ...]"

INDEX = flags.DEFINE_string("index", None, "The folder of the index, to make or to search.", required=True)
NETWORK = _network.define_flags("makes the features of an index", required=False)
DATASET = flags.DEFINE_string("dataset", "", "In the place of files: a prepared dataset, whose labels are kept.")
SPLIT = flags.DEFINE_string("split", "validation", "Of that dataset.")
PIXELS = flags.DEFINE_bool("pixels", False, "Keep each picture as 32 x 32 px in the index, too: --precision then says "
                           "what these alone would find.")
QUERY = flags.DEFINE_string("query", "", "A picture to find others like, or several: a file, a folder, a tar, a "
                            "pattern. The index knows its network.")
QUERY_CLASS = flags.DEFINE_string("query_class", "", "Or a class of the index, by id or name, to find what is most "
                                  "like the mean of its pictures.")
PRECISION = flags.DEFINE_bool("precision", False, "How many of the nearest others of each picture are of its class, by "
                              "class; DIR/precision.json has it, too.")
TOPK = flags.DEFINE_integer("topk", 10, "How many pictures to find.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds its name and the files."""
    making = bool(argv[1:] or DATASET.value)
    if not (making or QUERY.value or QUERY_CLASS.value or PRECISION.value):
        raise UserError("search what? Give --query=PHOTO, --query_class=NAME or --precision; or, to make the index, "
                        "files or --dataset=DIR")
    if argv[1:] and DATASET.value:
        raise UserError("an index is made of files, or of a --dataset: give one of them")
    from imagenet_jax import runtime

    runtime.configure()
    from imagenet_jax.inference import index as index_lib

    failed = _make(argv[1:]) if making else 0
    index = index_lib.open_index(INDEX.value)
    if QUERY_CLASS.value:
        _query_class(index)
    if QUERY.value:
        failed += _query(index)
    if PRECISION.value:
        _precision(index)
    if failed:
        sys.exit(1)


def _make(names: list[str]) -> int:
    """Makes the index; returns how many pictures it could not take."""
    from tqdm import tqdm

    from imagenet_jax import dataset
    from imagenet_jax.classes import Classes
    from imagenet_jax.inference import index as index_lib
    from imagenet_jax.inference import predict
    from imagenet_jax.training import evaluating

    index_lib.check_place(INDEX.value)
    (path, model_name), classes = NETWORK(), None
    if not path:
        raise UserError("which network makes the index? Give --checkpoint=C or --workdir=RUN")
    trained, images = evaluating.open_trained(path, model_name), _pictures.named(names, DATASET.value, SPLIT.value)
    if DATASET.value:
        described = dataset.open_dataset(DATASET.value)
        classes = Classes(described.classes, described.class_names)
    found = predict.predict(trained, images, predict.Asked(1, features=True, pixels=PIXELS.value))
    made = index_lib.write(INDEX.value, tqdm(found, total=images.count, unit=" images", disable=None),
                           index_lib.network_of(trained, path, model_name),
                           index_lib.source_of(DATASET.value, SPLIT.value), classes)
    print(f"{INDEX.value}: {made.count:,} pictures as {trained.config.model.name} sees them, {trained.which} of "
          f"{trained.source}", file=sys.stderr)
    for name, fault in made.faults:
        print(f"left out: {name}: {fault}", file=sys.stderr)
    return len(made.faults)


def _query(index: Any) -> int:
    """Prints a line for each picture asked about; returns how many have an error."""
    from imagenet_jax.inference import index as index_lib
    from imagenet_jax.inference import predict, retrieval
    from imagenet_jax.training import evaluating

    path, model_name = NETWORK()
    if not path:
        path, model_name = index.network["path"], index.network["model"]
    trained, images = evaluating.open_trained(path, model_name), _pictures.named([QUERY.value])
    index_lib.check_network(index, trained)
    found = list(predict.predict(trained, images, predict.Asked(1, features=True)))
    for each, near in zip(found, retrieval.most_like(index, found, TOPK.value), strict=True):
        picture = each.picture
        _say({"file": picture.name} | ({"error": picture.fault} if picture.fault else
                                       {"nearest": retrieval.hits(index, *near)}))
    return sum(bool(each.picture.fault) for each in found)


def _query_class(index: Any) -> None:
    from imagenet_jax.classes import find
    from imagenet_jax.inference import retrieval

    if index.labels is None:
        raise UserError(f"the index {INDEX.value} knows no classes: it was not made of a dataset")
    label = find(QUERY_CLASS.value, index.classes)
    cosines, places = retrieval.nearest(
        index.vectors["features"], retrieval.mean_of_class(index, label)[None], TOPK.value)
    _say({"class": index.classes.ids[label], "nearest": retrieval.hits(index, cosines[0], places[0])})


def _precision(index: Any) -> None:
    import functools

    from tqdm import tqdm

    from imagenet_jax import durable
    from imagenet_jax.inference import retrieval

    found = retrieval.precision_of(index, TOPK.value, functools.partial(tqdm, unit=" x 1024 pictures", disable=None))
    print(retrieval.table(found))
    with durable.create(os.path.join(INDEX.value, "precision.json")) as file:
        json.dump(found, file, indent=1)


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found, ensure_ascii=False))
