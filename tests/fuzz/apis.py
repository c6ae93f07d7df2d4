"""Targets that are whole HTTP applications: whatever is asked of them, no answer is a fault of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from common.messages import ChannelSpec, Enrolment, decode_server_message, encode_message
from common.tokens import hash_token
from server.api.access import Backend
from server.api.application import create_application
from server.services.coordinator import Coordinator
from server.services.metrics import Metrics
from server.services.store.memory import MemoryStore
from tests.fuzz.choices import Choices
from tests.fuzz.decoders import CLIENT, json_text
from tests.unit.agent.serving import Served, served
from tests.unit.server.api_harness import ADMIN, Api, FragileStore
from tests.unit.server.harness import entropy, key_of

_METHODS: Final = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD")
_SERVER_PATHS: Final = (
    "/v1/groups",
    "/v1/groups/{}",
    "/v1/groups/{}/devices",
    "/v1/groups/{}/devices/{}",
    "/v1/groups/{}/devices/{}/adjacency",
    "/v1/groups/{}/devices/{}/qos",
    "/v1/groups/{}/devices/{}/candidates",
    "/v1/groups/{}/devices/{}/neighbours",
    "/v1/groups/{}/graph",
    "/v1/groups/{}/links",
    "/v1/groups/{}/channels",
    "/v1/groups/{}/channels/{}",
    "/v1/groups/{}/join-tokens",
    "/metrics",
    "/readyz",
    "/openapi.json",
    "/{}",
)
_AGENT_PATHS: Final = (
    "/status",
    "/changes",
    "/graph",
    "/streams",
    "/streams/file",
    "/streams/{}",
    "/messages",
    "/cursors",
)
_QUERIES: Final = (
    "",
    "epoch={}",
    "format={}",
    "format=dot&root={}",
    "format=matrix&channel={}",
    "channel={}",
    "consumer={}&channel=messages",
    "from={}",
    "{}",
)
_NAMES: Final = (
    "lab",
    "A",
    "files",
    "messages",
    "Z",
    "0",
    "9007199254740991",
    "mermaid",
    "node-link",
    "list",
    "0" * 32,
)
_SERVER_BODIES: Final = (
    *[json.loads(encode_message(message)) for message in CLIENT],
    {"device": "D", "public_key": key_of("D")},
    {"group": "other", "channels": [json.loads(ChannelSpec(name="files", kind="file").model_dump_json())]},
    json.loads(ChannelSpec(name="files", kind="file", objective="latency").model_dump_json()),
)
_AGENT_BODIES: Final = (
    {"path": "/nowhere/a", "channel": "files", "wait": "none", "timeout": 0.001},
    {"consumer": "c", "channel": "messages", "numbers": {"0" * 32: 7}},
)


def _request(choices: Choices, paths: tuple[str, ...], bodies: tuple[Any, ...]) -> tuple[str, str, bytes]:
    """Return a method, a target and a body."""

    def name() -> str:
        if choices.below(4):
            return choices.pick(_NAMES)
        return quote(choices.raw(choices.below(24)), safe="")

    method, path, query = choices.pick(_METHODS), choices.pick(paths), choices.pick(_QUERIES)
    parts = path.split("{}")
    target = parts[0] + "".join(name() + part for part in parts[1:])
    if query:
        target += "?" + query.replace("{}", name())
    return method, target, json_text(choices.rest(), bodies)


def _run(ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Ask in a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await ask()

    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(bounded())
    finally:
        logging.disable(logging.NOTSET)


def fuzz_server_api(data: bytes) -> None:
    """The server's API, asked by the administrator, by a device and by a stranger; and its subscription socket."""
    _run(lambda: _serve(Choices(data)))


@cache
def _server_application() -> FastAPI:
    """Make the application once, for it takes long; every input gets another state behind it."""
    return create_application(Coordinator(MemoryStore(monotonic=lambda: 0.0)), admin_token=ADMIN)


