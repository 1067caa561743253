"""A trace of some steps: it is written, and its time is told by layer."""

import jax
import pytest

from imagenet_jax.benchmarking import timing
from imagenet_jax.errors import UserError
from imagenet_jax.training import loop, profiling
from imagenet_jax.training.profiling import Cost


def told(said: str, directory) -> None:
    assert "ms a step" in said and f"--logdir={directory}" in said
    assert list(directory.rglob("*.xplane.pb")) and list(directory.rglob("perfetto_trace.json.gz"))


def test_the_best_batch_is_traced(step_config, tmp_path):
    found = timing.profile(step_config, 16, str(tmp_path))
    assert any("conv" in each.layer for each in found) and any("backward" in each.layer for each in found)
    assert found == sorted(found, key=lambda each: -each.ms) and found[-1].ms > 0
    assert len({each.operation for each in found}) == len(found)
    told(profiling.words(str(tmp_path), found), tmp_path)


def test_a_run_traces_five_of_its_steps_and_goes_on(small_config, tmp_path, capsys):
    with pytest.raises(UserError, match="steps 10 to 14 .* 6 are left"):
        loop.train(small_config, str(tmp_path / "short"), profile=str(tmp_path / "trace"))
    small_config.duration = "15 steps"
    loop.train(small_config, str(tmp_path / "run"), profile=str(tmp_path / "trace"))
    told(capsys.readouterr().out, tmp_path / "trace")
    (trace,) = (tmp_path / "trace").rglob("*.xplane.pb")
    steps = {dict(event.stats).get("step_num") for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
             for line in plane.lines for event in line.events if event.name == "train"}
    assert steps == set(range(10, 15))


def test_the_largest_are_named_with_their_share_of_all():
    found = [Cost(f"fusion.{i}", f"layer{i}" * (i > 0), 20.0 - i) for i in range(12)]
    lines = profiling.words("DIR", found).splitlines()
    assert len(lines) == 1 + profiling.LARGEST + 2
    assert "of no layer (fusion.0)" in lines[1] and "layer9 (fusion.9)" in lines[10]
    total = sum(range(9, 21))
    assert f"{20 / total:.1%}" in lines[1]
    assert f"{sum(range(11, 21)) / total:.1%}" in lines[11] and "all 12" in lines[11]
