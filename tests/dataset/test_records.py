"""A shard that is not what was written is told, whatever ArrayRecord makes of it."""

import os

import pytest
from small_data import make_dataset

from imagenet_jax import dataset as dataset_lib


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("opened", [False, True])
def test_a_shard_that_was_cut_short_is_told(tmp_path, share, opened):
    data = make_dataset(tmp_path / "data", 4, 300, 3)
    records = dataset_lib.open_split(dataset_lib.open_dataset(data), "validation")
    whole = records.read([0, 299])
    (shard,) = (tmp_path / "data").glob("*validation*record*")
    if not opened:
        records = dataset_lib.open_split(dataset_lib.open_dataset(data), "validation")
    os.truncate(shard, int(shard.stat().st_size * share))
    try:
        assert records.read([0, 299]) == whole  # what has been read already may be kept
    except dataset_lib.RecordError as error:
        assert "is damaged" in str(error) and "Copy the dataset again" in str(error)
        return
    assert opened
