"""ResNet-50, 101 and 152: He et al., "Deep Residual Learning" (https://arxiv.org/abs/1512.03385), as they trained them.

SGD 0.9 with batch 256, rate 0.1 divided by 10 when the error stops falling, weight decay 1e-4, 600,000 iterations,
which are 120 epochs; squares of 224 px out of images resized to 256..480, mirrored, with AlexNet's lighting (section
3.4). Published top-1: see CHOICES, the mean of ten crops (table 3; not measured here).

    python -m imagenet_jax train --config=configs/resnet_he.py:resnet50 --workdir=runs/resnet50_he

Readings: the rate falls at 30, 60 and 90 epochs, as in fb.resnet.torch; BatchNorm shares statistics over the 32
examples of one of 8 GPUs; weight decay is on everything. Differs from the source: the stride of a bottleneck is in
its 3x3 convolution, as in torchvision; crops are not antialiased.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

CHOICES = {"resnet50": 77.15, "resnet101": 78.25, "resnet152": 78.57}


def claim(choice: str = "resnet50") -> Claim:
    return Claim(CHOICES[choice], "He et al. 2015, table 3", "ten crops of 224 px from 256")


def get_config(choice: str = "resnet50") -> ConfigDict:
    config = config_lib.base()
    config.duration = "120 epochs"
    config.global_batch = 256

    config.augment.crop = "scale_jitter"
    config.augment.resize = (256, 480)
    config.augment.lighting = 0.1
    config.view.crops = 10
    config.model.name = choice
    config.model.bn_group = 32

    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.1
    config.schedule.batch = 256
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs", "90 epochs")
    return config
