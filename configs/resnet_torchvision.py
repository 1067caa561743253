"""ResNet-18 to 152 on ImageNet: He et al. (https://arxiv.org/abs/1512.03385) by torchvision's recipe.

SGD 0.9 with batch 256, rate 0.1 divided by 10 every 30 epochs, weight decay 1e-4 on everything, 90 epochs;
random-resized-crop and flip: torchvision/references/classification (train.py --model NAME, whose 8 processes of 32
examples are the bn_group here). Published top-1: see CHOICES, of the weights IMAGENET1K_V1 (not measured here).

    python -m imagenet_jax train --config=configs/resnet_torchvision.py:resnet18 --workdir=runs/resnet18

Differs from the source: the head starts as N(0, 0.01) with biases of 0, where PyTorch draws both from
U(+-1/sqrt(inputs)); crops are not antialiased (augment.antialias=True makes them so, at half the speed of input).
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

CHOICES = {"resnet18": 69.758, "resnet34": 73.314, "resnet50": 76.130, "resnet101": 77.374, "resnet152": 78.312}


def claim(choice: str = "resnet18") -> Claim:
    return Claim(CHOICES[choice], f"torchvision, {choice.replace('resnet', 'ResNet')}_Weights.IMAGENET1K_V1",
                 "224 px from 256, single crop")


def get_config(choice: str = "resnet18") -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = 256

    config.model.name = choice
    config.model.bn_group = 32

    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.1
    config.schedule.batch = 256
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs")
    config.schedule.per_epoch = True
    return config
