"""A dataset that `tfds build` made, as a stream of examples to convert.

TFDS reads it, for it verifies the checksum of every record, which `tfds_build.py` does not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagenet_jax.data.examples import Example, Source
from imagenet_jax.errors import UserError


def open_tfds(directory: str, name: str) -> Source:
    """A directory such as imagenet2012/5.1.0, or the one above its versions; images are not decoded.

    Raises:
        UserError: no TFDS dataset, or one without images and class labels.
    """
    import tensorflow_datasets as tfds

    root = Path(directory)
    found = sorted(root.glob("**/dataset_info.json"))
    if len(found) != 1:
        raise UserError(f"{root} holds {len(found)} TFDS datasets (dataset_info.json): give the directory of one, "
                        "such as imagenet2012/5.1.0.")
    builder = tfds.builder_from_directory(found[0].parent)
    features = dict(builder.info.features.items())
    if not isinstance(features.get("image"), tfds.features.Image) or not isinstance(
            features.get("label"), tfds.features.ClassLabel):
        raise UserError(f"{found[0].parent} has the features {', '.join(features)}: an image and a class label are "
                        "needed, as imagenet2012 has them.")
    classes = tuple(features["label"].names)
    splits = {split: info for split, info in builder.info.splits.items() if info.num_examples and split != "test"}
    return Source(name, classes, classes, {split: _examples(builder, split) for split in splits},
                  totals={split: info.num_examples for split, info in splits.items()},
                  sizes={split: info.num_bytes for split, info in splits.items()}, origin=str(found[0].parent))


def _examples(builder: Any, split: str) -> Iterator[Example]:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    rows = builder.as_dataset(
        split=split, shuffle_files=False, decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=True, try_autocache=False))
    try:
        for row in rows.as_numpy_iterator():
            file_name = row.get("file_name", row["tfds_id"]).decode(errors="replace")
            yield Example(row["image"], int(row["label"]), file_name)
    except tf.errors.OpError as error:
        raise UserError(f"The '{split}' split in {builder.data_dir} cannot be read to its end: {error.message}. Build "
                        "or copy it again.") from error
