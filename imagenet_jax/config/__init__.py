"""Every key of a run with its default.

A recipe starts from `base()` and overrides; the command line overrides the recipe with
`--config.section.key=value`. Sections are the keyword arguments of the function named beside them.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from imagenet_jax.config.durations import steps
from imagenet_jax.config.rules import check, check_view
from imagenet_jax.errors import UserError

__all__ = ["Config", "base", "check", "check_view", "dataset_dir", "flat", "restored", "steps"]
Config = ml_collections.ConfigDict


def base() -> Config:
    """The default of every key. Recipes change what their paper says and leave the rest."""
    config = Config()
    config.seed = 0  # initial weights, order, augmentation, dropout
    config.duration = "90 epochs"  # 'N epochs' or 'N steps'
    config.stretch = 1.0  # makes the duration, and those of the schedule and of the ramp, so many times as long
    config.global_batch = 256  # examples in one optimizer step, whatever the hardware
    config.max_per_device_batch = 256  # a larger share of the global batch is accumulated in micro-batches
    config.parallel = "auto"  # 'pmap', or 'shard_map': jit + shard_map on a one-axis mesh; see training.parallel
    config.compiler_options = ()  # of XLA for the train step, each 'NAME=VALUE'; pmap takes none
    config.log_every = "50 steps"
    config.aux_weight = 0.3  # of the loss of each auxiliary head, in models that have them
    config.ema_decay = 0.0  # of an average of weights and BatchNorm statistics, judged in their place; 0 for none
    config.ema_warmup = True  # that decay is at most (1 + t) / (10 + t) at step t: a short run has an average too

    config.dataset = Config()  # which examples
    config.dataset.dir = ""  # what `prepare` wrote; empty for the environment variable IMAGENET_DIR
    config.dataset.train_split = "train"
    config.dataset.eval_split = "validation"  # reported, never selected on; empty for none
    config.dataset.holdout = 0.0  # fraction of the training split kept out, for model selection
    config.dataset.fold = 0  # which of the round(1 / holdout) disjoint holdouts
    config.dataset.exclude = ""  # a manifest of `clean`: what it flags is not trained on; empty for none
    config.dataset.exclude_flags = ()  # only what it flags as one of these, such as 'leak'; () for every flag
    config.dataset.add_dir = ""  # a second dataset to train on, all of whose classes the first one has; empty for none
    config.dataset.add_share = 0.25  # of every global batch that is of it; an epoch stays one of the first dataset
    config.dataset.service = ""  # 'host:port' of a tf.data service that decodes for training; see input.service

    config.loader = Config()  # input.chunks.Workers
    config.loader.threads = 0  # that decode; 0 for one a core
    config.loader.prefetch = 2  # batches held on the devices ahead of the step
    config.loader.ram_gb = 0.0  # that images on their way may fill; 0 for what keeps all threads busy
    config.loader.cache_gb = 0.0  # of encoded records kept in memory, filled once; 0 for none

    config.augment = Config()  # input.loader.train_transform; on the host
    config.augment.size = placeholder(int)  # px, side of the square the network sees; None for view.size
    config.augment.ramp = ()  # (boundary, px): from then on the square is of that side; see training.recipe.augment
    config.augment.crop = "random_resized"  # or 'scale_jitter': of `size` px, after a resize
    config.augment.area = (0.08, 1.0)  # of 'random_resized': fraction of the image's area that a crop covers
    config.augment.aspect = (3 / 4, 4 / 3)  # of 'random_resized': width / height of a crop
    config.augment.resize = (256, 256)  # px, of 'scale_jitter': the image's shorter side, least and most
    config.augment.central = False  # of 'scale_jitter': anywhere in the central square only
    config.augment.flip = True  # left-right, half of the time
    config.augment.interpolation = "bilinear"  # or 'bicubic', 'nearest', 'area'
    config.augment.antialias = False  # True halves the speed of input; see input.pixels.train_example
    config.augment.repeats = 1  # times that an example is in a batch, augmented anew; epochs count the copies
    config.augment.policy = ""  # 'autoaugment', 'randaugment', 'trivialaugment', ... see input.policies; '' for none
    config.augment.operations = 2  # an image, of 'randaugment' and 'randaugment_timm'
    config.augment.magnitude = 9.0  # 'randaugment' 0..30, 'randaugment_timm' 0..10, 'augmix' 1..10 (3 there)
    config.augment.magnitude_std = 0.0  # of 'randaugment_timm'
    config.augment.jitter = (0.0, 0.0, 0.0, 0.0)  # how much brightness, contrast, saturation, hue vary
    config.augment.lighting = 0.0  # deviation of shifts along the principal components of colours; AlexNet has 0.1

    config.view = Config()  # input.pixels.eval_example; None leaves it to the network, see `models` on the command line
    config.view.size = placeholder(int)  # px, side of a crop
    config.view.crops = 1  # the centre; or 5, the corners too; or 10, with mirror images; or 50, a grid's
    config.view.resize = placeholder(int)  # px, shorter side before the crop; None keeps the network's share
    config.view.scales = ()  # px, several shorter sides in the place of view.resize; probabilities are averaged
    config.view.library = "tf"  # or 'pil': torchvision's pixels bit for bit, which most published accuracies rest on
    config.view.interpolation = placeholder(str)  # 'bilinear', 'bicubic', 'nearest' or 'area'
    config.view.antialias = True  # PIL always does

    config.model = Config()  # models.make; None leaves the family's own value
    config.model.name = "resnet50"
    config.model.dtype = "float32"  # compute type, or 'bfloat16'; parameters stay float32
    config.model.width = placeholder(int)  # channels of the first stage
    config.model.dropout = placeholder(float)
    config.model.drop_path = placeholder(float)  # of the last residual branch, growing from 0 at the first
    config.model.bn_group = placeholder(int)  # examples that share BatchNorm statistics (32)
    config.model.bn_momentum = placeholder(float)  # kept share of the running statistics (0.9)
    config.model.bn_epsilon = placeholder(float)
    config.model.zero_init_residual = placeholder(bool)  # the last BatchNorm scale of a block starts at 0
    config.model.aux = placeholder(bool)  # auxiliary heads (GoogLeNet, Inception v3)

    config.mix = Config()  # training.mixing.Mix; on the devices
    config.mix.mixup = 0.0  # alpha of the Beta distribution that an example's share is drawn from; 0 for none
    config.mix.cutmix = 0.0  # the same of CutMix
    config.mix.prob = 1.0  # of mixing at all
    config.mix.switch = 0.5  # probability of CutMix where there are both
    config.mix.group = placeholder(int)  # consecutive examples that share a draw; None for all of a batch
    config.mix.erase = 0.0  # probability that a box of an example is erased
    config.mix.erase_area = (0.02, 0.33)  # its share of the image
    config.mix.erase_aspect = (0.3, 3.3)  # its height / width

    config.loss = Config()  # training.losses.make
    config.loss.name = "cross_entropy"  # or 'binary_cross_entropy'
    config.loss.label_smoothing = 0.0
    config.loss.target_threshold = 0.0  # of 'binary_cross_entropy': targets above are 1, others 0; 0 leaves them

    config.optimizer = Config()  # training.optimizer.make; sam_rho: training.step.ascended
    config.optimizer.name = "sgd"  # or 'lars', 'rmsprop', 'adamw', 'lamb'
    config.optimizer.momentum = 0.9  # of 'sgd', 'lars', 'rmsprop'
    config.optimizer.nesterov = False  # of 'sgd', 'lars'
    config.optimizer.betas = (0.9, 0.999)  # of 'adamw', 'lamb'
    config.optimizer.rho = 0.9  # of 'rmsprop': kept share of the mean square
    config.optimizer.epsilon = 1e-8  # of all but 'sgd'
    config.optimizer.trust = 1e-3  # of 'lars': its trust coefficient
    config.optimizer.weight_decay = 1e-4  # added to the gradient before momentum; 'adamw', 'lamb': of the weights
    config.optimizer.decay = r"kernel$"  # regular expression over parameter paths: what decays
    config.optimizer.clip_norm = 0.0  # of the global gradient; 0 for none
    config.optimizer.clip_value = 0.0  # of each of its numbers; 0 for none
    config.optimizer.clip_adaptive = 0.0  # of a unit's gradient over the norm of its weights; 0 for none
    config.optimizer.rates = ()  # (regular expression, factor): a rate of their own for parameters of such a path
    config.optimizer.sam_rho = 0.0  # SAM: how far uphill of the weights the gradient is taken, 0.05 perhaps; 0 for none

    config.schedule = Config()  # training.schedule.make and scaled
    config.schedule.peak = 0.1  # learning rate after warm-up
    config.schedule.batch = placeholder(int)  # that peak, values and final are meant for; None for any
    config.schedule.scaling = "linear"  # how they go with another batch, or 'sqrt'
    config.schedule.warmup = "0 epochs"
    config.schedule.warmup_kind = "linear"  # or 'exponential', or 'constant'
    config.schedule.warmup_from = 0.0  # learning rate at its beginning, whatever the batch
    config.schedule.decay = "cosine"  # or 'step', 'exponential', 'polynomial', 'piecewise', 'constant'
    config.schedule.boundaries = ()  # of 'step': when the rate is multiplied by `factor`; of 'piecewise'
    config.schedule.values = ()  # of 'piecewise': learning rates at the boundaries
    config.schedule.factor = 0.1  # of 'step' and 'exponential'
    config.schedule.every = "1 epochs"  # of 'exponential'
    config.schedule.staircase = True  # of 'exponential': at once, not smoothly
    config.schedule.power = 1.0  # of 'polynomial'
    config.schedule.final = 0.0  # learning rate at the end of 'cosine', 'polynomial', 'piecewise'
    config.schedule.per_epoch = False  # the rate changes at the beginnings of epochs only, as in torchvision and timm

    config.evaluation = Config()
    config.evaluation.every = "1 epochs"  # the evaluation split, and the holdout where there is one
    config.evaluation.batch = 256  # examples at a time; changes no metric

    config.checkpoint = Config()
    config.checkpoint.every = "1 epochs"
    config.checkpoint.every_minutes = 15.0  # of wall clock, whichever comes first
    config.checkpoint.keep = 2  # last ones kept
    config.checkpoint.milestones = ""  # duration whose multiples are kept for ever; empty for none

    config.init_from = ""  # to finetune from: a workdir, a checkpoint, a .safetensors or .pth file, a published network
    config.freeze = ()  # regular expressions over parameter paths; '!^head/' is everything but the head
    config.early_stopping = ""  # stop after this duration without a better holdout top-1; empty for never
    return config.lock()


def restored(saved: Mapping[str, Any]) -> Config:
    """A config as it was saved in JSON: tuples are tuples again, and a key younger than it has its default."""
    config = base()
    with config.unlocked():  # a key that is no more may stay
        config.update(_tuples(saved))
    return config


def _tuples(value: Any) -> Any:
    """What JSON has as lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def dataset_dir(directory: str = "") -> str:
    """The dataset directory: the one given, or what the environment variable IMAGENET_DIR says.

    Raises:
        UserError: neither is there.
    """
    directory = directory or os.environ.get("IMAGENET_DIR", "")
    if not directory:
        raise UserError("no dataset: set --config.dataset.dir (or --dataset), or the environment variable "
                        "IMAGENET_DIR, to what `python -m imagenet_jax prepare` wrote")
    return directory


def flat(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every ('section.key', value) of a config, tuples as they are."""
    for key, value in config.items():
        if isinstance(value, Config):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
