"""The local API of an agent with a fake core, reached without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from agent.api.local import LocalAgent
from agent.api.serve import ApiServer, bind_control_socket, make_api
from agent.core.events import Event, MessageGap, MessageReceived
from agent.services.driver import Driver
from agent.services.inbox import Cursors, Inbox
from agent.services.last_state import LastState
from agent.services.ledger import Ledger
from common.fields import encode_key
from common.messages import Channels, ChannelSpec, Roster, RosterEntry
from tests.unit.agent.fakes import FakeCore, FakeSockets

KEY = encode_key(bytes(32))


def roster(*devices: str) -> Roster:
    entries = tuple(RosterEntry(device=device, public_key=KEY, signing_key=KEY) for device in devices)
    return Roster(version=1, devices=entries, key_epoch=0, group_keys={0: KEY})


CHANNELS = Channels(
    version=1,
    channels=(ChannelSpec(name="files", kind="file"), ChannelSpec(name="messages", kind="message")),
)


class InProcess(httpx.AsyncBaseTransport):
    """Calls an application directly; unlike httpx's own transport it gives an open answer as it grows."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": None,
            "server": None,
        }
        answer = _Answer()
        asked = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if asked:
                return asked.pop()
            await answer.closed.wait()
            return {"type": "http.disconnect"}

        async def call() -> None:
            try:
                await self._app(scope, receive, answer.messages.put)
            finally:
                answer.messages.put_nowait({"type": "end"})

        answer.task = asyncio.create_task(call(), name=f"{request.method} {request.url.path}")
        start = await answer.messages.get()
        if start["type"] != "http.response.start":
            await answer.task
        return httpx.Response(start["status"], headers=start["headers"], stream=answer)


class _Answer(httpx.AsyncByteStream):
    """What the application sends, part by part."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.messages.get())["type"] == "http.response.body":
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        self.closed.set()
        if self.task is not None:
            await self.task


class Served:
    """An agent without core and network, whose local API answers."""

    def __init__(self, folder: Path) -> None:
        self.core = FakeCore()
        self.ledger = Ledger("A")
        self.inbox = Inbox()
        self.last = LastState(folder)
        self.last.note(roster("A", "B", "C"))
        self.last.note(CHANNELS)
        self.driver = Driver(self.core, on_event=self.on_event, on_request=lambda _: None)
        self.driver.start(FakeSockets())
        self.local = LocalAgent(
            device="A",
            driver=self.driver,
            ledger=self.ledger,
            inbox=self.inbox,
            cursors=Cursors(folder),
            last=self.last,
            shell_status=lambda: {"attached": True, "drops": {"socket-eperm": 1}},
        )
        self.api = make_api(self.local)
        self.client = httpx.AsyncClient(transport=InProcess(self.api), base_url="http://agent")

    def on_event(self, event: Event) -> None:
        if isinstance(event, MessageReceived | MessageGap):
            self.inbox.add(event)
        else:
            self.ledger.on_event(event)

    def say(self, *events: Event) -> None:
        """Let the core say something."""
        self.core.events.extend(events)
        self.driver.drain()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """Make a fake agent and take it down."""
    agent = Served(folder)
    try:
        yield agent
    finally:
        agent.local.stop()
        await agent.client.aclose()
        agent.driver.stop()
        # httpx nests four generators without closing the inner ones: the loop ends them one after the other.
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def listening(agent: Served, path: Path) -> AsyncIterator[ApiServer]:
    """Let an agent's local API answer at a unix socket."""
    bound = bind_control_socket(path)
    server = ApiServer(agent.api)
    serving = asyncio.create_task(server.serve(sockets=[bound]), name="api")
    try:
        await asyncio.wait_for(server.up.wait(), 5)
        yield server
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 10)
        bound.close()


class Lines:
    """The lines of an open answer, one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self, *passing: str) -> dict[str, Any]:
        """Return the next line that is not one of the events passed over."""
        while True:
            line = json.loads(await asyncio.wait_for(anext(self._lines), 5))
            assert isinstance(line, dict)
            if line["event"] not in passing:
                return line

    async def rest(self) -> AsyncIterator[dict[str, Any]]:
        """Return the lines up to the answer's end."""
        async for line in self._lines:
            yield json.loads(line)
