"""What the agent asks of the server over REST: enrolment, queries, and reports while no subscription is up."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.core.events import QueryGraph, QueryNeighbours
from agent.services.identity import Identity
from agent.services.pinning import make_tls, untrusted
from agent.services.server_clock import ServerClock
from common.errors import ConnectError, RefusedError, RemoteProtocolError
from common.fields import encode_key
from common.limits import MAX_CONTROL_BYTES
from common.messages import (
    Enrolment,
    EnrolmentAnswer,
    GraphBody,
    Message,
    NeighboursBody,
    Report,
    TokenRotation,
    describe,
)
from common.tokens import hash_token
from common.versions import API_VERSION, VERSION_HEADER

LOOK_S: Final = 2.0
"""Seconds for which a start waits for what the server knows of this device."""
REQUEST_S: Final = 5.0
"""Seconds that one request may take, all in all."""
_ANSWERS_KEPT: Final = 64
_HTTP_OK: Final = 200
_HTTP_NOT_MODIFIED: Final = 304
_HTTP_MULTIPLE: Final = 300
_HTTP_SERVER_ERROR: Final = 500
_HTTP_BUSY: Final = 429
_HTTP_NO_ACCESS: Final = (401, 403)
OTHER_VERSION: Final = "other-version"
"""The server does not speak this device's version."""
_PERHAPS_IN: Final = ("bad-token", "device-exists")
"""Refusals of a join token that an enrolment whose answer was lost may have caused itself."""

_M = TypeVar("_M", bound=BaseModel)
Query = QueryNeighbours | QueryGraph
Answer = NeighboursBody | GraphBody


class NoAccess(RefusedError):
    """The server does not know this device any more, or not yet: trying again does not help."""


class WrongServer(ConnectError):
    """What answers shows a certificate that this device does not trust."""


class DeviceUse(BaseModel):
    """What this device wants to know of what the server says of it."""

    model_config = ConfigDict(extra="ignore")

    in_use: bool = False


