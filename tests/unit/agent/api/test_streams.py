from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api import streams as streams_module
from agent.core.events import (
    FileFailed,
    FileVerified,
    Receipt,
    ReceiptsChanged,
    StreamCancelled,
    StreamOpened,
    StreamProgress,
)
from common.errors import RefusedError
from tests.unit.agent.serving import Lines, Served, roster, served

STREAM = f"{1:032x}"
VERIFIED = Receipt("verified", 4)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"data")
    return path


def sending(agent: Served, file: Path, **body: Any) -> Any:
    return agent.client.stream("POST", "/streams/file", json={"path": str(file), **body})


def receipts(**each: Receipt) -> ReceiptsChanged:
    return ReceiptsChanged(STREAM, each)


async def test_a_file_is_followed_until_every_member_has_it(agent: Served, file: Path) -> None:
    async with sending(agent, file) as response:
        lines = Lines(response)
        assert await lines.next() == {
            "event": "opened",
            "stream": STREAM,
            "name": "model.bin",
            "size_bytes": 4,
            "members": ["B", "C"],
        }
        waiting = {"state": "waiting", "held_bytes": 0, "reason": ""}
        assert (await lines.next())["receipts"] == {"B": waiting, "C": waiting}
        agent.say(receipts(B=VERIFIED, C=Receipt("receiving", 2)))
        assert (await lines.next())["receipts"]["C"]["held_bytes"] == 2
        agent.say(receipts(B=VERIFIED, C=VERIFIED))
        finished = await lines.next("progress")
        assert finished["event"] == "finished"
        assert (finished["ok"], finished["reason"]) == (True, "verified")
        assert finished["receipts"]["C"]["state"] == "verified"
    channel, name, size, reader = agent.core.sent[0]
    assert (channel, name, size, reader.read(0, 4)) == ("files", "model.bin", 4, b"data")


async def test_a_refusal_anywhere_is_a_failure_with_its_reason(agent: Served, file: Path) -> None:
    async with sending(agent, file) as response:
        lines = Lines(response)
        await lines.next()
        agent.say(receipts(B=VERIFIED, C=Receipt("refused", 0, "no-space: 4 bytes are too many")))
        finished = await lines.next("progress")
    assert (finished["ok"], finished["reason"]) == (False, "refused")
    assert finished["receipts"]["C"]["reason"] == "no-space: 4 bytes are too many"


async def test_a_timeout_ends_the_waiting_and_not_the_sending(agent: Served, file: Path) -> None:
    async with sending(agent, file, timeout=0.01) as response:
        finished = await Lines(response).next("opened", "progress")
    assert (finished["ok"], finished["reason"]) == (False, "timeout")
    assert agent.core.told("cancel") == []


async def test_who_does_not_wait_is_answered_at_once(agent: Served, file: Path) -> None:
    async with sending(agent, file, wait="none") as response:
        finished = await Lines(response).next("opened")
    assert (finished["ok"], finished["reason"]) == (True, "not-waited")


async def test_a_device_alone_has_nobody_to_wait_for(agent: Served, file: Path) -> None:
    agent.last.note(roster("A"))
    async with sending(agent, file) as response:
        finished = await Lines(response).next("opened")
    assert (finished["ok"], finished["receipts"]) == (True, {})


async def test_a_member_that_is_evicted_meanwhile_is_not_waited_for(agent: Served, file: Path) -> None:
    async with sending(agent, file) as response:
        lines = Lines(response)
        await lines.next()
        agent.last.note(roster("A", "B"))
        agent.say(receipts(B=VERIFIED))
        finished = await lines.next("progress")
    assert not finished["ok"]
    assert finished["receipts"]["C"]["reason"] == "no member of the group any more"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (StreamCancelled(STREAM, "cancelled"), "cancelled"),
        (FileFailed(STREAM, "changed", "it was edited"), "changed: it was edited"),
    ],
)
async def test_a_stream_that_ends_here_ends_the_waiting(agent: Served, file: Path, event: Any, reason: str) -> None:
    async with sending(agent, file) as response:
        lines = Lines(response)
        await lines.next()
        agent.say(event)
        finished = await lines.next("progress")
    assert (finished["ok"], finished["reason"]) == (False, reason)


