"""Take a network away: weights that PyTorch libraries load, or a program that runs without this package."""

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "The run whose last checkpoint is exported.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Or a checkpoint: RUN/checkpoints/STEP, or RUN/best; programs: "
                                 "or a file of weights, or a network whose published weights are installed.")
TO = flags.DEFINE_enum("to", "torch", ["torch", "stablehlo", "savedmodel", "onnx", "onnx_int8"], "For whom: weights in "
                       "a .safetensors file for PyTorch's libraries; or the program itself, for JAX and what else runs "
                       "StableHLO on CPU, CUDA or TPU; for TensorFlow, fed encoded images; or for ONNX Runtime, also "
                       "rounded to 8 bits.")
LIBRARY = flags.DEFINE_string("library", "", "torch: whose names the tensors get, 'torchvision' or 'timm'; by default "
                              "those of the library that has the network.")
MODEL = flags.DEFINE_string("model", "", "programs: the network that a file of weights is of, if it does not say so.")
IMAGES = flags.DEFINE_string("images", "", "programs: a folder, a tar or a pattern of images to compare on, beside "
                             "drawn ones.")
OUT = flags.DEFINE_string("out", None, "torch: the .safetensors file to write; programs: a folder for model.json and "
                          "model.stablehlo, saved_model/ or model.onnx.", required=True)
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
    from imagenet_jax.inference import exporting
    from imagenet_jax.training import evaluating

    print(exporting.export(evaluating.open_trained(path, MODEL.value), TO.value, OUT.value, IMAGES.value))
