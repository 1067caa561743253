"""The flags of the commands that ask a trained network."""

from collections.abc import Callable

from absl import flags

flags.disclaim_key_flags()  # they are those of the command that calls this


def define_flags(purpose: str, required: bool = True) -> Callable[[], tuple[str, str]]:
    """Defines them; returns what gives their values as the arguments of `evaluating.open_trained`.

    purpose: what becomes of the run's last checkpoint, in words. required: else the path may be empty.
    """
    workdir = flags.DEFINE_string("workdir", None, f"The run whose last checkpoint {purpose}.")
    checkpoint = flags.DEFINE_string("checkpoint", None, "Or a checkpoint: RUN/checkpoints/STEP, or RUN/best; or a "
                                     "file of weights, .safetensors or .pth; or a network whose published weights are "
                                     "installed.")
    model = flags.DEFINE_string("model", "", "The network that a file of weights is of, if it does not say so itself.")
    flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=required)
    return lambda: (workdir.value or checkpoint.value or "", model.value)
