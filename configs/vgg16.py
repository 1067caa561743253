"""VGG-16 (D): Simonyan and Zisserman, "Very Deep Convolutional Networks" (https://arxiv.org/abs/1409.1556).

SGD 0.9 with batch 256, rate 0.01 divided by 10 three times, weight decay 5e-4, dropout 0.5, 370,000 iterations, which
are 74 epochs (section 3.1); squares of 224 px out of images resized to 256..512, mirrored, with AlexNet's lighting.
Two to three weeks on four Titan Black. Published top-1 error 24.6%, the mean of 50 crops at each of the scales 256, 384
and 512 (section 3.2, table 5; not measured here); 24.8% of whole images, densely.

    python -m imagenet_jax train --config=configs/vgg16.py --workdir=runs/vgg16

Readings: the rate fell whenever the validation accuracy stopped rising; here at 50%, 75% and 90%. Weight decay is on
everything. Differs from the source: all layers start as in torchvision (He et al. 2015), not from the trained net A;
crops are resized without antialiasing.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim


def claim() -> Claim:
    return Claim(75.4, "Simonyan and Zisserman 2014, table 5 (error 24.6)", "50 crops at each of 256, 384, 512 px",
                 hours="four Titan Black, 2 to 3 weeks")


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "74 epochs"
    config.global_batch = 256

    config.augment.crop = "scale_jitter"
    config.augment.resize = (256, 512)
    config.augment.lighting = 0.1
    config.view.crops = 50
    config.view.scales = (256, 384, 512)
    config.model.name = "vgg16"
    config.model.dropout = 0.5

    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay = r".*"
    config.schedule.peak = 0.01
    config.schedule.batch = 256
    config.schedule.decay = "step"
    config.schedule.boundaries = ("50%", "75%", "90%")
    return config
