"""GoogLeNet (https://arxiv.org/abs/1409.4842) by Caffe's quick recipe, models/bvlc_googlenet/quick_solver.prototxt.

SGD 0.9 with batch 32, rate 0.01 falling to 0 as the root of what is left of 2,400,000 iterations (60 epochs), weight
decay 2e-4, both auxiliary heads weighed 0.3, dropout 0.4 before the head; squares of 224 px out of images resized to
256 x 256, mirrored. Published top-1 68.7%, top-5 88.9% of the centre crop (its readme.md; not measured here).

    python -m imagenet_jax train --config=configs/googlenet.py --workdir=runs/googlenet

On anything but one device of 2014 add --config.global_batch=256 or more: the rate follows by the linear rule, which
is ours. Differs from the source: the net here has BatchNorm, as torchvision's, and no local response normalisation;
images are resized by their shorter side and cropped in their central square, where Caffe squeezes them; no
antialiasing.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(68.7, "BVLC/caffe, models/bvlc_googlenet/readme.md", "224 px from 256, centre crop")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "60 epochs"
    config.global_batch = 32
    config.aux_weight = 0.3

    config.augment.crop = "scale_jitter"
    config.augment.resize = (256, 256)
    config.augment.central = True
    config.model.name = "googlenet"
    config.model.bn_group = 32
    config.model.dropout = 0.4
    config.model.aux = True

    config.optimizer.weight_decay = 2e-4
    config.optimizer.decay = r"kernel$"
    config.schedule.peak = 0.01
    config.schedule.batch = 32
    config.schedule.decay = "polynomial"
    config.schedule.power = 0.5
    return config
