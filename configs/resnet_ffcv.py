"""ResNet-50 and ResNet-18 in 16 to 88 epochs by FFCV's recipes: https://github.com/libffcv/ffcv-imagenet.

SGD 0.9 with batch 4,096 and rate 1.7 (ResNet-18: 1,024 and 0.5) after 2 epochs of linear warm-up, then linearly to 0;
label smoothing 0.1, weight decay 1e-4 (5e-5) on everything but BatchNorm; images of 160 px, and of 192 from about four
fifths of the run on; judged at 256 px from 293 (a share of 224/256). Published top-1: see CHOICES (not measured here),
on 8 A100 in 15 to 77 minutes (ResNet-18 on one in 35 to 187).

    python -m imagenet_jax train --config=configs/resnet_ffcv.py:resnet50_16 --workdir=runs/resnet50_16

Readings: the batch of 512 in its files of ResNet-50 is that of each of 8 processes (so its issue 4), and BatchNorm has
the examples of a process; its ramp over several epochs, rounded to multiples of 32 px, is one boundary. Differs from
the source: no blurring before strided convolutions; the published logits are sums over an image and its mirror image;
its images are stored with at most 500 (400) px a side, and resized by area; it computes in float16 (on TPU and on
recent GPUs add --config.model.dtype=bfloat16), and the BatchNorm of shortcuts decays; the head starts as N(0, 0.01).
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

GROWN = {"88": 71, "56": 45, "40": 32, "32": 25, "24": 19, "16": 12}  # by epochs of a run: the first of 192 px
CHOICES = {  # top-1 in percent, minutes
    "resnet50_88": (78.4, 77.2), "resnet50_56": (78.0, 49.4), "resnet50_40": (77.2, 35.6),
    "resnet50_32": (76.6, 28.7), "resnet50_24": (75.6, 21.7), "resnet50_16": (73.8, 14.9),
    "resnet18_88": (72.4, 187.3), "resnet18_56": (71.3, 119.4), "resnet18_40": (70.6, 85.5),
    "resnet18_32": (70.0, 68.9), "resnet18_24": (68.8, 51.6), "resnet18_16": (66.9, 35.0),
}
NETWORKS = {"resnet50": (4096, 512, 1.7, 1e-4), "resnet18": (1024, 1024, 0.5, 5e-5)}  # batch, of a process, rate, decay


def claim(choice: str = "resnet50_88") -> Claim:
    (top1, minutes), (name, epochs) = CHOICES[choice], choice.split("_")
    return Claim(top1, f"libffcv/ffcv-imagenet, README.md, {name.replace('resnet', 'rn')}_{epochs}_epochs.yaml",
                 "256 px from 293, the centre and its mirror image",
                 hours=f"{'eight A100' if name == 'resnet50' else 'one A100'}, {minutes / 60:.2g} h")


def get_config(choice: str = "resnet50_88") -> ConfigDict:
    name, epochs = choice.split("_")
    batch, group, rate, weight_decay = NETWORKS[name]
    config = config_lib.base()
    config.duration = f"{epochs} epochs"
    config.global_batch = batch
    config.max_per_device_batch = group

    config.augment.size = 160
    config.augment.ramp = ((f"{GROWN[epochs]} epochs", 192),)
    config.view.size = 256
    config.view.resize = 293
    config.model.name = name
    config.model.bn_group = group

    config.loss.label_smoothing = 0.1
    config.optimizer.weight_decay = weight_decay
    config.optimizer.decay = r"(kernel|head/bias)$"
    config.schedule.peak = rate
    config.schedule.batch = batch
    config.schedule.warmup = "2 epochs"
    config.schedule.warmup_from = 1e-4 * rate
    config.schedule.decay = "polynomial"
    return config
