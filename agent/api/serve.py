"""The local API on its unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from agent.api import messages, publishing, status, streams
from agent.api.kept_connection import KeptConnection
from agent.api.local import LocalAgent
from agent.api.problems import install
from common.errors import ConfigError
from common.limits import MAX_MESSAGE_BYTES

STOP_S: Final = 2
"""Seconds that open answers get to end when the agent stops."""
_BACKLOG: Final = 64
_PROBE_S: Final = 1.0


def make_api(local: LocalAgent) -> FastAPI:
    """Return the application that answers for one running agent."""
    app = FastAPI(
        title="arborcast agent",
        description="The local API of one agent; it listens on a unix socket of its user's.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.local = local
    install(app)
    for router in (status.router, streams.router, messages.router, messages.cursors, publishing.router):
        app.include_router(router)
    return app


class ApiServer(uvicorn.Server):
    """Serves the local API until told to stop; the agent handles the signals."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws=KeptConnection,
                ws_per_message_deflate=False,
                # A unix socket's other end does not vanish unseen.
                ws_ping_interval=None,
                # What is somewhat too long is refused with the limit, and not by cutting the connection.
                ws_max_size=2 * MAX_MESSAGE_BYTES,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def bind_control_socket(path: Path) -> socket.socket:
    """Bind the unix socket, readable and writable by its owner alone.

    Args:
        path: where; what a dead agent left there is removed.

    Raises:
        ConfigError: another agent listens there, or it cannot be bound.
    """
    if _answers(path):
        raise ConfigError(f"another agent listens at {path}; name another with --control-socket")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_socket():
            path.unlink()
        _bind_private(bound, path)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from error
    bound.setblocking(False)
    return bound


def _bind_private(bound: socket.socket, path: Path) -> None:
    # The umask, and not a later chmod: there is no moment at which others could connect.
    before = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(before)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
