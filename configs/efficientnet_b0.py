"""EfficientNet-B0: Tan and Le (https://arxiv.org/abs/1905.11946) as tensorflow/tpu trains it.

RMSProp of decay 0.9, momentum 0.9, epsilon 0.001 and rate 0.016 for 256 examples, here 4,096, warmed up for 5 epochs
and times 0.97 every 2.4, 350 epochs; weight decay 1e-5, AutoAugment v0, label smoothing 0.1, dropout 0.2, drop path
0.2, averages of 0.9999 (section 5.2; models/official/efficientnet/main.py). Published top-1 77.1% (table 2; not
measured here).

    python -m imagenet_jax train --config=configs/efficientnet_b0.py --workdir=runs/efficientnet_b0

Readings: BatchNorm over 128 examples; weight decay on everything but BatchNorm. Differs from the source: crops are
bicubic without antialiasing, as there, but translations of AutoAugment are shares of the image, see
input/policies.py.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(77.1, "Tan and Le 2019, table 2", "224 px from 256, single crop")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "350 epochs"
    config.global_batch = 4096
    config.ema_decay = 0.9999

    config.augment.interpolation = "bicubic"
    config.augment.policy = "autoaugment_v0"
    config.model.name = "tf_efficientnet_b0"
    config.model.bn_group = 128
    config.model.bn_momentum = 0.99
    config.model.dropout = 0.2
    config.model.drop_path = 0.2

    config.loss.label_smoothing = 0.1
    config.optimizer.name = "rmsprop"
    config.optimizer.momentum = 0.9
    config.optimizer.rho = 0.9
    config.optimizer.epsilon = 1e-3
    config.optimizer.weight_decay = 1e-5
    config.optimizer.decay = r"(kernel|(?<!norm)/bias)$"
    config.schedule.peak = 0.256
    config.schedule.batch = 4096
    config.schedule.warmup = "5 epochs"
    config.schedule.decay = "exponential"
    config.schedule.factor = 0.97
    config.schedule.every = "2.4 epochs"
    return config
