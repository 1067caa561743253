"""By hand: a network of each family exported in each form, with drawn weights, and how far each is from the original.

    pip install -r requirements-onnx.txt
    PYTHONPATH=. python tests/inference/export_families.py IMAGES NAME|all [FORM ...]

VGG takes 9 GB for all forms.
"""

import os
import sys
import tempfile

import jax
import jax.numpy as jnp

from imagenet_jax import config, models, runtime

NAMES = ("alexnet_2012", "alexnet", "vgg11", "googlenet", "inception_v3", "resnet18", "squeezenet1_1",
         "efficientnet_b0", "tf_efficientnet_lite0")


def main(images: str, network: str, *forms: str) -> None:
    """images: as `export --images`. network: its name, or all. forms: keys of `exporting.FORMS`, by default all."""
    runtime.configure()
    from imagenet_jax.classes import Classes
    from imagenet_jax.inference import exporting
    from imagenet_jax.training.evaluating import Trained

    for name in NAMES if network == "all" else [network]:
        settings = config.base()
        settings.model.name = name
        settings = models.fill_view(settings)
        model = models.make(num_classes=100, **settings.model)
        shape = jnp.zeros((1, settings.view.size, settings.view.size, 3))
        variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), shape))
        words = tuple(map(str, range(100)))
        trained = Trained(variables, settings, Classes(words, words), "drawn", "weights", "drawn")
        for form in forms or exporting.FORMS:
            with tempfile.TemporaryDirectory() as out:
                print(exporting.export(trained, form, os.path.join(out, form), images), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
