"""Writes torch_sgd.npz: what PyTorch makes of 20 steps of a small net, for test_step.py to compare with.

Run by hand where torch and numpy are installed (2.13 wrote the file that is here); the tests need neither it nor torch:

    python tests/training/make_torch_reference.py

The file holds the batches (`image` [steps, B, H, W, 3] uint8, `label` [steps, B]), `variants` (JSON: the recipe of
each), `initial/PATH` and, for each variant, `VARIANT/final/PATH`, `VARIANT/loss64` and `VARIANT/loss32` [steps], the
losses in both precisions. PATH is a parameter or running statistic by its Flax name, in Flax's layout, float64.
"""

import json
import math
import pathlib

import numpy as np
import torch
from torch import nn

STEPS, BATCH, SIZE, CLASSES = 20, 16, 12, 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in 0..1, as torchvision's references
SCHEDULE = {"peak": 0.2, "warmup": "5 steps", "final": 0.0}
RECIPE = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "clip_norm": 0.0}
VARIANTS = {
    "nesterov": RECIPE,
    "heavy_ball": RECIPE | {"nesterov": False},
    "no_momentum": RECIPE | {"nesterov": False, "momentum": 0.0},
    "clipped": RECIPE | {"clip_norm": 2.0},
}
LABEL_SMOOTHING = 0.1
STATISTICS = {"running_mean": "mean", "running_var": "var"}


class ResidualNet(nn.Module):
    """ResidualNet of stepping.py."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12)
        self.conv3, self.bn3 = nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12)
        self.pool, self.head = nn.MaxPool2d(3, 2, 1), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = (self.bn2(self.conv2(x)) + self.bn3(self.conv3(x))).relu()
        return self.head(self.pool(x).mean((2, 3)))


def variables(model: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and running statistics by Flax path, in Flax's layout."""
    flat = {}
    for path, value in model.state_dict().items():
        module, name = path.split(".")
        value = value.double().numpy()
        if name == "weight":
            name = "scale" if value.ndim == 1 else "kernel"
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        if name != "num_batches_tracked":
            flat[f"{module}/{STATISTICS.get(name, name)}"] = value.copy()
    return flat


def rate(step: int) -> float:
    """The learning rate of a step, as a share of the peak: up from 0 linearly, then down a cosine."""
    warm = int(SCHEDULE["warmup"].split()[0])
    return step / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (STEPS - warm))) / 2


def train(initial: dict, images: np.ndarray, labels: np.ndarray, dtype: torch.dtype, *, clip_norm: float,
          weight_decay: float, **options: float) -> tuple[nn.Module, list[float], list[float]]:
    """Runs a recipe; returns the trained net, and the loss and the gradient's norm at each step."""
    model = ResidualNet()
    model.load_state_dict(initial)
    model.to(dtype)
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
              {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, SCHEDULE["peak"], **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    losses, norms = [], []
    for image, label in zip(images, labels, strict=True):
        x = torch.from_numpy(image).to(dtype) / 255
        x = ((x - torch.tensor(MEAN, dtype=dtype)) / torch.tensor(STD, dtype=dtype)).permute(0, 3, 1, 2)
        loss = nn.functional.cross_entropy(model(x), torch.from_numpy(label).long(), label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if clip_norm:
            # Without the 1e-6 that PyTorch adds to the norm against division by zero.
            nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm - 1e-6)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        norms.append(norm.item())
    return model, losses, norms


def main() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    # Colour depends on the class, so that there is something to learn.
    labels = rng.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)
    images = rng.integers(0, 200, (STEPS, BATCH, SIZE, SIZE, 3), np.uint8)
    images[..., 0] += (labels * 10).astype(np.uint8)[..., None, None]
    model = ResidualNet().double()
    initial = {path: value.clone() for path, value in model.state_dict().items()}
    arrays = {"image": images, "label": labels, "label_smoothing": LABEL_SMOOTHING, "schedule": json.dumps(SCHEDULE),
              "variants": json.dumps(VARIANTS)}
    arrays |= {f"initial/{path}": value for path, value in variables(model).items()}
    for variant, recipe in VARIANTS.items():
        for bits, dtype in ((64, torch.float64), (32, torch.float32)):
            model, losses, norms = train(initial, images, labels, dtype, **recipe)
            arrays[f"{variant}/loss{bits}"] = np.array(losses)
            print(f"{variant}, {bits} bits: loss {losses[0]:.4f} to {losses[-1]:.4f}, "
                  f"gradient norm {min(norms):.3f} to {max(norms):.3f}")
            if bits == 64:
                arrays |= {f"{variant}/final/{path}": value for path, value in variables(model).items()}
    path = pathlib.Path(__file__).with_name("torch_sgd.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
