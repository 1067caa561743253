"""ResNet-18 at 64 px from scratch: a recipe small enough to repeat on a workstation.

For ImageNet subsets prepared at 64 px (Downsampled ImageNet's size, https://arxiv.org/abs/1707.08819).
Nesterov SGD 0.9 with batch 128, peak rate 0.1 after 5 epochs of warm-up, then cosine; weight decay 5e-4 on
weights with more than one axis; label smoothing 0.1; random-resized-crop of area 0.25-1, antialiased, and flip;
evaluation on the whole 64 px image.

    python -m imagenet_jax train --config=configs/resnet18_64px.py --workdir=runs/resnet18_64px
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "30 epochs"
    config.global_batch = 128

    config.augment.size = 64
    config.augment.area = (0.25, 1.0)
    config.augment.antialias = True
    config.view.size = 64
    config.view.resize = 64

    config.model.name = "resnet18"
    config.model.bn_group = 128

    config.loss.label_smoothing = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay = r"kernel$"  # convolutions and the head; not BatchNorm, not biases
    config.schedule.peak = 0.1
    config.schedule.warmup = "5 epochs"
    config.schedule.decay = "cosine"
    return config
