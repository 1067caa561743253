"""Our weights as a file, into PyTorch's library with strict=True, and back, for every model that a library has.

    PYTHONPATH=. python tests/models/round_trip.py [MODEL...]     (in the environment of make_references.py)

writes round_trip.csv beside this file: the largest difference of the two networks' logits at 161 px as a share of
their range, and whether the library's state_dict, read back from its own .pth file, is bit-exact.
"""

import csv
import pathlib
import sys
import tempfile

import numpy as np
import parity
import safetensors.torch
import torch
from drawn_weights import draw_images
from flax import traverse_util
from make_references import build, to_torch

from imagenet_jax import models
from imagenet_jax.models import weights

TABLE = pathlib.Path(__file__).parent / "round_trip.csv"


@torch.no_grad()
def row(name: str) -> dict[str, object]:
    """What became of a model's weights on their way through its library."""
    variables, library = parity.drawn_variables(name), models.find(name).reference
    flat = traverse_util.flatten_dict(variables, sep="/")
    theirs = build(library, name).eval()
    with tempfile.TemporaryDirectory() as directory:
        weights.write(f"{directory}/ours.safetensors",
                      weights.to_torch(name, variables["params"], variables.get("batch_stats", {})))
        for parameter in theirs.parameters():
            parameter.zero_()
        theirs.load_state_dict(safetensors.torch.load_file(f"{directory}/ours.safetensors"), strict=True)
        torch.save(theirs.state_dict(), f"{directory}/theirs.pth")
        back = weights.from_torch(name, weights.read(f"{directory}/theirs.pth"), list(flat))
    wanted = theirs(to_torch(draw_images(161, 2))).numpy()[:, ::10]
    exact = back.keys() == flat.keys() and all(np.array_equal(back[path], flat[path]) for path in flat)
    return {"model": name, "library": library, "logits": f"{parity.difference(parity.logits(name, 161), wanted):.1e}",
            "bit_exact": exact}


if __name__ == "__main__":
    rows = {line["model"]: line for line in csv.DictReader(TABLE.open())} if TABLE.exists() else {}
    for name in sys.argv[1:] or [name for name, spec in models.REGISTRY.items() if spec.reference]:
        rows[name] = row(name)
        print(*rows[name].values(), flush=True)
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, ("model", "library", "logits", "bit_exact"))
            writer.writeheader()
            writer.writerows(rows[known] for known in models.REGISTRY if known in rows)
