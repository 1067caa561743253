"""Serve training input to runs elsewhere: a dispatcher, or a worker of one (launch/data_service.sh starts both).

Whoever can connect can run what they like here, without a password: that is how TensorFlow's service is made. With
--address=localhost Linux lets only users of this machine connect; with any other name everybody can who reaches it, so
use that only in a private network or behind a firewall.
"""

import signal
import threading

from absl import flags

PORT = flags.DEFINE_integer("port", None, "Where to listen; 0 lets a worker choose.", required=True)
DISPATCHER = flags.DEFINE_string("dispatcher", "", "host:port of the dispatcher to work for; without it, be one.")
ADDRESS = flags.DEFINE_string("address", "localhost", "Name under which runs reach this process. With localhost only "
                              "this machine can connect, with any other name every one, and run what it likes.")


def main(argv: list[str]) -> None:
    """Runs the command until it is terminated; `argv` holds nothing but its name."""
    from imagenet_jax.input import service

    server, is_closed = service.serve(PORT.value, DISPATCHER.value, ADDRESS.value)
    print(f"worker of {DISPATCHER.value} is up" if DISPATCHER.value else f"dispatcher: --config.dataset.service="
          f"{ADDRESS.value}:{PORT.value}")
    print(service.CLOSED if is_closed else service.OPEN, flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to save: what a lost worker had is made elsewhere
    threading.Event().wait()
    del server
