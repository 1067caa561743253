"""ResNet-50 on ImageNet: Goyal et al., "Accurate, Large Minibatch SGD" (https://arxiv.org/abs/1706.02677).

Nesterov SGD 0.9, rate 0.1 for batch 256 divided by 10 at epochs 30, 60 and 80, weight decay 1e-4 on everything
but BatchNorm and biases, BatchNorm statistics over 32 examples, the last BatchNorm scale of each block starting at 0,
90 epochs; random-resized-crop of area 0.08-1 and flip. Published top-1 error 23.60% (table 1; not measured here),
of the v1 bottleneck with its stride moved to the 3x3, which is the net here.

    python -m imagenet_jax train --config=configs/resnet50.py --workdir=runs/resnet50

Batch 256 needs no warm-up. With another batch the rate is multiplied as the batch is; a large one is warmed up to
from 0.1 for 5 epochs (section 2.2), as in `configs/resnet50.py:8192` (error 23.74%, on 256 P100 in an hour). bn_group
stays: it is not the batch of a device here. On TPU and on recent GPUs add --config.model.dtype=bfloat16.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

CHOICES = {
    "256": Claim(76.40, "Goyal et al. 2017, table 1 (error 23.60 +- 0.12)", "224 px from 256, single crop", 0.12),
    "8192": Claim(76.26, "Goyal et al. 2017, table 1 (error 23.74 +- 0.09)", "224 px from 256, single crop", 0.09,
                  "256 P100, 1 h"),
}


def claim(choice: str = "256") -> Claim:
    return CHOICES[choice]


def get_config(choice: str = "256") -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = int(choice)

    config.augment.area = (0.08, 1.0)
    config.model.name = "resnet50"
    config.model.bn_group = 32
    config.model.zero_init_residual = True

    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r"kernel$"
    config.schedule.peak = 0.1
    config.schedule.batch = 256
    if config.global_batch > 256:
        config.schedule.warmup = "5 epochs"
        config.schedule.warmup_from = 0.1
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs", "80 epochs")
    return config
