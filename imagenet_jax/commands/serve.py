"""Say what is on pictures over HTTP: POST them to /predict, or open the page in a browser.

It has no password: with --host=127.0.0.1 only users of this machine can ask, with any other everybody can who reaches
it. SIGTERM or Ctrl-C ends it when all that has been accepted is answered.
"""

import os

from absl import flags

from imagenet_jax.commands import _network

NETWORK = _network.define_flags("is asked")
INDEX = flags.DEFINE_string("index", "", "An index that `search` made with the same network: answers have pictures of "
                            "it, too, which everybody sees who can ask.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen at; 0.0.0.0 for all of this machine.")
PORT = flags.DEFINE_integer("port", 8000, "Where to listen; 0 for any free port.", lower_bound=0, upper_bound=65535)
BATCH = flags.DEFINE_integer("batch", 32, "Pictures at a time over all devices, at most; changes no prediction.",
                             lower_bound=1)
QUEUE = flags.DEFINE_integer("queue", 256, "Pictures accepted and not answered, at most; then 429.", lower_bound=1)
WAIT = flags.DEFINE_float("wait_ms", 5.0, "How long the first picture of a batch waits for others.", lower_bound=0)
TIMEOUT = flags.DEFINE_float("timeout_s", 30.0, "How long a body may take to come (408), and then its answer (503).",
                             lower_bound=0.1)
MEGABYTES = flags.DEFINE_float("max_megabytes", 32.0, "Of a request, at most; beyond it 413.", lower_bound=0.001)


def main(argv: list[str]) -> None:
    """Runs the command until it is told to stop; `argv` holds nothing but its name."""
    from imagenet_jax import runtime

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # no warnings: it has one for each picture that it cannot decode
    runtime.configure()
    from imagenet_jax.inference import batching, listening, serving
    from imagenet_jax.inference import index as index_lib
    from imagenet_jax.training import evaluating

    bound = listening.bind(HOST.value, PORT.value)
    index = index_lib.open_index(INDEX.value) if INDEX.value else None
    trained = evaluating.open_trained(*NETWORK())
    app = serving.make_app(trained, batching.Limits(BATCH.value, QUEUE.value, WAIT.value / 1000),
                           serving.Rules(round(MEGABYTES.value * 1e6), TIMEOUT.value), index)
    print(f"{trained.config.model.name}, {trained.which} of {trained.source}, answers at {listening.url(bound)}",
          flush=True)
    listening.listen(app, bound)
