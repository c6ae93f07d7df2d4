import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.api import publishing as publishing_module
from agent.core.store import StoreError
from common.errors import RefusedError
from common.limits import MAX_MESSAGE_BYTES
from tests.unit.agent.serving import Served, listening, served

STREAM = "ab" * 16
BUSY = RefusedError("busy", "64 bytes wait already")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made, listening(made, tmp_path / "s"):
        yield made


@pytest.fixture
async def publisher(agent: Served, tmp_path: Path) -> AsyncIterator[ClientConnection]:
    async with connect(tmp_path) as made:
        yield made


def connect(folder: Path, channel: str = "messages") -> Any:
    uri = f"ws://agent/messages/publish?channel={channel}"
    return unix_connect(str(folder / "s"), uri, ping_interval=None)


async def answer(publisher: ClientConnection) -> dict[str, Any]:
    said = json.loads(await asyncio.wait_for(publisher.recv(), 5))
    assert isinstance(said, dict)
    return said


async def ask(publisher: ClientConnection, payload: bytes) -> dict[str, Any]:
    await publisher.send(payload)
    return await answer(publisher)


async def test_each_frame_is_a_message_and_is_answered_in_order(agent: Served, publisher: ClientConnection) -> None:
    for payload in (b"\x00\xff", "grüße", b""):
        await publisher.send(payload)
    answers = [await answer(publisher) for _ in range(3)]
    assert answers == [{"stream": STREAM, "number": number} for number in (1, 2, 3)]
    assert agent.core.told("publish") == [
        ("messages", b"\x00\xff"),
        ("messages", "grüße".encode()),
        ("messages", b""),
    ]


async def test_frames_that_came_at_once_leave_turns_to_others(agent: Served, publisher: ClientConnection) -> None:
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(len(agent.core.told("publish")))
            await asyncio.sleep(0)

    others = asyncio.create_task(count())
    try:
        for _ in range(20):
            await publisher.send(b"x")
        for _ in range(20):
            await answer(publisher)
    finally:
        others.cancel()
    assert set(turns) == set(range(21))


async def test_a_refused_message_ends_the_connection_and_none_behind_it_is_published(
    agent: Served, publisher: ClientConnection
) -> None:
    agent.core.refusal = RefusedError("too-large", "at most 5 bytes")
    await publisher.send(b"123456")
    await publisher.send(b"1")
    problem = await answer(publisher)
    assert (problem["status"], problem["reason"], problem["detail"]) == (413, "too-large", "at most 5 bytes")
    with pytest.raises(ConnectionClosed) as caught:
        await answer(publisher)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "too-large")
    assert agent.core.told("publish") == []


async def test_a_record_that_cannot_be_kept_is_a_problem(
    agent: Served, publisher: ClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[str, int]:
        raise StoreError("no-space", "the disk is full")

    monkeypatch.setattr(agent.driver, "publish", fail)
    await publisher.send(b"x")
    assert (await answer(publisher))["status"] == 507


async def test_what_is_too_long_gets_as_far_as_the_limit_that_it_breaks(
    agent: Served, publisher: ClientConnection
) -> None:
    assert (await ask(publisher, bytes(MAX_MESSAGE_BYTES + 3)))["number"] == 1
    with pytest.raises(ConnectionClosed) as caught:
        await ask(publisher, bytes(2 * MAX_MESSAGE_BYTES + 1))
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


async def test_a_full_queue_is_waited_for(
    agent: Served, publisher: ClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[None] = []
    publish = agent.driver.publish

    def refuse_twice(channel: str, payload: bytes) -> tuple[str, int]:
        tries.append(None)
        if len(tries) <= 2:
            raise BUSY
        return publish(channel, payload)

    monkeypatch.setattr(agent.driver, "publish", refuse_twice)
    await publisher.send(b"x")
    assert (await answer(publisher))["number"] == 1
    assert len(tries) == 3


async def test_a_queue_that_stays_full_is_a_problem_in_the_end(
    agent: Served, publisher: ClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing_module, "BUSY_S", 0.0)
    agent.core.refusal = BUSY
    await publisher.send(b"x")
    problem = await answer(publisher)
    assert (problem["status"], problem["reason"], problem["detail"]) == (503, "busy", BUSY.detail)


async def test_an_agent_that_stops_waits_for_no_room(agent: Served, publisher: ClientConnection) -> None:
    agent.core.refusal = BUSY
    agent.local.stop()
    await publisher.send(b"x")
    assert (await answer(publisher))["reason"] == "busy"


async def test_an_agent_that_stops_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as agent, listening(agent, tmp_path / "s") as server, connect(tmp_path) as publisher:
        server.should_exit = True
        with pytest.raises(ConnectionClosed) as caught:
            await answer(publisher)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012


async def test_a_publisher_that_leaves_while_its_message_waits_has_published(tmp_path: Path) -> None:
    async with served(tmp_path) as agent, listening(agent, tmp_path / "s") as server:
        publish = agent.driver.publish
        published = asyncio.Event()
        publisher = await connect(tmp_path)

        def take_once_alone(channel: str, payload: bytes) -> tuple[str, int]:
            publisher.transport.abort()
            if server.server_state.connections:
                raise BUSY
            published.set()
            return publish(channel, payload)

        agent.driver.publish = take_once_alone  # type: ignore[method-assign]
        await publisher.send(b"x")
        await asyncio.wait_for(published.wait(), 5)
        assert agent.core.told("publish") == [("messages", b"x")]


async def becomes_true(condition: Callable[[], bool]) -> None:
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come true")


@pytest.mark.parametrize(
    ("channel", "status", "reason"),
    [("none", 404, "unknown-channel"), ("files", 409, "wrong-kind"), ("no/name", 422, "invalid-request")],
)
async def test_what_cannot_be_published_on_is_a_problem_in_place_of_the_handshake(
    agent: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture, channel: str, status: int, reason: str
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(tmp_path, channel)
    response = caught.value.response
    assert (response.status_code, json.loads(response.body)["reason"]) == (status, reason)
    assert response.headers["content-type"] == "application/problem+json"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
