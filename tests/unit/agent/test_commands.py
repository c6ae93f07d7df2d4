import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from agent import commands
from agent.client import AgentClient
from agent.progress import DeviceBars
from common.errors import ConfigError, ConnectError, RefusedError
from common.limits import MAX_MESSAGE_BYTES

STREAM = "ab" * 16
OPENED = {"event": "opened", "stream": STREAM, "name": "f", "size_bytes": 4, "members": ["B", "C"]}
HAS = {"state": "verified", "held_bytes": 4, "reason": ""}
LACKS = {"state": "refused", "held_bytes": 0, "reason": "no-space: 4 bytes are too many"}
Handler = Callable[[httpx.Request], httpx.Response]


class Agent:
    """Answers the commands; keeps what they ask."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: list[httpx.Response | Exception] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(204)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def say(self, *lines: dict[str, Any], interrupt: bool = False) -> None:
        """Answer with lines, and perhaps let Ctrl-C come after them."""

        def body() -> Iterator[bytes]:
            for line in lines:
                yield json.dumps(line).encode() + b"\n"
            if interrupt:
                raise KeyboardInterrupt

        self.answers.append(httpx.Response(200, content=body()))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    made = Agent()
    monkeypatch.setattr(commands, "AgentClient", lambda path: AgentClient(path, httpx.MockTransport(made)))
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"data")
    return path


def finished(reason: str = "verified", **receipts: dict[str, Any]) -> dict[str, Any]:
    return {
        "event": "finished",
        "stream": STREAM,
        "ok": reason in ("verified", "not-waited"),
        "reason": reason,
        "seconds": 1.25,
        "receipts": receipts or {"B": HAS, "C": HAS},
    }


def test_a_file_that_everybody_has_is_a_success(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = {"event": "progress", "receipts": {"B": HAS, "C": LACKS}}
    agent.say(OPENED, {"event": "alive"}, progress, finished())
    commands.send(file)
    assert capsys.readouterr() == ("f: 2 of 2 devices verified it in 1.2 s\n", "")
    body = json.loads(agent.requests[0].content)
    assert body == {"path": str(file), "channel": "files", "wait": "all"}


def test_who_lacks_the_file_is_named_with_the_reason_and_the_exit_code_is_1(
    agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.say(OPENED, finished("refused", B=HAS, C=LACKS))
    with pytest.raises(typer.Exit) as caught:
        commands.send(file, quiet=True)
    assert caught.value.exit_code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "f: 1 of 2 devices verified it" in err
    assert "no-space: 4 bytes are too many" in err
    assert [line.split()[0] for line in err.splitlines()] == ["f:", "device", "C"]


def test_what_looks_like_markup_is_shown_as_it_is(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, finished("refused", B=HAS, C={**LACKS, "reason": "[fd00::1] says [/no]"}))
    with pytest.raises(typer.Exit):
        commands.send(file, quiet=True)
    assert "[fd00::1] says [/no]" in capsys.readouterr().err
    link = {"peer": "B", "state": "open", "address": "[fd00::1]:7400"}
    status = {"device": "A", "group": "lab", "epoch": 7, "links": [link], "udp_address": "[fd00::2]:7400"}
    agent.answers.append(httpx.Response(200, json=status))
    commands.status()
    out = capsys.readouterr().out
    assert "[fd00::1]:7400" in out
    assert "[fd00::2]:7400" in out


def test_a_timeout_says_that_the_agent_goes_on(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, finished("timeout", B=HAS, C=LACKS))
    with pytest.raises(typer.Exit):
        commands.send(file, timeout=1.5)
    assert json.loads(agent.requests[0].content)["timeout"] == 1.5
    assert f"the agent goes on with it, as stream {STREAM}" in capsys.readouterr().err


def test_another_end_is_said_in_the_agents_words(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, finished("changed: it was edited", B=LACKS))
    with pytest.raises(typer.Exit):
        commands.send(file)
    assert "arborcast: changed: it was edited" in capsys.readouterr().err


def test_who_does_not_wait_learns_the_stream(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, finished("not-waited"))
    commands.send(file, wait="none")
    assert STREAM in capsys.readouterr().out


def test_quiet_is_quiet(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, finished())
    commands.send(file, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_scripts_get_one_line_of_json(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, finished("refused", B=HAS, C=LACKS))
    with pytest.raises(typer.Exit):
        commands.send(file, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["stream"], result["size_bytes"]) == (False, STREAM, 4)
    assert result["receipts"]["C"] == LACKS
    assert "event" not in result


def test_bars_are_for_terminals_alone(agent: Agent, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    class Bars(DeviceBars):
        def update(self, receipts: Any) -> None:
            shown.append(len(receipts))

    monkeypatch.setattr(commands, "DeviceBars", Bars)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for as_json, quiet in ((False, False), (True, False), (False, True)):
        agent.say(OPENED, finished())
        commands.send(file, as_json=as_json, quiet=quiet)
    assert shown == [2]


def test_an_interrupted_file_is_taken_back(agent: Agent, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(OPENED, interrupt=True)
    with pytest.raises(typer.Exit) as caught:
        commands.send(file)
    assert caught.value.exit_code == 130
    assert [request.method for request in agent.requests] == ["POST", "DELETE"]
    assert "f is taken back" in capsys.readouterr().err


@pytest.mark.parametrize("lines", [(), (OPENED,)])
def test_an_agent_that_stops_meanwhile_is_named(agent: Agent, file: Path, lines: tuple[dict[str, Any], ...]) -> None:
    agent.say(*lines)
    with pytest.raises(ConnectError, match="the agent stopped"):
        commands.send(file)


def test_a_file_that_cannot_be_read_is_named_before_the_agent_is_asked(agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*/none: No such file"):
        commands.send(tmp_path / "none")
    with pytest.raises(ConfigError, match="not a regular file"):
        commands.send(tmp_path)
    with pytest.raises(ConfigError, match="--wait 'some' is neither all nor none"):
        commands.send(tmp_path / "none", wait="some")
    assert agent.requests == []


def test_a_file_whose_name_is_no_text_is_refused_in_a_sentence(agent: Agent, tmp_path: Path) -> None:
    odd = tmp_path / "odd\udcff.bin"
    odd.write_bytes(b"data")
    with pytest.raises(ConfigError, match=r"cannot send '.*/odd\\udcff.bin': the file's name .* must be UTF-8"):
        commands.send(odd)
    assert agent.requests == []


class FakePublisher:
    """Stands for the connection on which messages are published."""

    def __init__(self) -> None:
        self.channel = ""
        self.payloads: list[bytes] = []
        self.refusal: RefusedError | None = None

    def __call__(self, path: Path, channel: str) -> "FakePublisher":
        self.channel = channel
        return self

    def __enter__(self) -> "FakePublisher":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def publish(self, payload: bytes) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        self.payloads.append(payload)
        return {"stream": STREAM, "number": len(self.payloads)}


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> FakePublisher:
    made = FakePublisher()
    monkeypatch.setattr(commands, "Publisher", made)
    return made


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_message_comes_from_the_command_line(publisher: FakePublisher, capsys: pytest.CaptureFixture[str]) -> None:
    commands.publish("grüße", channel="chat", as_json=True)
    assert (publisher.channel, publisher.payloads) == ("chat", ["grüße".encode()])
    assert json.loads(capsys.readouterr().out) == {"stream": STREAM, "number": 1}


def test_a_message_comes_from_standard_input(
    publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"a\n\xff\n")
    commands.publish()
    assert publisher.payloads == [b"a\n\xff\n"]
    assert capsys.readouterr().out == ""


def test_each_line_is_a_message_where_asked(publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"one\r\ntwo\n\nthree")
    commands.publish(lines=True)
    assert publisher.payloads == [b"one", b"two", b"", b"three"]
    with pytest.raises(ConfigError, match="--lines reads standard input"):
        commands.publish("x", lines=True)


def test_of_what_is_too_long_enough_is_read_to_be_refused(
    publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lines, longest in ((False, b""), (True, b"\r\n")):
        stdin(monkeypatch, b"x" * (2 * MAX_MESSAGE_BYTES))
        commands.publish(lines=lines)
        assert MAX_MESSAGE_BYTES < len(publisher.payloads[0]) < MAX_MESSAGE_BYTES + 10
        publisher.payloads.clear()
        stdin(monkeypatch, b"x" * MAX_MESSAGE_BYTES + longest)
        commands.publish(lines=lines)
        assert [len(payload) for payload in publisher.payloads] == [MAX_MESSAGE_BYTES]
        publisher.payloads.clear()


def test_a_refused_message_is_not_tried_again_and_none_follows(
    publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.refusal = RefusedError("too-large", "at most 1048576 bytes")
    stdin(monkeypatch, b"one\ntwo\n")
    with pytest.raises(RefusedError, match="at most 1048576 bytes"):
        commands.publish(lines=True)
    assert publisher.payloads == []


def message(number: int, payload: bytes = b"hi") -> dict[str, Any]:
    return {
        "event": "message",
        "channel": "chat",
        "source": "B",
        "stream": STREAM,
        "number": number,
        "payload": base64.b64encode(payload).decode(),
    }


GAP = {"event": "gap", "channel": "chat", "source": "B", "stream": STREAM, "first": 4, "last": 6}


def test_messages_are_printed_with_their_source(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say({"event": "following"}, message(1), GAP, {"event": "alive"}, message(7, b"\xff"))
    with pytest.raises(ConnectError, match="the agent stopped"):
        commands.tail(channel="chat")
    out, err = capsys.readouterr()
    assert out == "B: hi\nB: \ufffd\n"
    assert "numbers 4 to 6 of B are lost" in err
    assert dict(agent.requests[0].url.params) == {"channel": "chat", "from": "new"}


def test_the_tail_ends_after_so_many_messages(agent: Agent, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    agent.say(message(1, b"\x00"), GAP, message(2, b"\xff"), message(3))
    commands.tail(count=2, raw=True, retained=True)
    assert capsysbinary.readouterr().out == b"\x00\n\xff\n"
    assert agent.requests[0].url.params["from"] == "retained"


def test_scripts_get_a_line_of_json_each(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.say(message(1), GAP, message(7))
    commands.tail(count=2, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [message(1), GAP, message(7)]


def test_a_consumer_acknowledges_what_was_printed_and_no_more(agent: Agent) -> None:
    agent.say(message(1), message(2), message(3))
    commands.tail(channel="chat", consumer="log", count=2)
    acknowledged = [
        json.loads(request.content)["numbers"] for request in agent.requests if request.url.path == "/cursors"
    ]
    assert acknowledged == [{STREAM: 1}, {STREAM: 2}]
    assert agent.requests[0].url.params["consumer"] == "log"


def test_a_gap_is_acknowledged_to_its_end(agent: Agent) -> None:
    agent.say(GAP, message(7))
    commands.tail(channel="chat", consumer="log", count=1)
    assert json.loads(agent.requests[1].content)["numbers"] == {STREAM: 6}


def test_an_interrupted_tail_ends_quietly(agent: Agent) -> None:
    agent.say(message(1), interrupt=True)
    with pytest.raises(typer.Exit) as caught:
        commands.tail()
    assert caught.value.exit_code == 130


def test_status_and_graph_are_shown_to_people_and_scripts(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    status = {"device": "A", "group": "lab", "epoch": 7, "links": [], "drops": {"garbage": 1}}
    graph = {"epoch": 7, "trees": [{"objective": "latency", "neighbours": {"A": ["B"]}}]}
    for command, report, shown in (
        (commands.status, status, "device A of group lab"),
        (commands.graph, graph, "  A: B"),
    ):
        agent.answers.extend(httpx.Response(200, json=report) for _ in range(2))
        command()
        assert shown in capsys.readouterr().out
        command(as_json=True)
        assert json.loads(capsys.readouterr().out) == report


def test_the_socket_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARBORCAST_SOCKET", "/no/such/default.sock")
    with pytest.raises(ConnectError, match=r"/no/such/default.sock"):
        commands.status()
    with pytest.raises(ConnectError, match=r"/no/such/other.sock"):
        commands.status(control_socket=Path("/no/such/other.sock"))
