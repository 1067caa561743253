"""Our weights as a file, into PyTorch's library with strict=True, and back, for every model that a library has.

    PYTHONPATH=. python tests/models/round_trip.py [MODEL...]     (in the environment of make_references.py)

writes round_trip.csv beside this file: for each library whose names are known, the largest difference of the two
networks' logits as a share of their range, and whether the library's state_dict read back is bit-exact.
"""

import collections
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
from make_references import build, quiet_registration, to_torch

from imagenet_jax import models
from imagenet_jax.models import weights

TABLE = pathlib.Path(__file__).parent / "round_trip.csv"
# Where the two libraries name a network differently.
TIMM = {"vit_b_16": "vit_base_patch16_224", "vit_b_32": "vit_base_patch32_224", "vit_l_16": "vit_large_patch16_224",
        "vit_l_32": "vit_large_patch32_224", "mobilenet_v2": "mobilenetv2_100"}


def reference_in(name: str, library: str) -> str:
    """'library:model' of a model of ours."""
    reference = models.find(name).reference
    return reference if reference.startswith(library) else f"{library}:{TIMM.get(name, name)}"


@torch.no_grad()
def row(name: str, library: str) -> dict[str, object]:
    """What became of a model's weights on their way through a library."""
    size = parity.sizes(name)[2] if not name.startswith("vit") else 160
    model = parity.build(name)
    variables = parity.drawn_variables(name, model, size)
    flat = traverse_util.flatten_dict(variables, sep="/")
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/{name}.safetensors"
        weights.write(path, weights.to_torch(name, variables["params"], variables.get("batch_stats", {}), library))
        state = safetensors.torch.load_file(path)
    theirs = build(reference_in(name, library), size).eval()
    versions = getattr(theirs.state_dict(), "_metadata", None)
    state = collections.OrderedDict(state)
    state._metadata = versions  # MNASNet asks for its version, which no .safetensors file holds
    theirs.load_state_dict(state, strict=True)
    images = draw_images(size, 2)
    wanted = theirs(to_torch(images)).numpy()
    got = parity.jax.jit(model.apply, compiler_options=parity.FAST_COMPILE)(variables, images)
    back = weights.from_torch(name, {key: value.numpy() for key, value in theirs.state_dict().items()}, list(flat))
    exact = back.keys() == flat.keys() and all(np.array_equal(back[path], flat[path]) for path in flat)
    return {"model": name, "library": library, "logits": f"{parity.difference(np.asarray(got), wanted):.1e}",
            "bit_exact": exact}


if __name__ == "__main__":
    quiet_registration()
    rows = {(r["model"], r["library"]): r for r in csv.DictReader(TABLE.open())} if TABLE.exists() else {}
    for name in sys.argv[1:] or models.REGISTRY:
        for library in weights.libraries(name):
            rows[name, library] = row(name, library)
            print(*rows[name, library].values(), flush=True)
            with TABLE.open("w", newline="") as file:
                writer = csv.DictWriter(file, ("model", "library", "logits", "bit_exact"))
                writer.writeheader()
                writer.writerows(rows[key] for key in sorted(rows, key=lambda key: list(models.REGISTRY).index(key[0])))
