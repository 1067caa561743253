"""A checkpoint of a recipe is saved and restored, and nothing is left where it was tried."""

import pytest

from imagenet_jax.benchmarking import checkpointing
from imagenet_jax.errors import UserError


def test_the_state_of_the_recipe_is_saved_and_restored(step_config, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointing, "ROUNDS", 2)
    found = checkpointing.measure(step_config, str(tmp_path))
    assert 0 < found.copy_s <= found.begin_s <= found.whole_s and found.restore_s > 0
    assert found.files > found.arrays // 2 > 0 and not any(tmp_path.iterdir())
    assert "until training goes on" in checkpointing.words(step_config, str(tmp_path), found)


def test_a_folder_that_is_not_there_is_one_message(step_config, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        checkpointing.measure(step_config, str(tmp_path / "nowhere"))
