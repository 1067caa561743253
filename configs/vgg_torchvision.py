"""VGG-11 to 19 with and without BatchNorm (https://arxiv.org/abs/1409.1556) by torchvision's recipe.

SGD 0.9 with batch 256, rate 0.01 divided by 10 every 30 epochs, weight decay 1e-4 on everything, 90 epochs;
random-resized-crop and flip: torchvision/references/classification (train.py --model NAME --lr 1e-2, whose 8 processes
of 32 examples are the bn_group here). Published top-1: see CHOICES, of the weights IMAGENET1K_V1 (not measured here).

    python -m imagenet_jax train --config=configs/vgg_torchvision.py:vgg16_bn --workdir=runs/vgg16_bn

Differs from the source: crops are not antialiased (augment.antialias=True makes them so, at half the speed of input).
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

CHOICES = {"vgg11": 69.020, "vgg13": 69.928, "vgg16": 71.592, "vgg19": 72.376,
           "vgg11_bn": 70.370, "vgg13_bn": 71.586, "vgg16_bn": 73.360, "vgg19_bn": 74.218}


def claim(choice: str = "vgg16_bn") -> Claim:
    return Claim(CHOICES[choice], f"torchvision, {choice.upper()}_Weights.IMAGENET1K_V1",
                 "224 px from 256, single crop")


def get_config(choice: str = "vgg16_bn") -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = 256

    config.model.name = choice
    config.model.dropout = 0.5
    if choice.endswith("_bn"):
        config.model.bn_group = 32

    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.01
    config.schedule.batch = 256
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs")
    config.schedule.per_epoch = True
    return config
