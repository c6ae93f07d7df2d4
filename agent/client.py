"""The commands' side of the local API: requests to the running agent by its unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from common.errors import ConfigError, ConnectError, LinkTimeout, RefusedError, RemoteProtocolError

REQUEST_S: Final = 10.0
"""Seconds in which the agent has to answer a plain request."""
SILENCE_S: Final = 30.0
"""Seconds of silence after which an open answer counts as dead; the agent says something every 5."""
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of one line of an open answer: the largest message in base64 is below 2 MiB."""

Line = dict[str, Any]


class AgentClient:
    """Requests to one running agent.

    Args:
        path: its unix socket.
        transport: what carries the requests in place of the socket.
    """

    def __init__(self, path: Path, transport: httpx.BaseTransport | None = None) -> None:
        self._path = path
        self._probed = transport is not None
        self._client = httpx.Client(
            transport=transport or httpx.HTTPTransport(uds=str(path)),
            base_url="http://agent",
            timeout=REQUEST_S,
        )

    def __enter__(self) -> Self:
        """Raise ConnectError if no agent answers."""
        if not self._probed:
            # httpx would leave the socket of a failed connection open, and not say what is wrong.
            connected(self._path).close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        """Return what the agent shows.

        Raises:
            ConnectError: no agent answers.
            RefusedError: it declines.
        """
        return self._request("GET", path).json()

    def acknowledge(self, consumer: str, channel: str, numbers: Mapping[str, int]) -> None:
        """Keep how far a consumer is.

        Raises:
            ConnectError: no agent answers.
            RefusedError: it declines.
        """
        body = {"consumer": consumer, "channel": channel, "numbers": dict(numbers)}
        self._request("POST", "/cursors", body=body)

    def cancel(self, stream: str) -> None:
        """Take a stream back.

        Raises:
            ConnectError: no agent answers.
            RefusedError: it declines.
        """
        self._request("DELETE", f"/streams/{stream}")

    def send_file(self, body: Mapping[str, object]) -> Iterator[list[Line]]:
        """Send a file and yield what happens, in batches of lines.

        Raises:
            ConnectError: no agent answers, or it went away.
            RefusedError: it declines.
        """
        return self._stream("POST", "/streams/file", body=body)

    def follow(self, params: Mapping[str, str]) -> Iterator[list[Line]]:
        """Follow a channel and yield what comes, in batches of lines.

        Raises:
            ConnectError: no agent answers, or it went away.
            RefusedError: it declines.
        """
        return self._stream("GET", "/messages", params=dict(params))

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
    ) -> httpx.Response:
        with self._errors():
            response = self._client.request(method, path, json=body)
        _check(response)
        return response

    def _stream(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Iterator[list[Line]]:
        timeout = httpx.Timeout(REQUEST_S, read=SILENCE_S)
        with (
            self._errors(),
            self._client.stream(method, path, params=params, json=body, timeout=timeout) as response,
        ):
            if response.is_error:
                response.read()
                _check(response)
            rest = b""
            for part in response.iter_bytes():
                *lines, rest = (rest + part).split(b"\n")
                if lines:
                    yield [decode_line(line) for line in lines]
                if len(rest) > MAX_LINE_BYTES:
                    raise RemoteProtocolError("the agent's answer has a line without an end")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say what went wrong in the words of the user."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ConnectError(f"no agent answers at {self._path}; start one with `arborcast agent`") from error
        except httpx.TimeoutException as error:
            raise LinkTimeout(f"the agent at {self._path} fell silent") from error
        except UnicodeEncodeError as error:
            raise ConfigError(f"names must be UTF-8, and {error.object!r} is not") from error
        except httpx.HTTPError as error:
            raise ConnectError(f"the agent at {self._path} went away: {error}") from error


def connected(path: Path) -> socket.socket:
    """Return a socket that is connected with the agent.

    Raises:
        ConnectError: no agent answers.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(REQUEST_S)
    try:
        made.connect(str(path))
    except PermissionError as error:
        made.close()
        raise ConnectError(f"the agent at {path} belongs to another user") from error
    except OSError as error:
        made.close()
        raise ConnectError(f"no agent answers at {path}; start one with `arborcast agent`") from error
    return made


def refusal(status: int, phrase: str, body: bytes) -> RefusedError:
    """Return what a problem answer says.

    Args:
        status: of the answer.
        phrase: its status in words, for an answer without any of its own.
        body: the problem as JSON.
    """
    try:
        problem = json.loads(body)
        return RefusedError(str(problem["reason"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        return RefusedError(f"http-{status}", phrase)


def decode_line(line: bytes) -> Line:
    """Return the object of JSON that the agent said.

    Raises:
        RemoteProtocolError: it is none.
    """
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError("the agent's answer cannot be read") from error


def _check(response: httpx.Response) -> None:
    if response.is_error:
        raise refusal(response.status_code, response.reason_phrase, response.content)
