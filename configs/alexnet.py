"""AlexNet on ImageNet: Krizhevsky's "One weird trick" (https://arxiv.org/abs/1404.5997), torchvision's variant.

SGD 0.9 with batch 256, rate 0.01 divided by 10 every 30 epochs, weight decay 1e-4 on everything, 90 epochs;
random-resized-crop and flip: torchvision/references/classification (train.py --model alexnet --lr 1e-2).
Published top-1 56.52%, top-5 79.07% (torchvision, AlexNet_Weights.IMAGENET1K_V1; not measured here).

    python -m imagenet_jax train --config=configs/alexnet.py --workdir=runs/alexnet

Differs from the source: crops are not antialiased (augment.antialias=True makes them so, at half the speed of input).
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(56.52, "torchvision, AlexNet_Weights.IMAGENET1K_V1", "224 px from 256, single crop")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = 256

    config.model.name = "alexnet"
    config.model.dropout = 0.5

    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.01
    config.schedule.batch = 256
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs")
    return config