class RestClient:
    """One agent's requests to one server.

    Args:
        server: ``http(s)://host:port``.
        identity: who asks.
        loopback: whether the server is on this host, where no proxy is wanted.
        ca_file: the authorities for the server's certificate; None takes the system's.
        fingerprint: SHA-256 of the server's certificate where that vouches for it.
        transport: what carries the requests in place of the network.

    Raises:
        ConfigError: the authorities cannot be read.
    """

    def __init__(
        self,
        server: str,
        identity: Identity,
        *,
        loopback: bool,
        ca_file: Path | None = None,
        fingerprint: bytes | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.identity = identity
        self.clock = ServerClock(time.time)
        self._group = f"/v1/groups/{identity.group}"
        self._device = f"{self._group}/devices/{identity.device}"
        self._kept: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._client = httpx.AsyncClient(
            base_url=server.rstrip("/"),
            timeout=REQUEST_S,
            trust_env=not loopback,
            verify=make_tls(ca_file, fingerprint),
            transport=transport,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def greet(self, token: str) -> None:
        """Find out whether this device and the server can do with each other at all, before one knows the other.

        Raises:
            NoAccess: the server does not speak this device's version, or one of both clocks is wrong.
            ConnectError: it did not answer, or could not now.
        """
        response = await self._send("GET", "/v1", token=token)
        if response.is_client_error and _problem(response)[0] == OTHER_VERSION:
            raise NoAccess(*_problem(response))
        if wrong := self.clock.wrong():
            raise NoAccess("clock-wrong", wrong)

    async def is_in_use(self) -> bool:
        """Tell whether an agent that lives is subscribed as this device.

        Raises:
            RefusedError: the server does not know the device, or declines.
            ConnectError: it did not answer soon, or could not now.
            RemoteProtocolError: it answered what is no answer.
        """
        try:
            async with asyncio.timeout(LOOK_S):
                response = await self._send("GET", self._device, refuse=True)
        except TimeoutError as error:
            raise ConnectError(f"the server does not answer within {LOOK_S:g} s") from error
        return _decode(DeviceUse, response.content).in_use

    async def enrol(self, join_token: str) -> EnrolmentAnswer:
        """Become a member, with the token to come of the identity.

        Where a join token does not do, the device may have got in by it before, and the answer been lost: then its own
        token does.

        Raises:
            NoAccess: the server declines; the reason is for the user.
            ConnectError: it did not answer, or could not now.
            RemoteProtocolError: it answered what is no answer.
        """
        identity = self.identity
        own = identity.next_token or ""
        body = Enrolment(
            device=identity.device,
            public_key=encode_key(identity.public_key),
            signing_key=encode_key(identity.signing_key),
            token_hash=hash_token(own),
        )
        response = await self._send("POST", f"{self._group}/devices", token=join_token, body=body)
        if response.is_client_error:
            declined = NoAccess(*_problem(response))
            if declined.reason not in _PERHAPS_IN:
                raise declined
            response = await self._send("POST", f"{self._group}/devices", token=own, body=body)
            if response.is_client_error:
                raise declined
        return _decode(EnrolmentAnswer, response.content)

    async def rotate_token(self) -> None:
        """Tell the server of the token to come; it takes that beside the one in use.

        Raises:
            NoAccess: the device is no member any more.
            RefusedError: the server declines.
            ConnectError: it did not answer, or could not now.
        """
        body = TokenRotation(token_hash=hash_token(self.identity.next_token or ""))
        await self._send("POST", f"{self._device}/token", body=body, refuse=True)

    async def query(self, request: Query) -> Answer:
        """Ask for neighbours or graph (M4).

        An answer that the server calls unchanged (304) is taken from memory, so the core sees one form only.

        Raises:
            NoAccess: the device is no member any more.
            RefusedError: the server declines, for example because the epoch is no longer kept.
            ConnectError: it did not answer, or could not now.
            RemoteProtocolError: it answered what is no answer.
        """
        kind: type[Answer]
        if isinstance(request, QueryNeighbours):
            path, kind = f"{self._device}/neighbours", NeighboursBody
        else:
            path, kind = f"{self._group}/graph", GraphBody
        if request.epoch is not None:
            path = f"{path}?epoch={request.epoch}"
        return _decode(kind, await self._get_cached(path))

    async def report(self, report: Report) -> None:
        """Tell the server what this device sees.

        Raises:
            NoAccess: the device is no member any more.
            RefusedError: the server declines the report.
            ConnectError: it did not answer, or could not now.
        """
        await self._send("PUT", f"{self._device}/{report.type}", body=report, refuse=True)

    def check_shown(self, token: str | None) -> None:
        """Make sure that a token which the server declined is the one in use.

        Raises:
            ConnectError: it was changed while the request was under way, so the refusal says nothing; or there is the
                one before to be tried, once, for a server that was restored from a backup.
        """
        if token != self.identity.token:
            raise ConnectError("the device's token was changed meanwhile")
        if self.identity.previous_token is not None:
            self.identity = self.identity.fallen_back()
            raise ConnectError("the server does not take the device's token; the one before is tried next")

    async def _get_cached(self, path: str) -> bytes:
        kept = self._kept.get(path)
        headers = {"If-None-Match": kept[0]} if kept else {}
        response = await self._send("GET", path, headers=headers, refuse=True)
        if response.status_code == _HTTP_NOT_MODIFIED and kept is not None:
            return kept[1]
        etag = response.headers.get("etag")
        if etag is not None and response.status_code == _HTTP_OK:
            self._kept[path] = (etag, response.content)
            self._kept.move_to_end(path)
            if len(self._kept) > _ANSWERS_KEPT:
                self._kept.popitem(last=False)
        return response.content

    async def _send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        body: Message | None = None,
        refuse: bool = False,
    ) -> httpx.Response:
        """Make one request; with ``refuse`` what the server declines is raised."""
        shown = token or self.identity.token
        sent = {"Authorization": f"Bearer {shown}", VERSION_HEADER: str(API_VERSION), **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        content = body.model_dump_json() if body is not None else None
        try:
            request = self._client.build_request(method, path, headers=sent, content=content)
            response = await self._read(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            doubt = untrusted(error)
            if doubt is not None:
                raise WrongServer(doubt) from error
            what = str(error) or type(error).__name__
            raise ConnectError(f"the server does not answer: {what}") from error
        self.clock.note(response.headers.get("date"))
        code = response.status_code
        if code >= _HTTP_SERVER_ERROR or code == _HTTP_BUSY:
            raise ConnectError(f"the server cannot answer now: {_problem(response)[1]}")
        if refuse and code in _HTTP_NO_ACCESS:
            self.check_shown(shown)
            raise NoAccess(*_problem(response))
        if refuse and code >= _HTTP_MULTIPLE and code != _HTTP_NOT_MODIFIED:
            raise RefusedError(*_problem(response))
        return response

    async def _read(self, request: httpx.Request) -> httpx.Response:
        """Return the whole answer, which is read no further than an answer may be long, unpacked.

        Raises:
            RemoteProtocolError: it is longer.
        """
        response = await self._client.send(request, stream=True)
        body = bytearray()
        try:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_CONTROL_BYTES:
                    raise RemoteProtocolError(f"the server answers with more than {MAX_CONTROL_BYTES} bytes")
        finally:
            await response.aclose()
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
        return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=request)


def _problem(response: httpx.Response) -> tuple[str, str]:
    """Return the slug and the sentence of a problem answer."""
    reason, detail = read_problem(response.content)
    return reason or f"http-{response.status_code}", detail or response.reason_phrase


def read_problem(content: bytes | bytearray) -> tuple[str, str]:
    """Return the slug and the sentence of a problem document; empty where it is none."""
    try:
        body = json.loads(content)
        reason, detail = body.get("reason") or body.get("type"), body.get("detail") or body.get("title")
    except (ValueError, AttributeError):
        reason = detail = None
    return str(reason or "")[:64], str(detail or "")[:1000]


def _decode(kind: type[_M], content: bytes) -> _M:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise RemoteProtocolError(f"the server answered what is no {kind.__name__}: {describe(error)}") from error
