"""Serve training input to runs elsewhere: a dispatcher, or a worker of one (launch/data_service.sh starts both)."""

import signal
import threading

from absl import flags

PORT = flags.DEFINE_integer("port", None, "Where to listen; 0 lets a worker choose.", required=True)
DISPATCHER = flags.DEFINE_string("dispatcher", "", "host:port of the dispatcher to work for; without it, be one.")
ADDRESS = flags.DEFINE_string("address", "localhost", "Name under which runs reach this worker.")


def main(argv: list[str]) -> None:
    """Runs the command until it is terminated; `argv` holds nothing but its name."""
    from imagenet_jax.input import service

    server = service.serve(PORT.value, DISPATCHER.value, ADDRESS.value)
    print(f"worker of {DISPATCHER.value} is up" if DISPATCHER.value else f"dispatcher: --config.dataset.service="
          f"{ADDRESS.value}:{PORT.value}", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to save: what a lost worker had is made elsewhere
    threading.Event().wait()
    del server
