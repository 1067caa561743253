"""ResNet-50, 101 and 152 by torchvision's second recipe: https://github.com/pytorch/vision/issues/3995.

SGD 0.9 with batch 1,024, rate 0.5 after 5 epochs of warm-up from 0.005, then cosine, 600 epochs; TrivialAugment,
random erasing 0.1, mixup 0.2 or CutMix 1 for each 128 examples, label smoothing 0.1, weight decay 2e-5 on everything
but BatchNorm, averaged weights, every example four times in a batch; trained at 176 px, judged at 224 from 232
(torchvision/references/classification, whose README has the command). Published top-1: see CHOICES, of the weights
IMAGENET1K_V2 (not measured here).

    python -m imagenet_jax train --config=configs/resnet_torchvision_v2.py:resnet50 --workdir=runs/resnet50_v2

Readings: its average, which is taken every 32 steps and keeps 1 - 2e-5 * 8 * 128 * 32 / 600, keeps the 32nd root of
that at each step. Differs from the source: the head starts as N(0, 0.01) with biases of 0; copies of an example lie
256 apart in the batch, and all examples come before any comes again, where the source draws anew in each epoch; crops
are not antialiased (augment.antialias=True makes them so).
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

CHOICES = {"resnet50": 80.858, "resnet101": 81.886, "resnet152": 82.284}


def claim(choice: str = "resnet50") -> Claim:
    return Claim(CHOICES[choice], f"torchvision, {choice.replace('resnet', 'ResNet')}_Weights.IMAGENET1K_V2",
                 "224 px from 232, single crop")


def get_config(choice: str = "resnet50") -> ConfigDict:
    config = config_lib.base()
    config.duration = "600 epochs"
    config.global_batch = 1024
    config.ema_decay = (1 - 2e-5 * 8 * 128 * 32 / 600) ** (1 / 32)
    config.ema_warmup = False

    config.augment.size = 176
    config.augment.policy = "trivialaugment"
    config.augment.repeats = 4
    config.mix.mixup = 0.2
    config.mix.cutmix = 1.0
    config.mix.group = 128
    config.mix.erase = 0.1
    config.view.size = 224
    config.view.resize = 232
    config.model.name = choice
    config.model.bn_group = 128

    config.loss.label_smoothing = 0.1
    config.optimizer.weight_decay = 2e-5
    config.optimizer.decay = r"(kernel|head/bias)$"
    config.schedule.peak = 0.5
    config.schedule.batch = 1024
    config.schedule.warmup = "5 epochs"
    config.schedule.warmup_from = 0.005
    config.schedule.decay = "cosine"
    config.schedule.per_epoch = True
    return config
