"""The server's whole HTTP surface in this process: requests and sockets go straight into the application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import httpx
from fastapi import FastAPI

from common.errors import TransportError
from common.messages import ClientMessage, ServerMessage, decode_server_message, encode_message
from server.api.application import create_application
from server.core.failures import FailureLimit
from server.services.coordinator import Coordinator
from server.services.store.memory import MemoryStore
from tests.unit.server.harness import SIX, entropy, key_of, peers_of

ADMIN = "admin~for-tests-only"
READER = "reader~for-tests-only"


class FragileStore(MemoryStore):
    """A store that fails when told to."""

    failing = False

    async def put_if_revision(self, key: str, value: bytes, revision: int) -> int:
        """Write, or fail."""
        if self.failing:
            raise TransportError("disk full")
        return await super().put_if_revision(key, value, revision)


class Socket:
    """One WebSocket, spoken to over ASGI."""

    def __init__(
        self, app: FastAPI, path: str, token: str | None, named: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Open it."""
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.readable = asyncio.Event()
        self.readable.set()
        headers = [(b"authorization", f"Bearer {token}".encode())] if token is not None else []
        headers += [(name.lower().encode(), value.encode()) for name, value in named.items()]
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        self._in.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._serve(app, scope))

    async def _serve(self, app: FastAPI, scope: dict[str, Any]) -> None:
        await app(scope, self._in.get, self._send)

    async def _send(self, event: Any) -> None:
        await self.readable.wait()
        self._out.put_nowait(event)

    async def event(self) -> dict[str, Any]:
        """Take the next ASGI event that the application sent."""
        async with asyncio.timeout(5):
            return await self._out.get()

    async def accepted(self) -> None:
        """Wait until the application takes the socket."""
        assert (await self.event())["type"] == "websocket.accept"

    def send(self, message: ClientMessage | str | bytes) -> None:
        """Send a message, or raw data."""
        data = message if isinstance(message, str | bytes) else encode_message(message)
        field = "bytes" if isinstance(data, bytes) else "text"
        self._in.put_nowait({"type": "websocket.receive", field: data})

    async def receive(self) -> ServerMessage:
        """Take the next message."""
        event = await self.event()
        assert event["type"] == "websocket.send", event
        return decode_server_message(event["text"])

    async def receive_types(self, count: int) -> list[str]:
        """Take some messages, and give their types."""
        return [(await self.receive()).type for _ in range(count)]

    async def closed(self) -> tuple[int, str]:
        """Take the close; give its code and reason."""
        event = await self.event()
        assert event["type"] == "websocket.close", event
        await self._task
        return event["code"], event["reason"]

    async def close(self) -> None:
        """Leave."""
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self._task


class Api:
    """A server with a group `lab`, and clients with each kind of token."""

    def __init__(self, store: FragileStore, coordinator: Coordinator, app: FastAPI, client: httpx.AsyncClient) -> None:
        """Hold the parts; see `serving`."""
        self.store = store
        self.coordinator = coordinator
        self.app = app
        self.client = client
        self.join_token = ""
        self.tokens: dict[str, str] = {}

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN, **options: Any
    ) -> httpx.Response:
        """Send a request; with the administrator's token unless told otherwise."""
        headers = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        return await self.client.request(method, path, headers=headers, **options)

    async def enrol(self, *devices: str) -> None:
        """Enrol devices with the join token."""
        for device in devices:
            body = {"device": device, "public_key": key_of(device), "signing_key": key_of(device)}
            answer = await self.call("POST", "/v1/groups/lab/devices", body, token=self.join_token)
            assert answer.status_code == 201, answer.text
            self.tokens[device] = answer.json()["token"]
        # The roster is pushed after the coalescing time: no test shall meet it half-way.
        await until(lambda: self.coordinator.group("lab")._roster_at is None)

    async def six(self) -> None:
        """Enrol the devices of the worked example, report its links, and wait for its tree."""
        await self.enrol(*"ABCDEF")
        for device in "ABCDEF":
            rates = peers_of(device, SIX)
            path, token = f"/v1/groups/lab/devices/{device}", self.tokens[device]
            answers = [
                await self.call("PUT", f"{path}/adjacency", {"peers": list(rates)}, token=token),
                await self.call(
                    "PUT", f"{path}/qos", {"links": {p: {"bandwidth_bps": r} for p, r in rates.items()}}, token=token
                ),
            ]
            assert [answer.status_code for answer in answers] == [204, 204]
        await until(lambda: len(self.coordinator.group("lab").graph().trees[0].edges) == 5)

    def socket(
        self, token: str | None, group: str = "lab", headers: Mapping[str, str] = MappingProxyType({})
    ) -> Socket:
        """Open a subscription socket."""
        return Socket(self.app, f"/v1/groups/{group}/subscribe", token, headers)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def check_problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """Check that an answer is a problem document of a kind; give it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["reason"] == reason
    assert problem["type"] == f"urn:arborcast:problem:{reason}"
    assert problem["title"]
    assert problem["detail"]
    return problem


@asynccontextmanager
async def serving(failures: FailureLimit | None = None) -> AsyncIterator[Api]:
    """Run a server in this process; nobody is put off unless a limit says so."""
    store = FragileStore(monotonic=lambda: 0.0)
    coordinator = Coordinator(store, entropy=entropy())
    await coordinator.start()
    limit = FailureLimit(at_once=1_000_000) if failures is None else failures
    app = create_application(coordinator, admin_token=ADMIN, read_token=READER, failures=limit)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        api = Api(store, coordinator, app, client)
        api.join_token = (await api.call("POST", "/v1/groups", {"group": "lab"})).json()["join_token"]
        yield api
    store.failing = False
    await coordinator.stop()
