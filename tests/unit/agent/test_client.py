import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from agent import client as client_module
from agent.client import AgentClient
from common.errors import ConfigError, ConnectError, LinkTimeout, RefusedError, RemoteProtocolError

PATH = Path("/run/agent.sock")
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler) -> AgentClient:
    return AgentClient(PATH, httpx.MockTransport(handler))


def parts(*content: bytes) -> Handler:
    """Answer with a body that comes in these parts."""

    def body() -> Iterator[bytes]:
        yield from content

    return lambda _: httpx.Response(200, content=body())


def test_what_the_agent_shows_is_returned() -> None:
    with client(lambda _: httpx.Response(200, json={"epoch": 7})) as agent:
        assert agent.get("/status") == {"epoch": 7}


def test_requests_carry_what_they_are_given() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(204)

    with client(answer) as agent:
        agent.acknowledge("log", "chat", {"s": 1})
        agent.cancel("s")
        list(agent.send_file({"path": "/f"}))
    body = {"consumer": "log", "channel": "chat", "numbers": {"s": 1}}
    assert json.loads(seen[0].content) == body
    assert (seen[1].method, seen[1].url.path) == ("DELETE", "/streams/s")
    assert json.loads(seen[2].content) == {"path": "/f"}
    assert seen[2].headers["content-type"] == "application/json"


def test_lines_come_as_they_are_complete() -> None:
    with client(parts(b'{"a": 1}\n{"b"', b": 2}\n", b'{"c": 3}\n{"d": 4}\n')) as agent:
        assert list(agent.follow({})) == [[{"a": 1}], [{"b": 2}], [{"c": 3}, {"d": 4}]]


def test_a_socket_without_an_agent_is_named(tmp_path: Path) -> None:
    sentence = r"no agent answers at /no/such/agent.sock; start one"
    with pytest.raises(ConnectError, match=sentence), AgentClient(Path("/no/such/agent.sock")):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConnectError, match="no agent answers"), AgentClient(tmp_path / "file"):
        pass


def test_another_users_agent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def connect(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(ConnectError, match="belongs to another user"), AgentClient(PATH):
        pass


def test_a_living_socket_is_used(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent.sock"))
        listening.listen()
        with AgentClient(tmp_path / "agent.sock"):
            pass


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        (httpx.ConnectError("refused"), ConnectError, "no agent answers"),
        (httpx.ReadTimeout("slow"), LinkTimeout, "fell silent"),
        (httpx.RemoteProtocolError("cut"), ConnectError, "went away: cut"),
    ],
)
def test_an_agent_that_fails_is_named(failure: Exception, error: type[Exception], words: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    with client(fail) as agent, pytest.raises(error, match=words):
        agent.get("/status")


def test_a_problem_is_said_in_its_own_words() -> None:
    body = {"reason": "unknown-channel", "detail": "there is no channel 'x'"}
    with client(lambda _: httpx.Response(404, json=body)) as agent:
        for ask in (lambda: agent.get("/status"), lambda: list(agent.follow({}))):
            with pytest.raises(RefusedError) as caught:
                ask()
            assert (caught.value.reason, caught.value.detail) == tuple(body.values())


@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b"{}"])
def test_an_error_without_words_is_still_said(content: bytes) -> None:
    with (
        client(lambda _: httpx.Response(500, content=content)) as agent,
        pytest.raises(RefusedError, match="Internal Server Error"),
    ):
        agent.get("/status")


@pytest.mark.parametrize("line", [b"{\n", b"5\n", b"\xff\n"])
def test_a_line_that_cannot_be_read_is_an_error(line: bytes) -> None:
    with client(parts(line)) as agent, pytest.raises(RemoteProtocolError, match="cannot be read"):
        list(agent.follow({}))


def test_a_line_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_LINE_BYTES", 10)
    with client(parts(b"x" * 11)) as agent, pytest.raises(RemoteProtocolError, match="without an end"):
        list(agent.follow({}))


def test_a_name_that_is_no_text_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="names must be UTF-8"):
        list(client(lambda _: httpx.Response(200)).send_file({"path": "/x", "channel": "\udcff"}))
