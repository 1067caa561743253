"""Whose a workdir is: it belongs to the run whose config lies in it."""

import json
import os

import jax

from imagenet_jax import config as config_lib
from imagenet_jax.errors import UserError

# What may change when a run goes on elsewhere: it changes no number.
HARDWARE_KEYS = ("dataset.dir", "dataset.service", "loader.", "parallel", "max_per_device_batch", "log_every",
                 "checkpoint.", "evaluation.batch")


def claim(config: config_lib.Config, workdir: str) -> None:
    """Writes config.json, or makes sure that the one there is of the same run.

    Raises:
        UserError: the workdir belongs to a run with another config; says which keys differ.
    """
    path = os.path.join(workdir, "config.json")
    wanted, defaults = (json.loads(json.dumps(c.to_dict())) for c in (config, config_lib.base()))
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        # A key younger than the run had its default value.
        there, ours = ({key: value for part in parts for key, value in config_lib.flat(config_lib.Config(part))}
                       for parts in ((defaults, stored), (wanted,)))
        different = [f"  {key}: {there.get(key)!r} there, {ours.get(key)!r} now"
                     for key in sorted(there.keys() | ours.keys())
                     if there.get(key) != ours.get(key) and not key.startswith(HARDWARE_KEYS)]
        if different:
            raise UserError(f"{workdir} holds a run with another config:\n" + "\n".join(different) +
                            "\nUse another --workdir, or the config of that run (its config.json).")
    if jax.process_index() == 0:
        os.makedirs(workdir, exist_ok=True)
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            json.dump(wanted, file, indent=1)
        os.replace(path + ".tmp", path)
