"""ResNet-18 on ImageNet: He et al. (https://arxiv.org/abs/1512.03385) by torchvision's recipe.

SGD 0.9 with batch 256, rate 0.1 divided by 10 every 30 epochs, weight decay 1e-4 on everything, 90 epochs;
random-resized-crop and flip: torchvision/references/classification (train.py --model resnet18, whose 8 processes
of 32 examples are the bn_group here). Published top-1 69.76%, top-5 89.08% (torchvision,
ResNet18_Weights.IMAGENET1K_V1; not measured here).

    python -m imagenet_jax train --config=configs/resnet18.py --workdir=runs/resnet18
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = 256

    config.model.name = "resnet18"
    config.model.bn_group = 32

    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.1
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs")
    return config
