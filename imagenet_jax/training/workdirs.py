"""Whose a workdir is: it belongs to the run whose config lies in it."""

import json
import os
from typing import Any

from imagenet_jax import config as config_lib
from imagenet_jax import durable, hosts
from imagenet_jax.errors import UserError

# What may change when a run goes on elsewhere: it changes no number, but for rounding.
HARDWARE_KEYS = ("dataset.dir", "dataset.add_dir", "dataset.service", "loader.", "parallel", "compiler_options",
                 "max_per_device_batch", "log_every", "checkpoint.", "evaluation.batch")
# What hosts of one run may have each its own way.
HOST_KEYS = ("dataset.dir", "dataset.service", "loader.")
# What may change when a run is extended: it leaves the steps that are done as they are.
EXTENDABLE_KEYS = ("duration", "schedule.", "early_stopping")


def changes(config: config_lib.Config, workdir: str, *, extend: bool = False) -> dict[str, tuple[Any, Any]]:
    """What the config changes of the run that the workdir belongs to, {key: (there, now)}; nothing if it is free.

    Args:
        extend: the run may be given another length and schedule.

    Raises:
        UserError: the workdir belongs to a run with another config; says which keys differ.
    """
    path = config_path(workdir)
    if not os.path.exists(path):
        return {}
    stored = read_config(path)
    # A key younger than the run had its default value.
    there, now = ({key: value for part in parts for key, value in config_lib.flat(part)}
                  for parts in ((_plain(config_lib.base()), stored), (_plain(config),)))
    different = {key: (there.get(key), now.get(key)) for key in sorted(there.keys() | now.keys())
                 if there.get(key) != now.get(key) and not key.startswith(HARDWARE_KEYS)}
    refused = [key for key in different if not (extend and key.startswith(EXTENDABLE_KEYS))]
    if refused:
        listed = "\n".join(f"  {key}: {there!r} there, {now!r} now" for key, (there, now) in different.items())
        hint = " Or add --extend, which lets a run go on for longer." if not extend and all(
            key.startswith(EXTENDABLE_KEYS) for key in refused) else ""
        raise UserError(f"{workdir} holds a run with another config:\n{listed}\n"
                        f"Use another --workdir, or the config of that run (its config.json).{hint}")
    return different


def check_place(workdir: str) -> None:
    """Raises UserError for a bucket: half of a run would lie there, and half in a folder called 'gs:'."""
    if "://" in workdir:
        raise UserError(f"--workdir={workdir} is no folder of this machine. Give one; for several hosts one that they "
                        "all see, such as on NFS (Google's Filestore)")


def check_hosts(config: config_lib.Config, workdir: str) -> None:
    """Raises UserError, on all hosts, if one has another config, program or workdir than the first; names it."""
    if hosts.several():
        chosen = {key: value for key, value in config_lib.flat(_plain(config)) if not key.startswith(HOST_KEYS)}
        hosts.check_alike("what they are to do", hosts.of_this_host() | chosen)
        hosts.check_shared(workdir)


def claim(config: config_lib.Config, workdir: str, keep_as: str = "") -> None:
    """Writes config.json, from when on the workdir is the run's; what lies there is kept under the name `keep_as`."""
    if not hosts.is_first():
        return
    os.makedirs(workdir, exist_ok=True)
    path = config_path(workdir)
    if keep_as:
        os.replace(path, os.path.join(workdir, keep_as))
    with durable.create(path) as file:
        json.dump(_plain(config).to_dict(), file, indent=1)


def read_config(path: str) -> config_lib.Config:
    """The config that a run was claimed with.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return config_lib.Config(json.load(file))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}). Remove it if the run is to go on with the config given now; "
                        "each checkpoint says in meta/metadata with which config it was written.") from error


def config_path(workdir: str) -> str:
    """Where the config of a workdir's run lies."""
    return os.path.join(workdir, "config.json")


def _plain(config: config_lib.Config) -> config_lib.Config:
    """As JSON gives it back: tuples are lists."""
    return config_lib.Config(json.loads(json.dumps(config.to_dict())))
