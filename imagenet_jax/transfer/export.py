"""Weights of a run for other frameworks."""

import os

from imagenet_jax import checkpoint
from imagenet_jax.models import weights


def to_torch(path: str, out: str, library: str = "", fold: bool = False) -> str:
    """Writes the weights of a checkpoint as a .safetensors file that torchvision's or timm's model loads strictly.

    Args:
        path: a workdir, its `best`, or one checkpoint; its moving average is written if it has one.
        out: the file.
        library: 'torchvision' or 'timm'; by default that of the model's reference.
        fold: without BatchNorms, see `weights.to_torch`; such a file fits a model whose BatchNorms are folded, too.

    Returns:
        A sentence about what was written.

    Raises:
        UserError: no checkpoint there, or a model that the library has not.
    """
    directory, step = checkpoint.resolve(path)
    items, meta = checkpoint.read(path, ("params", "batch_stats", "ema"))
    name = meta["config"]["model"]["name"]
    library = library or next(iter(weights.libraries(name)), "")
    arrays = weights.to_torch(name, items["ema"] or items["params"], items["batch_stats"], library, fold)
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    weights.write(out, arrays, model=name, library=library, checkpoint=f"{directory}/{step}",
                  dataset=str(meta["dataset"]))
    return (f"{out}: {len(arrays)} tensors of {name} as {library} names them, "
            f"{'moving average' if items['ema'] else 'weights'} of {directory}/{step}")
