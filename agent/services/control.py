"""The agent's side of the control plane: one subscription kept up, requests carried out.

Theory of operation. `run` keeps one WebSocket to the server, for ever, with growing waits between tries. When it is
up the core is told, and what it asks for at that moment goes out with the subscription first. From then on reports
travel on the socket. What waits there when it closes is dropped: the core reports only while it is connected, and all
anew when it is again. REST takes the reports of a core that is connected and has not subscribed, and any that come
without a socket. Of each kind of report only the newest waits.
Queries always go by REST, a few at a time, and every one of them ends in an answer or in `ControlFailed`. A server
that is gone is waited for; one that refuses this device ends `run` with `NoAccess`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect

from agent.core.events import (
    ControlFailed,
    ControlRequest,
    QueryGraph,
    QueryNeighbours,
)
from agent.services.backoff import Backoff
from agent.services.control_rest import NoAccess, Query, RestClient, WrongServer, read_problem
from agent.services.identity import Identity
from agent.services.pinning import make_tls, untrusted
from agent.services.ports import ControlInput, Listener
from agent.services.rival import DEVICE_IN_USE, Rival, await_alone
from agent.services.rotation import TokenRotation
from agent.services.server_clock import ServerClock
from common.errors import ConnectError, DecodeError, RefusedError, RemoteProtocolError
from common.limits import MAX_CONTROL_BYTES, MAX_PEERS
from common.messages import (
    EnrolmentAnswer,
    ErrorMessage,
    QosReport,
    Report,
    Subscribe,
    decode_server_message,
    encode_message,
)
from common.tokens import make_token
from common.versions import API_VERSION, VERSION_HEADER

log = logging.getLogger(__name__)

CONNECT_S: Final = 10.0
"""Seconds in which a subscription socket has to open."""
SEND_S: Final = 10.0
"""Seconds in which the server has to take one message."""
PING_S: Final = 10.0
"""Seconds between pings, and until one unanswered ends the connection."""
STEADY_S: Final = 5.0
"""Seconds that a connection has to last before the waits begin anew."""
QUERIES_WAITING: Final = 64
"""Queries that wait for their turn; more are answered as failed at once."""
QUERIES_AT_ONCE: Final = 4
"""Queries under way at a time."""
NO_ACCESS_REASONS: Final = ("evicted", "bad-token", "foreign-token", "unknown-device")
"""Last words of a server that knows this device no more."""
_HTTP_NO_ACCESS: Final = (401, 403)


class Outbox:
    """Messages for the open socket: the subscription first, and of each kind of report the newest."""

    def __init__(self) -> None:
        self._waiting: dict[str, Subscribe | Report] = {}
        self._filled = asyncio.Event()

    def put(self, message: Subscribe | Report) -> None:
        """Add a message, in place of an older one of its kind."""
        older = self._waiting.get(message.type)
        if isinstance(message, QosReport) and isinstance(older, QosReport):
            # Links that a report does not name keep their figures, so a newer report does not undo an older.
            merged = {**older.links, **message.links}
            message = QosReport(links=dict(list(merged.items())[-MAX_PEERS:]))
        self._waiting[message.type] = message
        self._filled.set()

    async def get(self) -> Subscribe | Report:
        """Take the next message, as soon as there is one."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        kind = "subscribe" if "subscribe" in self._waiting else next(iter(self._waiting))
        return self._waiting.pop(kind)

    def move_to(self, other: Outbox) -> None:
        """Let another outbox have everything that waits."""
        for message in self._waiting.values():
            other.put(message)
        self._waiting.clear()


