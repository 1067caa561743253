"""The flags of the commands that run on several hosts, one process a host."""

from collections.abc import Callable
from typing import Any

from absl import flags

flags.disclaim_key_flags()  # they are those of the command that calls this


def define_flags() -> Callable[[], dict[str, Any]]:
    """Defines them; returns what gives their values as the arguments of `hosts.joined`."""
    coordinator = flags.DEFINE_string("coordinator", "", "One of several hosts: HOST:PORT of process 0, a free port "
                                      "there. By default JAX_COORDINATOR_ADDRESS.")
    processes = flags.DEFINE_integer("processes", None, "How many there are; by default JAX_NUM_PROCESSES.")
    process = flags.DEFINE_integer("process", None, "Which of them this is, from 0; by default JAX_PROCESS_ID.")
    detect = flags.DEFINE_bool("distributed", False, "Or let JAX find out these three: TPU pods, GKE, Slurm, Open MPI.")
    timeout = flags.DEFINE_float("start_timeout", 300, "Seconds for which hosts wait for each other.", lower_bound=1)
    return lambda: {"coordinator": coordinator.value, "processes": processes.value, "process": process.value,
                    "detect": detect.value, "seconds": timeout.value}
