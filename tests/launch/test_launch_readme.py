"""What launch/README.md tells people to type exists: every script, command, flag and key of a config."""

import functools
import pathlib
import re
import shlex
import subprocess
import sys

from imagenet_jax import config as config_lib

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = "python -m imagenet_jax"


@functools.cache
def help_of(program):
    """What a script of launch/, or a command of imagenet_jax, says of its flags."""
    command = [ROOT / program] if program.startswith("launch/") else [sys.executable, "-m", "imagenet_jax", program]
    asked = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert asked.returncode == 0, program
    return asked.stdout


def commands():
    """(program, its flags) of each line to type; what a script of launch/ is to run, after --, is another."""
    text = (ROOT / "launch/README.md").read_text().replace("\\\n", " ").replace(PACKAGE, "--")
    for line in re.findall(r"^    (.*)$", text, re.MULTILINE):
        if not re.match("(launch/|-- )", line):
            continue
        for part in re.split(r"(?:^| )-- ", line):
            if words := [word for word in shlex.split(part, comments=True) if word != "..."]:
                yield words[0], [word for word in words if word.startswith("--")]


def test_what_it_tells_to_type_exists():
    found = list(commands())
    assert {"launch/tpu_queue.sh", "launch/data_service.sh", "train", "export"} <= {program for program, _ in found}
    keys = {f"--config.{key}" for key, _ in config_lib.flat(config_lib.base())}
    for program, flags in found:
        for name in (flag.partition("=")[0] for flag in flags):
            assert name in keys or re.search(rf"{name}\b", help_of(program)), f"{program} {name}"