async def test_an_agent_that_stops_says_so(agent: Served, file: Path) -> None:
    async with sending(agent, file) as response:
        lines = Lines(response)
        await lines.next()
        agent.local.stop()
        finished = await lines.next("progress")
    assert (finished["ok"], finished["reason"]) == (False, "agent-stopping")


async def test_silence_is_broken(agent: Served, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "ALIVE_S", 0.01)
    async with sending(agent, file) as response:
        assert (await Lines(response).next("opened", "progress"))["event"] == "alive"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"path": "relative"}, 422, "relative-path"),
        ({"path": "/no/such/file"}, 400, "unreadable-file"),
        ({"path": "/"}, 400, "unreadable-file"),
        ({"path": ""}, 422, "invalid-request"),
        ({"path": "/etc/host\0name"}, 422, "invalid-path"),
        ({"path": "/etc/hostname", "channel": "no/name"}, 422, "invalid-request"),
        ({"path": "/etc/hostname", "timeout": -1}, 422, "invalid-request"),
        ({"path": "/etc/hostname", "wait": "some"}, 422, "invalid-request"),
        ({"path": "/etc/hostname", "more": 1}, 422, "invalid-request"),
        ([], 422, "invalid-request"),
    ],
)
async def test_a_wrong_request_is_a_problem(agent: Served, body: Any, status: int, reason: str) -> None:
    response = await agent.client.post("/streams/file", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["reason"] == reason


@pytest.mark.parametrize(("reason", "status"), [("unknown-channel", 404), ("too-large", 413), ("too-many", 409)])
async def test_what_the_core_refuses_is_a_problem(agent: Served, file: Path, reason: str, status: int) -> None:
    agent.core.refusal = RefusedError(reason, "at most 5 are allowed")
    response = await agent.client.post("/streams/file", json={"path": str(file)})
    assert response.status_code == status
    assert response.json()["detail"] == "at most 5 are allowed"


async def test_streams_are_listed_and_shown(agent: Served) -> None:
    agent.say(
        StreamOpened(STREAM, "files", "B", "file", "f", 10),
        StreamProgress(STREAM, 4, 10),
        FileVerified(STREAM, "files", "B", "f", 10, "ff"),
    )
    listed = (await agent.client.get("/streams")).json()["streams"]
    assert [(each["stream"], each["state"]) for each in listed] == [(STREAM, "verified")]
    assert (await agent.client.get(f"/streams/{STREAM}")).json() == listed[0]
    assert (await agent.client.get("/streams/none")).json()["reason"] == "unknown-stream"


async def test_a_stream_is_taken_back_by_its_source_alone(agent: Served) -> None:
    agent.say(
        StreamOpened("own", "files", "A", "file", "f", 10),
        StreamOpened("foreign", "files", "B", "file", "g", 10),
    )
    assert (await agent.client.delete("/streams/own")).status_code == 204
    assert agent.core.told("cancel") == ["own"]
    response = await agent.client.delete("/streams/foreign")
    assert (response.status_code, response.json()["reason"]) == (409, "not-the-source")
    assert (await agent.client.delete("/streams/none")).status_code == 404
    assert agent.core.told("cancel") == ["own"]


async def test_a_reader_that_goes_away_leaves_the_sending_alone(agent: Served, file: Path) -> None:
    async with sending(agent, file) as response:
        await Lines(response).next()
    assert agent.core.told("cancel") == []
    assert (await agent.client.get(f"/streams/{STREAM}")).json()["state"] == "sending"


async def test_a_name_that_is_no_text_travels_without_what_is_none(agent: Served, tmp_path: Path) -> None:
    assert streams_module._wire_name(Path("/x/odd\udc80name")) == "oddname"
    assert streams_module._wire_name(Path("/x/.plain")) == ".plain"


@pytest.mark.parametrize("path", ["/x/\\ud800", "/x/\\udc80"])
async def test_a_path_that_is_no_text_is_a_problem(agent: Served, path: str) -> None:
    response = await agent.client.post("/streams/file", content=f'{{"path": "{path}"}}'.encode())
    assert (response.status_code, response.json()["reason"]) == (422, "invalid-request")
    assert not streams_module._is_path("/x/\ud800")
