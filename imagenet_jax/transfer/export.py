"""Weights of a run for other frameworks."""

import json

from imagenet_jax import checkpoint
from imagenet_jax.models import weights


def to_torch(path: str, out: str, dialect: str = "") -> str:
    """Writes the weights of a checkpoint as a .safetensors file that a PyTorch library's model loads strictly.

    Args:
        path: a workdir, its `best`, or one checkpoint; its moving average is written if it has one.
        out: the file.
        dialect: 'torchvision', 'timm', ...; by default that of the model's reference.

    Returns:
        A sentence about what was written.

    Raises:
        UserError: no checkpoint there, or a model that the library has not.
    """
    directory, step = checkpoint.resolve(path)
    variables, meta, which = checkpoint.read_weights(path)
    name = meta["config"]["model"]["name"]
    dialect = dialect or next(iter(weights.dialects(name)), "")
    arrays = weights.to_torch(name, variables["params"], variables["batch_stats"], dialect)
    notes = {"view": json.dumps(meta["config"]["view"])} | (
        {"classes": json.dumps(meta["classes"])} if "classes" in meta else {})
    weights.write(out, arrays, model=name, library=dialect, checkpoint=f"{directory}/{step}", **notes)
    return (f"{out}: {len(arrays)} tensors of {name} as {dialect} names them, "
            f"{which} of {directory}/{step}")
