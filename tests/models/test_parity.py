"""What PyTorch's libraries compute from the same drawn weights: the small members of each family.

References are stored; `make_references.py` says how they were made, and `parity.py` compares every model at full size.
"""

import numpy as np
import parity
import pytest

from imagenet_jax import models

SMALL = ["alexnet", "resnet18", "vgg11_bn", "squeezenet1_1", "googlenet", "inception_v3", "efficientnet_b0",
         "tf_efficientnet_b0", "tf_efficientnet_lite0"]
TRAINED = ["resnet18", "googlenet", "tf_efficientnet_lite0"]


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_the_reference(name) -> None:
    wanted = parity.reference(name)["other"]
    assert parity.difference(parity.logits(name, parity.sizes(name)[1]), wanted) < 1e-5
    # Drawn weights could make a net that does not look at its input: these do.
    assert np.ptp(wanted, 0).max() > 1e-3 * np.ptp(wanted)


@pytest.mark.parametrize("name", TRAINED)
def test_auxiliary_logits_and_running_statistics_in_training_are_those_of_the_reference(name) -> None:
    wanted, (aux, statistics) = parity.reference(name), parity.trained(name)
    assert parity.difference(aux, wanted["aux"]) < 1e-5
    assert parity.difference(statistics, wanted["statistics"]) < 1e-5


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_a_train_step_reaches_every_parameter(mode) -> None:
    loss, grads = parity.step("squeezenet1_1", mode, 64)
    assert np.isfinite(loss) and not parity.unlearned(grads)


@pytest.mark.parametrize("name", models.REGISTRY)
def test_every_model_has_its_reference_and_a_row_that_agrees(name) -> None:
    row, spec = parity.rows()[name], models.find(name)
    assert int(row["params"]) == spec.params and row["reference"] == spec.reference
    assert abs(float(row["gmacs"]) - spec.gmacs) < 0.0016  # published to three decimals
    assert row["pmap"] == row["shard_map"] and row["pmap"].startswith("all ")
    if spec.reference:
        assert parity.reference(name)["params"] == spec.params
        assert all(float(row[key] or 0) <= 1e-4 for key in ("native", "other", "aux", "statistics"))
