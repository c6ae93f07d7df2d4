"""The agent's loop round its core: feed, drain, send, re-arm one timer.

Theory of operation. Every input of the core goes through one method here, and each ends in `_drain`: datagrams go
to the endpoint, requests to the control client, events to the application, and one timer is set to the core's next
deadline. An event's handler may feed the core again (a socket was opened); the loop in `_drain` goes round until
nothing is left, and a nested call only marks that there is more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from agent.core.events import Address, ControlRequest, Event, OpenSocket
from agent.core.silences import Arrivals
from agent.core.store import PieceReader
from agent.services.ports import ControlInput, Core, Sockets
from common.errors import TransportError

log = logging.getLogger(__name__)

CONGESTED_WAIT_S: Final = 0.005
"""Seconds until a core that wants to send is asked again while the kernel takes nothing."""
FAILED_WAIT_S: Final = 0.1
"""Seconds until the next wake after an error that should not be: the timer goes on, but not in a hot loop."""

SETTLED_WITHIN_S: Final = 3.0
"""Seconds for which a new stream waits at most for a core that was just started to measure its links."""

_R = TypeVar("_R")


class Driver:
    """Feeds one core and carries out what it wants.

    Args:
        core: the node.
        on_event: takes each event of the core but `OpenSocket`, which is answered here.
        on_request: takes each request to the server.
    """

    def __init__(
        self,
        core: Core,
        *,
        on_event: Callable[[Event], None],
        on_request: Callable[[ControlRequest], None],
    ) -> None:
        self._core = core
        self._on_event = on_event
        self._on_request = on_request
        self._loop = asyncio.get_running_loop()
        self._sockets: Sockets | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._more = False
        self._stopped = False
        self._settled = asyncio.Event()
        self._settled.set()

    def start(self, sockets: Sockets) -> None:
        """Send through these sockets from now on, beginning with what the core has ready."""
        self._sockets = sockets
        self.drain()

    def stop(self) -> None:
        """Tell the peers that this device goes, then set no timer any more and send nothing."""
        self._apply(lambda: self._core.leave(now=self.now))
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def now(self) -> float:
        """The core's clock: the loop's monotonic seconds."""
        return self._loop.time()

    def receive_batch(self, batch: Sequence[tuple[bytes, Address]], socket: int) -> None:
        """Feed what one socket brought."""
        self._apply(lambda: self._core.receive_datagrams(batch, socket=socket, now=self.now))

    def on_unreachable(self, address: Address) -> None:
        """Tell the core that nobody is reached at an address."""
        self._apply(lambda: self._core.on_unreachable(address, now=self.now))

    def receive_control(self, message: ControlInput) -> None:
        """Feed what the server said or failed to say."""
        self._apply(lambda: self._core.receive_control(message, now=self.now))

    def control_connected(self) -> None:
        """Tell the core that the subscription socket is up."""
        self._apply(lambda: self._core.control_connected(now=self.now))

    def control_lost(self) -> None:
        """Tell the core that the subscription socket is down."""
        self._apply(lambda: self._core.control_lost(now=self.now))

    def set_candidates(self, candidates: Iterable[Address]) -> None:
        """Tell the core at which addresses the shared socket is reached."""
        self._apply(lambda: self._core.set_candidates(candidates, now=self.now))

    def set_stun_servers(self, servers: Iterable[Address]) -> None:
        """Tell the core which STUN servers to ask."""
        self._apply(lambda: self._core.set_stun_servers(servers, now=self.now))

    async def settled(self) -> None:
        """Wait, soon after the start and for a few seconds at most, until it is known how large chunks may be."""
        if self._core.settling(now=self.now):
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLED_WITHIN_S):
                    await self._settled.wait()

    def send_file(self, channel: str, name: str, size_bytes: int, reader: PieceReader) -> str:
        """Begin to send a file.

        Returns:
            The stream's id in hex.

        Raises:
            RefusedError: the channel is unknown, the file too large or the streams too many.
            StoreError: the stream's record cannot be kept.
        """
        return self._apply(lambda: self._core.send_file(channel, name, size_bytes, reader, now=self.now))

    def publish(self, channel: str, payload: bytes) -> tuple[str, int]:
        """Publish a message.

        Returns:
            The stream's id in hex and the message's number in it.

        Raises:
            RefusedError: the channel is unknown, the message too large or too much waits already.
        """
        return self._apply(lambda: self._core.publish(channel, payload, now=self.now))

    def cancel(self, stream: str) -> None:
        """Take back a stream that this device sends.

        Raises:
            RefusedError: there is no such stream here.
        """
        self._apply(lambda: self._core.cancel(stream, now=self.now))

    def status(self) -> Any:
        """Return the core's report of itself."""
        return self._core.status(now=self.now)

    def arrivals(self) -> Mapping[str, Arrivals]:
        """Return when each stream, by its id in hex, brought something new."""
        return self._core.arrivals()

    def drain(self) -> None:
        """Carry out everything that the core wants, then set the timer for what it wants next."""
        self._more = True
        if self._draining or self._stopped:
            return
        self._draining = True
        earliest = self.now + FAILED_WAIT_S
        try:
            while self._more:
                self._more = False
                self._drain_datagrams()
                self._drain_requests()
                self._drain_events()
            earliest = 0.0
            if not self._settled.is_set() and not self._core.settling(now=self.now):
                self._settled.set()
        finally:
            self._draining = False
            self._arm(earliest)

    def _apply(self, call: Callable[[], _R]) -> _R:
        try:
            return call()
        finally:
            self.drain()

    def _drain_datagrams(self) -> None:
        if self._sockets is None:
            return
        # A kernel that takes no more is the one thing that stops a core which still wants to send.
        while not self._sockets.congested:
            trains = self._core.poll_transmit(now=self.now)
            if not trains:
                return
            for train in trains:
                self._sockets.send(train.socket, train.address, train.datagrams)

    def _drain_requests(self) -> None:
        while (request := self._core.poll_control()) is not None:
            self._on_request(request)

    def _drain_events(self) -> None:
        while (event := self._core.poll_event()) is not None:
            if isinstance(event, OpenSocket):
                self._open(event)
            else:
                self._on_event(event)

    def _open(self, request: OpenSocket) -> None:
        if self._sockets is None:
            return
        try:
            socket, port = self._sockets.open()
        except TransportError as error:
            log.warning("= no socket for channel %s and peer %s: %s", request.channel, request.peer, error)
            return
        self._core.socket_opened(request, socket, port, now=self.now)
        self._more = True

    def _arm(self, earliest: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._core.poll_timeout()
        if when is None or self._stopped:
            return
        if self._sockets is not None and self._sockets.congested:
            earliest = max(earliest, self.now + CONGESTED_WAIT_S)
        self._timer = self._loop.call_at(max(when, earliest), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._apply(lambda: self._core.handle_timeout(now=self.now))
