"""Makes references/NAME.npz: what PyTorch's libraries compute with drawn weights, for parity tests without them.

    pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 jax==0.10.2 flax==0.12.8
    PYTHONPATH=. python tests/models/make_references.py [MODEL...]      (by default every model that lacks its file)

Weights follow `drawn_weights.draw`. A file holds the number of `params`; of every tenth class, the logits of two images
in evaluation at the native size (`native`) and at another (`other`); and after one forward of four images in training
without dropout, the logits of the auxiliary heads (`aux`, [heads, 4, classes]) and the running statistics of four
channels of every BatchNorm in the order of their names (`statistics`, [layers, mean and var, 4]).
"""

import pathlib
import sys

import numpy as np
import timm
import torch
import torchvision
from drawn_weights import draw, draw_images, sizes

from imagenet_jax import models

REFERENCES = pathlib.Path(__file__).parent / "references"


def build(library: str, name: str) -> torch.nn.Module:
    """The library's model, without dropout or drop path, with drawn weights."""
    if library == "timm":
        model = timm.create_model(name, pretrained=False)
    else:
        options = {"init_weights": False, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
        model = getattr(torchvision.models, name)(**options)
    for module in model.modules():
        if "Drop" in type(module).__name__ or type(module).__name__ == "StochasticDepth":
            module.p = module.drop_prob = 0.0
    model.load_state_dict({key: torch.from_numpy(draw(key, tuple(value.shape)))
                           for key, value in model.state_dict().items()})
    return model


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@torch.no_grad()
def make(name: str) -> dict[str, np.ndarray]:
    """The arrays of references/NAME.npz."""
    spec = models.find(name)
    native, other, train = sizes(name, spec.size)
    model = build(spec.reference, name)
    out = {"params": np.array(sum(p.numel() for p in model.parameters()))}
    model.eval()
    for key, size in (("native", native), ("other", other)):
        out[key] = model(to_torch(draw_images(size, 2))).numpy()[:, ::10]
    result = model.train()(to_torch(draw_images(train, 4)))
    heads = {} if isinstance(result, torch.Tensor) else result._asdict()
    out["aux"] = np.array([heads[key].numpy()[:, ::10] for key in sorted(heads) if key.startswith("aux")])
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    norms = sorted(key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean"))
    out["statistics"] = np.array([[state[f"{norm}.running_mean"][:4], state[f"{norm}.running_var"][:4]]
                                  for norm in norms], np.float32)
    return out


if __name__ == "__main__":
    REFERENCES.mkdir(exist_ok=True)
    named = [name for name, spec in models.REGISTRY.items() if spec.reference]
    for name in sys.argv[1:] or [name for name in named if not (REFERENCES / f"{name}.npz").exists()]:
        arrays = make(name)
        np.savez(REFERENCES / f"{name}.npz", **arrays)
        spread = [f"{np.ptp(arrays[key]):.3g} +- {np.ptp(arrays[key], 0).max():.3g}" for key in ("native", "other")]
        print(name, "range and difference between the images", *spread, flush=True)
