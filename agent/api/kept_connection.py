"""A WebSocket of the local API, as uvicorn serves it, whose other end may not leave the answers unread for ever."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

log = logging.getLogger(__name__)

UNREAD_S: Final = 10.0
"""Seconds for which the other end may leave more unread than the buffers hold."""


class KeptConnection(WebSocketsSansIOProtocol):
    """Cuts off who reads nothing: closing would wait for the answers to be read."""

    _cutting: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Stop writing, for a limited time."""
        super().pause_writing()
        self._cutting = self.loop.call_later(UNREAD_S, self._cut_off)

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        self._keep()

    def connection_lost(self, exc: Exception | None) -> None:
        """End with the connection."""
        self._keep()
        super().connection_lost(exc)

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says; a refusal in place of the handshake ends the handshake properly."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Otherwise it is logged as a fault of the application.
            self.handshake_complete = True

    def _keep(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None

    def _cut_off(self) -> None:
        log.warning("= a publisher has not read its answers for %g s: its connection is cut", UNREAD_S)
        self.transport.abort()
