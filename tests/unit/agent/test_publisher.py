import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import publisher as publisher_module
from agent.publisher import Publisher
from common.errors import ArborcastError, ConfigError, ConnectError, LinkTimeout, RefusedError, RemoteProtocolError
from common.limits import MAX_MESSAGE_BYTES
from tests.unit.agent.serving import Served, listening, served

STREAM = "ab" * 16


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made, listening(made, tmp_path / "s"):
        yield made


def publish(folder: Path, *payloads: bytes, channel: str = "messages") -> list[dict[str, object]]:
    with Publisher(folder / "s", channel) as publisher:
        return [publisher.publish(payload) for payload in payloads]


async def test_messages_are_published_on_one_connection(agent: Served, tmp_path: Path) -> None:
    payloads = [b"\xff", b"", bytes(MAX_MESSAGE_BYTES)]
    answers = await asyncio.to_thread(publish, tmp_path, *payloads)
    assert answers == [{"stream": STREAM, "number": number} for number in (1, 2, 3)]
    assert agent.core.told("publish") == [("messages", payload) for payload in payloads]


async def test_a_refusal_is_said_in_the_agents_words(agent: Served, tmp_path: Path) -> None:
    agent.core.refusal = RefusedError("too-large", "at most 5 bytes")
    with pytest.raises(RefusedError) as caught:
        await asyncio.to_thread(publish, tmp_path, b"123456")
    assert (caught.value.reason, caught.value.detail) == ("too-large", "at most 5 bytes")


async def test_a_channel_that_is_refused_is_named(agent: Served, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no channel 'none'"):
        await asyncio.to_thread(publish, tmp_path, channel="none")


async def test_a_refused_connection_takes_no_more(agent: Served, tmp_path: Path) -> None:
    def twice() -> None:
        with Publisher(tmp_path / "s", "messages") as publisher:
            with pytest.raises(RefusedError):
                publisher.publish(b"123456")
            publisher.publish(b"1")

    agent.core.refusal = RefusedError("too-large", "at most 5 bytes")
    with pytest.raises(ConnectError, match="went away"):
        await asyncio.to_thread(twice)
    assert agent.core.told("publish") == []


def test_a_socket_without_an_agent_is_named() -> None:
    with pytest.raises(ConnectError, match=r"no agent answers at /no/such/agent.sock"):
        Publisher(Path("/no/such/agent.sock"), "messages")


def test_a_name_that_is_no_text_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="names must be UTF-8"):
        Publisher(Path("/no/such/agent.sock"), "\udcff")


@contextmanager
def stranger(path: Path, behave: Callable[[socket.socket], object]) -> Iterator[None]:
    """Take one connection at a unix socket, behave, and close it."""

    def serve() -> None:
        with listener.accept()[0] as taken:
            behave(taken)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(5)
        listener.bind(str(path))
        listener.listen()
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield
        finally:
            serving.join()


def say(answer: bytes) -> Callable[[socket.socket], object]:
    def behave(taken: socket.socket) -> None:
        taken.recv(1 << 16)
        taken.sendall(answer)

    return behave


def read_all(taken: socket.socket) -> None:
    while taken.recv(1 << 16):
        pass


@pytest.mark.parametrize(
    ("behave", "error", "words"),
    [
        (say(b""), ConnectError, "went away"),
        (read_all, LinkTimeout, "fell silent"),
        (say(b"220 mail at your service\r\n\r\n"), RemoteProtocolError, "cannot be read"),
        (say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), RefusedError, "Not Found"),
        (say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n"), RemoteProtocolError, "cannot be read"),
    ],
)
def test_what_is_no_agent_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behave: Callable[[socket.socket], object],
    error: type[ArborcastError],
    words: str,
) -> None:
    monkeypatch.setattr(publisher_module, "SILENCE_S", 0.05)
    with stranger(tmp_path / "s", behave), pytest.raises(error, match=words):
        Publisher(tmp_path / "s", "messages")
