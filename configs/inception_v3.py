"""Inception v3: Szegedy et al., "Rethinking the Inception Architecture" (https://arxiv.org/abs/1512.00567).

RMSProp of decay 0.9 and epsilon 1, rate 0.045 times 0.94 every two epochs, gradients clipped at 2, label smoothing
0.1, averaged weights (sections 7 and 8), 50 replicas of 32 examples each, 100 epochs; random-resized-crops of area
0.05-1 and distorted colours. Published top-1 error 21.2% of a single crop of 299 px (table 3; not measured here).

    python -m imagenet_jax train --config=configs/inception_v3.py --workdir=runs/inception_v3

Readings, from tensorflow/models research/inception and slim, which published the code: momentum 0.9, weight decay
4e-5, BatchNorm's averages of 0.9997, averages of 0.9999, the auxiliary head weighed 0.4; the clipping is of the norm.
Differs from the source: the replicas were asynchronous, here 1,600 examples are one batch and BatchNorm's averages
keep 0.99, as they are updated as rarely; the head follows torchvision; crops are bilinear and not antialiased, the
source mixed four kinds of interpolation.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(78.8, "Szegedy et al. 2015, table 3 (error 21.2)", "299 px, single crop", hours="50 Kepler GPUs")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "100 epochs"
    config.global_batch = 1600
    config.ema_decay = 0.9999
    config.aux_weight = 0.4

    config.augment.area = (0.05, 1.0)
    config.augment.policy = "inception"
    config.model.name = "inception_v3"
    config.model.bn_group = 32
    config.model.bn_momentum = 0.99
    config.model.aux = True

    config.loss.label_smoothing = 0.1
    config.optimizer.name = "rmsprop"
    config.optimizer.momentum = 0.9
    config.optimizer.rho = 0.9
    config.optimizer.epsilon = 1.0
    config.optimizer.clip_norm = 2.0
    config.optimizer.weight_decay = 4e-5
    config.schedule.peak = 0.045
    config.schedule.decay = "exponential"
    config.schedule.factor = 0.94
    config.schedule.every = "2 epochs"
    return config
