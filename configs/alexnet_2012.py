"""AlexNet of 2012: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks".

NIPS 2012, https://papers.nips.cc/paper/4824. SGD 0.9 with batch 128, rate 0.01 divided by 10 three times, weight
decay 5e-4, 90 epochs, dropout 0.5 (section 5); squares of 227 px out of the central one of an image resized to 256,
mirrored, lighting of deviation 0.1 (section 4.1). Five to six days on two GTX 580. Published top-1 error of one net
40.7%, the mean of ten crops (table 1; not measured here).

    python -m imagenet_jax train --config=configs/alexnet_2012.py --workdir=runs/alexnet_2012

Readings: the rate fell whenever the validation error stopped falling; here at epochs 30, 60 and 80. Weight decay is
on everything. 227 px are what gives the maps that the paper counts. Differs from the source: crops are resized
without antialiasing.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(59.3, "Krizhevsky et al. 2012, table 1 (error 40.7)", "ten crops of 227 px from 256",
                 hours="two GTX 580, 5 to 6 days")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = 128

    config.augment.crop = "scale_jitter"
    config.augment.resize = (256, 256)
    config.augment.central = True
    config.augment.lighting = 0.1
    config.view.crops = 10
    config.model.name = "alexnet_2012"
    config.model.dropout = 0.5

    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.01
    config.schedule.batch = 128
    config.schedule.decay = "step"
    config.schedule.boundaries = ("30 epochs", "60 epochs", "80 epochs")
    return config
