import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.api.body_limit import BodyLimit


class Probe:
    """An application that reads its request and notes what it got, with a client before it that sends in pieces."""

    def __init__(self, pieces: list[Message], headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.pieces = pieces
        self.scope: Scope = {"type": "http", "headers": headers or []}
        self.got: list[Message] = []
        self.sent: list[Message] = []
        self.refused: list[str] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            self.got.append(message)
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        if self.pieces:
            self.got.append(await receive())

    async def receive(self) -> Message:
        return self.pieces.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> "Probe":
        await BodyLimit(self.app, 10, self.refused.append, within_s=0.05)(self.scope, self.receive, self.send)
        return self


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_within_the_limit_arrives_whole() -> None:
    probe = await Probe([piece(b"12345", more=True), piece(b"67890"), {"type": "http.disconnect"}]).run()
    assert probe.got == [piece(b"1234567890"), {"type": "http.disconnect"}]
    assert probe.refused == []


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [
        ([piece(b"12345678901")], []),
        ([piece(b"123456", more=True), piece(b"789012", more=True), piece(b"never read")], []),
        ([piece(b"never read")], [(b"content-length", b"11")]),
    ],
)
async def test_a_body_that_is_or_grows_too_long_is_413(pieces: list[Any], headers: list[Any]) -> None:
    probe = await Probe(pieces, headers).run()
    assert probe.got == []
    assert probe.sent[0]["status"] == 413
    assert (b"connection", b"close") in probe.sent[0]["headers"]
    assert probe.refused == ["too-large"]


async def test_a_length_that_is_no_number_is_left_to_the_count() -> None:
    probe = await Probe([piece(b"1")], [(b"content-length", b"-x")]).run()
    assert probe.got == [piece(b"1")]


async def test_a_client_that_leaves_in_the_middle_is_no_request() -> None:
    probe = await Probe([piece(b"1", more=True), {"type": "http.disconnect"}]).run()
    assert (probe.got, probe.sent) == ([], [])


async def test_sockets_are_not_its_business() -> None:
    probe = Probe([{"type": "websocket.connect"}])
    probe.scope = {"type": "websocket", "headers": []}
    await probe.run()
    assert probe.got == [{"type": "websocket.connect"}]


async def test_a_body_that_does_not_end_is_answered_after_a_time() -> None:
    probe = Probe([piece(b"1", more=True)])

    async def receive() -> Message:
        if probe.pieces:
            return probe.pieces.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    await BodyLimit(probe.app, 10, probe.refused.append, within_s=0.01)(probe.scope, receive, probe.send)
    assert probe.sent[0]["status"] == 408
    assert (b"connection", b"close") in probe.sent[0]["headers"]
    assert probe.refused == ["too-slow"]
    assert probe.got == []
