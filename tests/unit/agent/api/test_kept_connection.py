"""A kept connection whose other end does not read: cut off in time, and only then."""

import logging
from pathlib import Path

import pytest

from agent.api import kept_connection as kept_connection_module
from agent.api.kept_connection import KeptConnection
from tests.unit.agent.api.test_publishing import answer, ask, becomes_true, connect
from tests.unit.agent.serving import listening, served


async def test_a_publisher_that_never_reads_its_answers_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept_connection_module, "UNREAD_S", 0.01)
    async with served(tmp_path) as agent, listening(agent, tmp_path / "s") as server:
        # As long as the answers of thousands of messages.
        agent.driver.publish = lambda *_: ("x" * 4_000_000, 1)  # type: ignore[method-assign]
        publisher = await connect(tmp_path)
        publisher.transport.pause_reading()
        await publisher.send(b"1")
        await publisher.send(b"2")
        await becomes_true(lambda: not server.server_state.connections and not server.server_state.tasks)
        publisher.transport.abort()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "= a publisher has not read its answers for 0.01 s: its connection is cut"
    ]


async def test_a_publisher_that_reads_late_stays(tmp_path: Path) -> None:
    async with served(tmp_path) as agent, listening(agent, tmp_path / "s") as server:
        agent.driver.publish = lambda *_: ("x" * 900_000, 1)  # type: ignore[method-assign]
        async with connect(tmp_path) as publisher:
            (connection,) = server.server_state.connections
            assert isinstance(connection, KeptConnection)
            publisher.transport.pause_reading()
            await publisher.send(b"1")
            await becomes_true(lambda: connection._cutting is not None)
            publisher.transport.resume_reading()
            assert (await answer(publisher))["number"] == 1
            await becomes_true(lambda: connection._cutting is None)
            assert (await ask(publisher, b"2"))["number"] == 1