class ControlClient:
    """Keeps one agent attached to its server.

    Args:
        server: ``http(s)://host:port``.
        rest: its REST side; `enrol` completes the identity.
        listener: is told what the server says and whether the subscription is up.
        rng: for the jitter of the waits.
        loopback: whether the server is on this host, where no proxy is wanted.
        ca_file: the authorities for the server's certificate; None takes the system's.
        fingerprint: SHA-256 of the server's certificate where that vouches for it.
        rotation: changes the device's token in time; None leaves it as it is.
    """

    def __init__(
        self,
        server: str,
        rest: RestClient,
        *,
        listener: Listener,
        rng: random.Random,
        loopback: bool,
        ca_file: Path | None = None,
        fingerprint: bytes | None = None,
        rotation: TokenRotation | None = None,
    ) -> None:
        self._rest = rest
        self._rotation = rotation
        self._server = server.rstrip("/")
        self._listener = listener
        self._rng = rng
        self._loopback = loopback
        self._tls = make_tls(ca_file, fingerprint) if urlsplit(server).scheme == "https" else None
        self._queries: asyncio.Queue[Query] = asyncio.Queue(QUERIES_WAITING)
        self._reports = Outbox()
        self._socket: Outbox | None = None
        self._greeting = False
        self._subscribed = False
        self._instance = f"{rng.getrandbits(64):016x}"
        self._rival = Rival()
        self.trouble = "it has not answered yet"
        """Why the subscription was not up when it last was not."""

    @property
    def identity(self) -> Identity:
        """Who this agent is to the server."""
        return self._rest.identity

    @property
    def attached(self) -> bool:
        """Whether the subscription is up."""
        return self._subscribed

    @property
    def clock(self) -> ServerClock:
        """What the server's answers say of this host's clock."""
        return self._rest.clock

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def await_alone(self) -> None:
        """Wait until no other agent runs as this device, as far as the server can tell.

        Raises:
            NoAccess: one goes on running.
        """
        identity = self._rest.identity
        await await_alone(self._rest, identity.device, identity.group)

    async def enrol(
        self,
        join_token: str,
        *,
        keep: Callable[[Identity], None],
        entropy: Callable[[int], bytes],
        wall: Callable[[], float],
    ) -> EnrolmentAnswer:
        """Become a member, waiting for a server that is not there yet.

        The device makes its token itself and keeps it before the server hears of it: an answer may be lost.

        Args:
            join_token: lets a new device in.
            keep: stores the identity with its token.
            entropy: gives that many random bytes.
            wall: gives unix seconds.

        Raises:
            NoAccess: the server declines.
            WrongServer: what answers shows a certificate that is not trusted.
            ConfigError: the identity cannot be kept.
        """
        rest = self._rest
        if rest.identity.next_token is None:
            rest.identity = rest.identity.prepared(make_token(rest.identity.device, entropy))
            keep(rest.identity)
        backoff = Backoff(self._rng)
        while True:
            try:
                await rest.greet(join_token)
                answer = await rest.enrol(join_token)
            except WrongServer:
                raise
            except (ConnectError, RemoteProtocolError) as error:
                wait = backoff.next()
                log.warning("= not enrolled yet, next try in %.1f s: %s", wait, error)
                await asyncio.sleep(wait)
                continue
            rest.identity = rest.identity.confirmed(made=wall())
            keep(rest.identity)
            log.info("= enrolled as device %s of group %s", answer.device, answer.group)
            return answer

    def request(self, request: ControlRequest) -> None:
        """Carry out what the core asks for; the answer comes to the listener."""
        if isinstance(request, QueryNeighbours | QueryGraph):
            try:
                self._queries.put_nowait(request)
            except asyncio.QueueFull:
                failed = ControlFailed(request, f"{QUERIES_WAITING} queries are waiting already")
                asyncio.get_running_loop().call_soon(self._listener.receive_control, failed)
        elif isinstance(request, Subscribe):
            # Without a socket there is nothing to do: the core asks again when it is told of one.
            if self._socket is not None:
                self._socket.put(request.model_copy(update={"instance": self._instance}))
                self._subscribed = True
        elif self._socket is not None and (self._subscribed or self._greeting):
            self._socket.put(request)
        else:
            self._reports.put(request)

    async def run(self) -> None:
        """Stay attached until cancelled.

        Raises:
            NoAccess: the server refuses this device.
        """
        refused: NoAccess | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_subscribed(), name="subscription")
                tasks.create_task(self._report_by_rest(), name="reports")
                if self._rotation is not None:
                    tasks.create_task(self._rotation.run(), name="rotation")
                for number in range(QUERIES_AT_ONCE):
                    tasks.create_task(self._answer_queries(), name=f"queries-{number}")
        except* NoAccess as group:
            refused = _first(group)
        # Not in there: what is raised inside of except* comes out in a group.
        if refused is not None:
            raise refused

    async def _keep_subscribed(self) -> None:
        backoff = Backoff(self._rng)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._subscription()
                why, level = "the server closed the connection", logging.INFO
            except (ConnectError, OSError, TimeoutError, websockets.WebSocketException) as error:
                why, level = _describe(error), logging.ERROR if untrusted(error) else logging.INFO
            if loop.time() - began >= STEADY_S:
                backoff.reset()
            wait = backoff.next()
            self.trouble = why
            log.log(level, "= not attached to the server, next try in %.2f s: %s", wait, why)
            await asyncio.sleep(wait)

    async def _subscription(self) -> None:
        """Open one socket and serve it until it ends."""
        url = f"ws{self._server.removeprefix('http')}/v1/groups/{self._rest.identity.group}/subscribe"
        token = self._rest.identity.token
        try:
            connection = await connect(
                url,
                additional_headers={"Authorization": f"Bearer {token}", VERSION_HEADER: str(API_VERSION)},
                compression=None,
                max_size=MAX_CONTROL_BYTES,
                open_timeout=CONNECT_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                close_timeout=1.0,
                proxy=None if self._loopback else True,
                ssl=self._tls,
            )
        except websockets.InvalidStatus as error:
            if error.response.status_code in _HTTP_NO_ACCESS:
                self._rest.check_shown(token)
                raise NoAccess("unauthorized", self._not_known("the subscription")) from error
            raise
        if connection.response is not None:
            self._rest.clock.note(connection.response.headers.get("Date"))
        async with connection:
            await self._serve(connection)

    async def _serve(self, connection: ClientConnection) -> None:
        outbox = Outbox()
        self._socket, self._greeting = outbox, True
        self._listener.control_connected()
        self._greeting = False
        if not self._subscribed:
            # The server takes reports on a socket only after a subscription.
            outbox.move_to(self._reports)
        sender = asyncio.create_task(self._send_all(connection, outbox), name="sender")
        try:
            await self._receive_all(connection)
        finally:
            self._socket, self._subscribed = None, False
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._listener.control_lost()

    async def _send_all(self, connection: ClientConnection, outbox: Outbox) -> None:
        """Send what waits, from the subscription on; a server that takes nothing loses the connection."""
        try:
            while True:
                message = await outbox.get()
                log.debug("> %s", message.type)
                async with asyncio.timeout(SEND_S):
                    await connection.send(encode_message(message))
        except (TimeoutError, OSError, websockets.WebSocketException):
            connection.transport.abort()

    async def _receive_all(self, connection: ClientConnection) -> None:
        try:
            async for data in connection:
                try:
                    message = decode_server_message(data)
                except DecodeError as error:
                    log.warning("< a message that cannot be read: %s", error)
                    continue
                log.debug("< %s", message.type)
                self._listener.receive_control(message)
                if isinstance(message, ErrorMessage):
                    self._on_error(message)
                else:
                    self._rival.gone()
        except websockets.ConnectionClosedError as error:
            received = error.rcvd
            if received is not None and received.reason in NO_ACCESS_REASONS:
                raise NoAccess(received.reason, self._not_known(received.reason)) from error
            raise

    def _on_error(self, message: ErrorMessage) -> None:
        if message.reason in NO_ACCESS_REASONS:
            raise NoAccess(message.reason, self._not_known(message.detail or message.reason))
        if message.reason == DEVICE_IN_USE and self._rival.lasts(asyncio.get_running_loop().time()):
            raise NoAccess(message.reason, self._not_known(message.detail))
        log.warning("< the server declines: %s: %s", message.reason, message.detail)

    async def _report_by_rest(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            message = await self._reports.get()
            if isinstance(message, Subscribe):
                continue
            try:
                await self._rest.report(message)
                backoff.reset()
            except NoAccess as error:
                raise NoAccess(error.reason, self._not_known(error.detail)) from error
            except (ConnectError, RefusedError) as error:
                self._listener.receive_control(ControlFailed(message, str(error)))
                await asyncio.sleep(backoff.next())

    async def _answer_queries(self) -> None:
        while True:
            query = await self._queries.get()
            try:
                answer: ControlInput = await self._rest.query(query)
            except NoAccess as error:
                raise NoAccess(error.reason, self._not_known(error.detail)) from error
            except (ConnectError, RefusedError, RemoteProtocolError) as error:
                log.info("= a query failed: %s", error)
                answer = ControlFailed(query, str(error))
            self._listener.receive_control(answer)

    def _not_known(self, detail: str) -> str:
        identity = self._rest.identity
        return (
            f"the server at {self._server} does not accept device {identity.device!r}"
            f" of group {identity.group!r} any more: {detail}"
        )


def _describe(error: BaseException) -> str:
    if isinstance(error, websockets.InvalidStatus):
        answer = error.response
        return f"it answers {answer.status_code}: {read_problem(answer.body or b'')[1] or answer.reason_phrase}"
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_S:g} s"
    return str(error) or type(error).__name__


def _first(group: BaseExceptionGroup[NoAccess]) -> NoAccess:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, NoAccess)  # noqa: S101 - what except* selected
    return found
