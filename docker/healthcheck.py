"""Whether the server or the agent of this container answers: exit code 0 if it does, 1 and a sentence if not.

It runs every few seconds for as long as the container lives, so it takes nothing but the standard library, which starts
in a tenth of the time that the commands need.
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

WHEREABOUTS: Final = Path("/var/lib/arborcast/server.json")
"""Where the server says how this host reaches it."""
ANSWER_S: Final = 4.0
"""Seconds to wait for the answer: less than the HEALTHCHECK's own timeout, so that there is a sentence to read."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the agent's unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(os.environ["ARBORCAST_SOCKET"])


def connection_to(what: str) -> tuple[http.client.HTTPConnection, str]:
    """Return the way to what this container runs, and the resource to ask for."""
    if what == "agent":
        return _UnixConnection("agent"), "/status"
    url = urlsplit(json.loads(WHEREABOUTS.read_text(encoding="utf-8"))["local_url"])
    if url.scheme == "http":
        return http.client.HTTPConnection(url.hostname or "", url.port, timeout=ANSWER_S), "/readyz"
    # It is this container's own port, and whether it answers is all that is asked: no name, no token.
    unchecked = ssl._create_unverified_context()  # noqa: S323
    return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=ANSWER_S, context=unchecked), "/readyz"


def check(what: str) -> str:
    """Ask once; an empty string says that all is well."""
    try:
        connection, resource = connection_to(what)
        with contextlib.closing(connection):
            connection.request("GET", resource)
            status = connection.getresponse().status
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return f"the {what} does not answer: {error!r}"
    return "" if status == http.client.OK else f"the {what} answers {resource} with {status}"


if __name__ == "__main__":
    sys.exit(check(sys.argv[1]) or 0)
