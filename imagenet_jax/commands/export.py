"""Take the weights of a run away: a .safetensors file that PyTorch libraries load."""

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "The run whose last checkpoint is exported.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Or a checkpoint: RUN/checkpoints/STEP, or RUN/best.")
TO = flags.DEFINE_enum("to", "torch", ["torch"], "For whom.")
LIBRARY = flags.DEFINE_enum("library", "", ["", "torchvision", "timm"], "Whose names; by default those of the library "
                            "whose network it is.")
FOLD = flags.DEFINE_bool("fold_bn", False, "Work BatchNorms into the convolutions before them.")
OUT = flags.DEFINE_string("out", None, "The .safetensors file to write.", required=True)
flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=True)


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    from imagenet_jax.transfer import export

    print(export.to_torch(WORKDIR.value or CHECKPOINT.value, OUT.value, LIBRARY.value, FOLD.value))
