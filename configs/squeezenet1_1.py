"""SqueezeNet 1.1: Iandola et al. (https://arxiv.org/abs/1602.07360) by the solver that the authors published.

SGD 0.9 with batch 512, rate 0.04 falling in a line to 0 over 170,000 iterations, which are 68 epochs, weight decay
2e-4, dropout 0.5; squares of 227 px out of images resized to 256 x 256, mirrored (forresti/SqueezeNet,
SqueezeNet_v1.1 and v1.0, solver.prototxt). Published top-1 57.5% of the centre crop, for 1.0, and the same for 1.1 by
its README (not measured here).

    python -m imagenet_jax train --config=configs/squeezenet1_1.py --workdir=runs/squeezenet1_1

Readings: weight decay on everything. Differs from the source: images are resized by their shorter side and cropped in
their central square, where Caffe squeezes them; the net starts as torchvision's; crops are not antialiased.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(57.5, "Iandola et al. 2016, table 2; README of forresti/SqueezeNet", "227 px from 256, centre crop")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "170000 steps"
    config.global_batch = 512

    config.augment.crop = "scale_jitter"
    config.augment.size = 227
    config.augment.resize = (256, 256)
    config.augment.central = True
    config.view.size = 227
    config.view.resize = 256
    config.model.name = "squeezenet1_1"
    config.model.dropout = 0.5

    config.optimizer.weight_decay = 2e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.04
    config.schedule.batch = 512
    config.schedule.decay = "polynomial"
    return config
