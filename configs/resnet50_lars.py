"""ResNet-50 in large batches by LARS: tensorflow/tpu, models/official/resnet/lars_util.py; You et al. 2017 for LARS.

LARS 0.9 of trust 0.001, rates warmed up from 0 and falling as the square of what is left: to 25 in 5 epochs for
batches of 4,096 and 16,384, to 34 in 12 for 32,768; weight decay 1e-4 on everything but BatchNorm and biases, which
LARS leaves alone, too (https://arxiv.org/abs/1708.03888). Published top-1 76.3% for 32,768 on a TPU v3 pod (Ying et
al. 2018, https://arxiv.org/abs/1811.06992; not measured here).

    python -m imagenet_jax train --config=configs/resnet50_lars.py:32768 --workdir=runs/resnet50_lars

Readings: 90 epochs, label smoothing 0.1, BatchNorm over 64 examples, the last BatchNorm scale of each block starting
at 0.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib
from imagenet_jax.config.recipes import Claim

CHOICES = {"4096": (25.0, "5 epochs"), "16384": (25.0, "5 epochs"), "32768": (34.0, "12 epochs")}


def claim(choice: str = "32768") -> Claim | None:
    if choice != "32768":
        return None
    return Claim(76.3, "Ying et al. 2018", "224 px, single crop", hours="1,024 TPU v3 chips, 2.2 minutes")


def get_config(choice: str = "32768") -> ConfigDict:
    config = config_lib.base()
    config.duration = "90 epochs"
    config.global_batch = int(choice)

    config.model.name = "resnet50"
    config.model.bn_group = 64
    config.model.zero_init_residual = True

    config.loss.label_smoothing = 0.1
    config.optimizer.name = "lars"
    config.optimizer.trust = 1e-3
    config.optimizer.epsilon = 0.0
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = r"kernel$"
    config.schedule.peak, config.schedule.warmup = CHOICES[choice]
    config.schedule.decay = "polynomial"
    config.schedule.power = 2.0
    return config
