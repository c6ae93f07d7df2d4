import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api import messages as messages_module
from agent.core.events import MessageGap, MessageReceived
from common.errors import RefusedError
from common.limits import MAX_MESSAGE_BYTES
from tests.unit.agent.serving import Lines, Served, served

STREAM = "ab" * 16


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


def message(number: int, payload: bytes = b"hi") -> MessageReceived:
    return MessageReceived("messages", "B", STREAM, number, payload)


def following(agent: Served, **params: str) -> Any:
    return agent.client.stream("GET", "/messages", params=params)


async def test_a_message_is_published_as_it_is(agent: Served) -> None:
    response = await agent.client.post("/messages", params={"channel": "chat"}, content=b"\x00\xff")
    assert response.status_code == 201
    assert response.json()["stream"] == STREAM
    assert agent.core.told("publish") == [("chat", b"\x00\xff")]


async def test_a_message_that_is_too_long_is_refused_with_the_limit(agent: Served) -> None:
    response = await agent.client.post("/messages", content=bytes(MAX_MESSAGE_BYTES + 1))
    assert (response.status_code, response.json()["reason"]) == (413, "too-large")
    assert str(MAX_MESSAGE_BYTES) in response.json()["detail"]
    assert agent.core.told("publish") == []
    assert (await agent.client.post("/messages", content=bytes(MAX_MESSAGE_BYTES))).is_success


async def test_a_full_queue_may_be_tried_again(agent: Served) -> None:
    agent.core.refusal = RefusedError("busy", "64 messages wait")
    response = await agent.client.post("/messages", content=b"x")
    assert (response.status_code, response.json()["reason"]) == (503, "busy")


async def test_a_channel_is_followed_from_now_on(agent: Served) -> None:
    agent.say(message(1))
    async with following(agent) as response:
        lines = Lines(response)
        assert await lines.next() == {"event": "following"}
        agent.say(message(2, b"\xffhi"), MessageGap("messages", "B", STREAM, 3, 4))
        got = await lines.next()
        assert (got["event"], got["source"], got["number"]) == ("message", "B", 2)
        assert base64.b64decode(got["payload"]) == b"\xffhi"
        gap = await lines.next()
        assert (gap["event"], gap["first"], gap["last"]) == ("gap", 3, 4)


async def test_a_channel_is_followed_from_what_is_retained(agent: Served) -> None:
    agent.say(message(1))
    async with following(agent, **{"from": "retained"}) as response:
        assert (await Lines(response).next("following"))["number"] == 1


async def test_a_consumer_goes_on_behind_what_it_acknowledged(agent: Served) -> None:
    agent.say(message(1), message(2))
    body = {"consumer": "log", "channel": "messages", "numbers": {STREAM: 1}}
    assert (await agent.client.post("/cursors", json=body)).status_code == 204
    for _ in range(2):
        async with following(agent, consumer="log") as response:
            assert (await Lines(response).next("following"))["number"] == 2


async def test_of_one_consumer_one_reads_at_a_time(agent: Served) -> None:
    async with following(agent, consumer="log"):
        second = await agent.client.get("/messages", params={"consumer": "log"})
        assert (second.status_code, second.json()["reason"]) == (409, "consumer-busy")
    async with following(agent, consumer="log") as response:
        assert response.status_code == 200


async def test_silence_is_broken(agent: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_module, "ALIVE_S", 0.01)
    async with following(agent) as response:
        assert await Lines(response).next("following") == {"event": "alive"}


async def test_an_agent_that_stops_says_so(agent: Served) -> None:
    async with following(agent) as response:
        lines = Lines(response)
        await lines.next()
        agent.local.stop()
        assert await lines.next() == {"event": "end", "reason": "agent-stopping"}


@pytest.mark.parametrize(
    ("params", "status", "reason"),
    [
        ({"channel": "none"}, 404, "unknown-channel"),
        ({"channel": "files"}, 409, "wrong-kind"),
        ({"channel": "no/name"}, 422, "invalid-request"),
        ({"from": "5"}, 422, "invalid-request"),
        ({"consumer": "no/name"}, 422, "invalid-request"),
    ],
)
async def test_what_cannot_be_followed_is_a_problem(
    agent: Served, params: dict[str, str], status: int, reason: str
) -> None:
    response = await agent.client.get("/messages", params=params)
    assert (response.status_code, response.json()["reason"]) == (status, reason)


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": {STREAM: -1}},
        {"numbers": {STREAM: "1"}},
        {"numbers": {"short": 1}},
        {"consumer": ""},
        {"channel": "no/name"},
        {"more": 1},
    ],
)
async def test_a_wrong_acknowledgement_is_a_problem(agent: Served, change: dict[str, Any]) -> None:
    body = {"consumer": "log", "channel": "messages", "numbers": {STREAM: 1}, **change}
    response = await agent.client.post("/cursors", json=body)
    assert (response.status_code, response.json()["reason"]) == (422, "invalid-request")


async def test_too_many_consumers_are_refused_with_the_limit(agent: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.local.cursors, "acknowledge", lambda *_: False)
    body = {"consumer": "log", "channel": "messages", "numbers": {}}
    response = await agent.client.post("/cursors", json=body)
    assert (response.status_code, response.json()["reason"]) == (409, "too-many-consumers")
    assert "256" in response.json()["detail"]


async def test_an_acknowledgement_that_cannot_be_kept_is_a_problem(
    agent: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(agent.local.cursors, "acknowledge", fail)
    body = {"consumer": "log", "channel": "messages", "numbers": {}}
    response = await agent.client.post("/cursors", json=body)
    assert (response.status_code, response.json()["reason"]) == (507, "io")


async def test_an_acknowledgement_names_as_many_streams_as_are_allowed(agent: Served) -> None:
    body = {
        "consumer": "c",
        "channel": "messages",
        "numbers": {f"{number:032x}": 1 for number in range(messages_module.MAX_NUMBERS)},
    }
    assert (await agent.client.post("/cursors", json=body)).status_code == 204
    body["numbers"] = {f"{number:032x}": 1 for number in range(messages_module.MAX_NUMBERS + 1)}
    assert (await agent.client.post("/cursors", json=body)).status_code == 422
