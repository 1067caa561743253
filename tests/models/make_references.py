"""Makes references/NAME.npz: what PyTorch's libraries compute with drawn weights, for parity tests without them.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 jax==0.10.2 flax==0.12.8
    PYTHONPATH=. python tests/models/make_references.py [MODEL...]      (by default every model that lacks its file)

Weights follow `drawn_weights.draw`. A file holds every tenth logit of two images in evaluation, at the native size
(`native`) and at another (`other`), and, after one forward of four images in training without dropout, the running
statistics of four channels of every BatchNorm in the order of their names (`statistics`, [layers, mean and var, 4]).
"""

import pathlib
import sys

import numpy as np
import torch
from drawn_weights import draw, draw_images, sizes

from imagenet_jax import models

REFERENCES = pathlib.Path(__file__).parent / "references"


def build(reference: str, size: int) -> torch.nn.Module:
    """The library's model, without dropout or drop path, with drawn weights."""
    library, name = reference.split(":")
    options = {}
    if library == "timm":
        import timm

        options = {"img_size": size} if name.startswith("vit") else {}
        model = timm.create_model(name, pretrained=False, **options)
    else:
        import torchvision

        options = {"image_size": size} if name.startswith("vit") else {}
        if name in ("googlenet", "inception_v3"):
            options = {"init_weights": False, "aux_logits": True}
        model = getattr(torchvision.models, name)(**options)
    for module in model.modules():
        if "Drop" in type(module).__name__ or type(module).__name__ == "StochasticDepth":
            module.p = module.drop_prob = 0.0
        if type(module).__name__ == "DenseLayer" or hasattr(module, "drop_rate"):
            module.drop_rate = 0.0
    state = model.state_dict()  # changed in place: it also carries versions, which MNASNet asks for
    for key, value in state.items():
        state[key] = torch.from_numpy(draw(key, tuple(value.shape)))
    model.load_state_dict(state)
    return model


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@torch.no_grad()
def make(name: str) -> dict[str, np.ndarray]:
    """The arrays of references/NAME.npz."""
    reference = models.find(name).reference
    native, other, train = sizes(name, models.find(name).size)
    out = {}
    for key, size in (("native", native), ("other", other)):
        model = build(reference, size).eval()
        out[key] = model(to_torch(draw_images(size, 2))).numpy()[:, ::10]
    model = build(reference, train).train()
    model(to_torch(draw_images(train, 4)))
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    norms = sorted(key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean"))
    out["statistics"] = np.array([[state[f"{norm}.running_mean"][:4], state[f"{norm}.running_var"][:4]]
                                  for norm in norms], np.float32)
    return out


def quiet_registration() -> None:
    """Lets torchvision be imported without its compiled operators, which no classification model needs."""
    register = torch.library.register_fake

    def register_fake(*args, **kwargs):
        def decorate(function):
            try:
                return register(*args, **kwargs)(function)
            except RuntimeError:
                return function
        return decorate

    torch.library.register_fake = register_fake


if __name__ == "__main__":
    quiet_registration()
    REFERENCES.mkdir(exist_ok=True)
    named = [name for name, spec in models.REGISTRY.items() if spec.reference]
    for name in sys.argv[1:] or [name for name in named if not (REFERENCES / f"{name}.npz").exists()]:
        arrays = make(name)
        np.savez(REFERENCES / f"{name}.npz", **arrays)
        spread = [f"{np.ptp(arrays[key]):.3g} +- {np.ptp(arrays[key], 0).max():.3g}" for key in ("native", "other")]
        print(name, "range and difference between the images", *spread, flush=True)
