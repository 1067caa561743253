"""An application behind a socket of this machine, as its clients find it."""

import contextlib
import http.client
import json
import threading
import time

from imagenet_jax.inference import listening

JPEG = {"Content-Type": "image/jpeg"}


class Served:
    """An application behind a socket of this machine, in a thread."""

    def __init__(self, app):
        bound = listening.bind("127.0.0.1", 0)
        self.port, self.server = bound.getsockname()[1], listening.make_server(app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [bound]})
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def ask(self, method, path, body=None, headers=()):
        """Status, headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def predict(self, body, query="", headers=JPEG):
        """Status and JSON."""
        status, _, answer = self.ask("POST", f"/predict{query}", body, headers)
        return status, json.loads(answer)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()
