import asyncio

import pytest

from common.errors import ConnectError
from common.limits import SUBSCRIBER_OUTBOX
from common.messages import Accepted, EpochUpdate, ErrorMessage, ServerMessage, decode_server_message
from server.services import sessions as module
from server.services.sessions import SLOW, Encoder, Sessions

BYE = ErrorMessage(reason="evicted", detail="gone")


class Reader:
    """The other side of a session: takes what it is sent, or does not."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[ServerMessage] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()
        self.gone = False

    async def send(self, text: str) -> None:
        await self.open.wait()
        if self.gone:
            raise ConnectError("gone")
        self.messages.put_nowait(decode_server_message(text))


async def test_what_is_delivered_is_sent_until_the_session_is_closed_with_a_reason() -> None:
    sessions, reader = Sessions(), Reader()
    session = sessions.open(reader.send)
    running = asyncio.create_task(session.run())
    sessions.deliver(session.number, EpochUpdate(epoch=1))
    assert await reader.messages.get() == EpochUpdate(epoch=1)
    sessions.deliver(session.number, Accepted(of="qos"))
    assert await reader.messages.get() == Accepted(of="qos")
    sessions.close(session.number, BYE)
    sessions.close(session.number, SLOW)
    await running
    assert session.last_word == BYE


async def test_who_lets_a_message_wait_too_long_is_closed_as_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_SUBSCRIBER_S", 0.01)
    sessions, reader = Sessions(), Reader()
    reader.open.clear()
    session = sessions.open(reader.send)
    sessions.deliver(session.number, EpochUpdate(epoch=1))
    await session.run()
    assert session.last_word == SLOW


async def test_a_slow_subscriber_whose_outbox_is_full_is_closed_and_nobody_else_notices() -> None:
    sessions, slow, quick = Sessions(), Reader(), Reader()
    slow.open.clear()
    stuck, healthy = sessions.open(slow.send), sessions.open(quick.send)
    running = [asyncio.create_task(stuck.run()), asyncio.create_task(healthy.run())]
    for number in range(SUBSCRIBER_OUTBOX + 2):
        sessions.deliver(stuck.number, Accepted(of="qos"))
        sessions.deliver(healthy.number, EpochUpdate(epoch=number))
        assert await quick.messages.get() == EpochUpdate(epoch=number)
    assert stuck.last_word == SLOW
    assert healthy.last_word is None
    slow.open.set()
    await running[0]
    sessions.close(healthy.number, BYE)
    await running[1]


async def test_a_subscriber_that_left_ends_its_session_without_a_word() -> None:
    sessions, reader = Sessions(), Reader()
    reader.gone = True
    session = sessions.open(reader.send)
    sessions.deliver(session.number, EpochUpdate(epoch=1))
    await session.run()
    assert session.last_word is None


def test_sessions_have_numbers_that_are_never_used_again() -> None:
    sessions, reader = Sessions(), Reader()
    first = sessions.open(reader.send)
    sessions.forget(first.number)
    sessions.forget(first.number)
    second = sessions.open(reader.send)
    assert second.number > first.number
    assert len(sessions) == 1
    sessions.deliver(first.number, EpochUpdate(epoch=1))
    sessions.close(first.number, BYE)
    assert first.last_word is None


def test_a_message_for_many_is_encoded_once() -> None:
    encoder = Encoder()
    message = EpochUpdate(epoch=1)
    assert encoder.encode(message) is encoder.encode(message)
    for number in range(20):
        encoder.encode(EpochUpdate(epoch=number))
    assert encoder.encode(message) == '{"type":"epoch","epoch":1}'