async def _serve(choices: Choices) -> None:
    app, store = _server_application(), FragileStore(monotonic=lambda: 0.0)
    coordinator = Coordinator(store, entropy=entropy())
    app.state.backend = Backend(coordinator, Metrics(coordinator, None), hash_token(ADMIN))
    await coordinator.start()
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        api = Api(store, coordinator, app, client)
        api.join_token = await coordinator.create_group("lab")
        await _ask_server(api, choices)
    await coordinator.stop()


async def _ask_server(api: Api, choices: Choices) -> None:
    enrolment = Enrolment(device="A", public_key=key_of("A"))
    answer_a = api.coordinator.apply("lab", lambda group, now, wall: group.enrol(enrolment, now=now, wall=wall))
    api.tokens["A"] = answer_a.token
    token = choices.pick((ADMIN, api.tokens["A"], api.join_token, "A~false", None, "\xe9"))
    if choices.below(4) == 0:
        await _subscribe(api, choices)
        return
    method, target, body = _request(choices, _SERVER_PATHS, _SERVER_BODIES)
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode("latin-1")}
    headers["If-None-Match"] = choices.raw(8) if choices else b'"1"'
    # What a header cannot hold never reaches an application.
    headers["If-None-Match"] = bytes(byte for byte in headers["If-None-Match"] if byte > 31)
    options: dict[str, Any] = {"headers": headers}
    answer = await api.client.request(method, target, content=body, **options)
    assert answer.status_code < 500, answer.text
    _check_answer(answer)


async def _subscribe(api: Api, choices: Choices) -> None:
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(choices.pick(('{"type":"subscribe","scope":"graph"}', '{"type":"subscribe","scope":"neighbours"}')))
    for _ in range(4):
        text = json_text(choices.raw(64), _SERVER_BODIES[: len(CLIENT)])
        socket.send(text if choices.below(2) else text.decode(errors="replace"))
    socket.send('{"type":"candidates","candidates":[]}')
    while True:
        event = await socket.event()
        assert event["type"] == "websocket.send", event
        if getattr(decode_server_message(event["text"]), "of", "") == "candidates":
            break
    await socket.close()


def _check_answer(answer: httpx.Response) -> None:
    if answer.status_code >= 400 and answer.content:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


def fuzz_agent_api(data: bytes) -> None:
    """The agent's local API, with a core that takes everything."""
    with tempfile.TemporaryDirectory(prefix="arborcast-fuzz-") as folder:
        _run(lambda: _serve_agent(Path(folder), Choices(data)))


async def _serve_agent(folder: Path, choices: Choices) -> None:
    async with served(folder) as agent:
        await _ask_agent(agent, choices)


async def _ask_agent(agent: Served, choices: Choices) -> None:
    method, target, body = _request(choices, _AGENT_PATHS, _AGENT_BODIES)
    request = agent.client.build_request(method, target, content=body)
    answer = await agent.client.send(request, stream=True)
    try:
        assert answer.status_code < 500, (method, target, body)
        if answer.status_code >= 400:
            await answer.aread()
            _check_answer(answer)
    finally:
        await answer.aclose()


def server_seeds() -> list[bytes]:
    """Return a request to each path, by the administrator and by a device."""
    return [
        bytes([who, 1, method, path, 0, 1, 1, 1, 1, body % 2, body])
        for path in range(len(_SERVER_PATHS))
        for who, method, body in ((0, 0, 0), (1, 1, 1 + path % 3), (0, 2, 5), (1, 3, 0))
    ] + [bytes([1, 0, 0]) + bytes([1, place, 1, 3]) * 16 for place in range(4)]


def agent_seeds() -> list[bytes]:
    """Return a request to each path."""
    return [
        bytes([method, path, query, 1, 3, 1, 1, path % 2])
        for path in range(len(_AGENT_PATHS))
        for method in range(4)
        for query in (0, 5)
    ]
