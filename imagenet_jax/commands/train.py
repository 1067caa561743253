"""Pretrain or finetune from a recipe; goes on where the workdir's last checkpoint stands."""

from absl import flags
from ml_collections import config_flags

from imagenet_jax.commands import _hosts

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, such as configs/resnet50.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and the report go.")
EXTEND = flags.DEFINE_bool("extend", False, "Go on with the run in --workdir for another duration (and by another "
                           "schedule) than it began with; what is done stays as it is.")
PROFILE = flags.DEFINE_string("profile", "", "A directory for a trace of five steps, whose most expensive operations "
                              "are told.")
HOSTS = _hosts.define_flags()
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    from imagenet_jax import runtime

    runtime.configure()
    from imagenet_jax import hosts
    from imagenet_jax.training import loop

    with hosts.joined(**HOSTS()):
        loop.train(CONFIG.value, WORKDIR.value, extend=EXTEND.value, profile=PROFILE.value)
