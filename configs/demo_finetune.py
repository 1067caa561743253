"""Finetunes the demo's ResNet on scikit-learn's handwritten digits: 1,797 real images of 10 classes.

Everything trains at a fifth of the pretraining rate, the head from scratch; no flips, since a mirrored digit is none.

    bash launch/demo.sh
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "15 epochs"
    config.global_batch = 64
    config.log_every = "20 steps"
    config.dataset.holdout = 0.1

    config.augment.size = 48
    config.augment.area = (0.7, 1.0)
    config.augment.flip = False
    config.view.size = 48
    config.view.resize = 48

    config.model.name = "resnet18"
    config.model.width = 16
    config.model.bn_group = 64

    config.loss.label_smoothing = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.peak = 0.02
    config.schedule.warmup = "1 epochs"
    config.early_stopping = "6 epochs"
    return config
