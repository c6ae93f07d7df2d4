"""The publisher's side of the local API: a kept connection on which each message is one frame.

The socket blocks, and every wait on it ends: neither a thread nor a loop stands between the caller and the agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.uri import parse_uri

from agent.client import SILENCE_S, Line, connected, decode_line, refusal
from common.errors import ConfigError, ConnectError, LinkTimeout, RefusedError, RemoteProtocolError
from common.limits import MAX_BODY_BYTES

_READ_BYTES: Final = 1 << 16


class Publisher:
    """Publishes on one channel of a running agent.

    Args:
        path: the agent's unix socket.
        channel: what to publish on.

    Raises:
        ConfigError: the channel's name is no text.
        ConnectError: no agent answers.
        RefusedError: it declines; there may be no such channel.
    """

    def __init__(self, path: Path, channel: str) -> None:
        try:
            query = urlencode({"channel": channel})
        except UnicodeEncodeError as error:
            raise ConfigError(f"names must be UTF-8, and {channel!r} is not") from error
        self._path = path
        self._protocol = ClientProtocol(parse_uri(f"ws://agent/messages/publish?{query}"), max_size=MAX_BODY_BYTES)
        self._events: deque[Request | Response | Frame] = deque()
        self._socket = connected(self._path)
        self._socket.settimeout(SILENCE_S)
        try:
            self._shake_hands()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Return the publisher; the connection ends with the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def publish(self, payload: bytes) -> Line:
        """Publish a message and return its stream and number; while the agent's queue is full, wait for room.

        Raises:
            ConnectError: the agent went away; whether it took the message is not known.
            LinkTimeout: it fell silent; the same.
            RefusedError: it declines, and takes no more on this connection.
        """
        with self._errors():
            self._protocol.send_binary(payload)
            event = self._next()
        if not isinstance(event, Frame) or event.opcode is not Opcode.TEXT:
            raise ConnectError(f"the agent at {self._path} went away")
        answer = decode_line(bytes(event.data))
        if "reason" in answer:
            raise RefusedError(str(answer["reason"]), str(answer.get("detail")))
        return answer

    def _shake_hands(self) -> None:
        with self._errors():
            self._protocol.send_request(self._protocol.connect())
            event = self._next()
            if isinstance(event, Response) and event.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
                raise refusal(event.status_code, event.reason_phrase, bytes(event.body or b""))
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc

    def _next(self) -> Request | Response | Frame:
        """Send what is ready, and wait for what comes next."""
        while not self._events:
            self._socket.sendall(b"".join(self._protocol.data_to_send()))
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError
            self._protocol.receive_data(data)
            self._events.extend(self._protocol.events_received())
            if self._protocol.handshake_exc is not None and not self._events:
                raise self._protocol.handshake_exc
        return self._events.popleft()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say what went wrong in the words of the user."""
        try:
            yield
        except TimeoutError as error:
            raise LinkTimeout(f"the agent at {self._path} fell silent") from error
        except InvalidHandshake as error:
            raise RemoteProtocolError("the agent's answer cannot be read") from error
        except (OSError, WebSocketException) as error:
            raise ConnectError(f"the agent at {self._path} went away") from error
