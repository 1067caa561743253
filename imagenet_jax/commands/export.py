"""Take a network away: weights that PyTorch libraries load, or a file of StableHLO that runs without this package."""

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "The run whose last checkpoint is exported.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Or a checkpoint: RUN/checkpoints/STEP, or RUN/best; stablehlo: "
                                 "or a file of weights, or a network whose published weights are installed.")
TO = flags.DEFINE_enum("to", "torch", ["torch", "stablehlo"], "For whom: a .safetensors file for PyTorch's libraries, "
                       "or the program itself, for JAX and what else runs StableHLO on CPU, CUDA or TPU.")
LIBRARY = flags.DEFINE_string("library", "", "torch: whose names the tensors get, 'torchvision' or 'timm'; by default "
                              "those of the library that has the network.")
MODEL = flags.DEFINE_string("model", "", "stablehlo: the network that a file of weights is of, if it does not say so.")
IMAGES = flags.DEFINE_string("images", "", "stablehlo: a folder, a tar or a pattern of images to compare on, beside "
                             "drawn ones.")
OUT = flags.DEFINE_string("out", None, "torch: the .safetensors file to write; stablehlo: a folder for model.stablehlo "
                          "and model.json.", required=True)
flags.mark_flags_as_mutual_exclusive(["workdir", "checkpoint"], required=True)


def main(argv: list[str]) -> None:
    """Runs the command; `argv` holds nothing but its name."""
    path = WORKDIR.value or CHECKPOINT.value
    if TO.value == "torch":
        from imagenet_jax.transfer import export

        print(export.to_torch(path, OUT.value, LIBRARY.value))
        return
    from imagenet_jax import runtime

    runtime.configure()
    from imagenet_jax.inference import stablehlo
    from imagenet_jax.training import evaluating

    print(stablehlo.to_stablehlo(evaluating.open_trained(path, MODEL.value), OUT.value, IMAGES.value))
