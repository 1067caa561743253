"""A small ResNet on the drawn ILSVRC: the whole chain in minutes on a laptop, no data at hand.

ResNet-18 a quarter as wide, 48 px, on what `python -m imagenet_jax draw` draws: 12 classes of textured shapes on
cluttered backgrounds, which a linear model on raw pixels cannot tell apart.

    bash launch/demo.sh
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.duration = "14 epochs"
    config.global_batch = 64
    config.log_every = "20 steps"
    config.dataset.holdout = 0.05

    config.augment.size = 48
    config.augment.area = (0.6, 1.0)
    config.view.size = 48
    config.view.resize = 52

    config.model.name = "resnet18"
    config.model.width = 16
    config.model.bn_group = 64
    config.model.zero_init_residual = True

    config.loss.label_smoothing = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.peak = 0.1
    config.schedule.warmup = "2 epochs"
    config.evaluation.every = "2 epochs"
    return config
