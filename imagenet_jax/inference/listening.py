"""An application answers over HTTP, until the process is told to stop."""

import signal
import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagenet_jax.errors import UserError

_CONNECTIONS = 512  # whoever comes beyond gets 503; each takes a file descriptor, of which there may be 1,024


def bind(host: str, port: int) -> socket.socket:
    """A socket of this address that does not listen yet; port 0 stands for any free one.

    Raises:
        UserError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UserError(f"--host={host} --port={port}: {error.strerror}; choose another") from error
    return bound


def url(bound: socket.socket) -> str:
    """Where a socket is found."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp) -> uvicorn.Server:
    """What answers with an application; it writes the errors of that alone to stderr.

    Once it is told to stop, its last answers tell their clients that the connection is no more.
    """

    async def parting(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and server.should_exit:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await app(scope, receive, sent)

    server = uvicorn.Server(uvicorn.Config(
        parting, loop="asyncio", http="h11", ws="none", lifespan="on", log_level="error", access_log=False,
        server_header=False, limit_concurrency=_CONNECTIONS))
    return server


def listen(app: ASGIApp, bound: socket.socket) -> None:
    """Answers until SIGTERM or Ctrl-C, and then what has been accepted; returns when all is answered."""
    def stopped(number: int, frame: FrameType | None) -> None:
        """Nothing is left to do when uvicorn, which has handled the signal, raises it again in the end."""

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    make_server(app).run(sockets=[bound])
