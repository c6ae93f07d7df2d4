import ipaddress
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import app as app_module
from agent import cli
from agent.core.policy import DeclaredQos
from agent.settings import AgentSettings
from common.errors import RefusedError, TransportError
from common.join_string import JoinString, encode

BASE = ["agent", "--server", "http://127.0.0.1:8640", "--group", "lab", "--device", "A"]


class Runs:
    """Stands in for the running agent."""

    def __init__(self) -> None:
        self.settings: list[AgentSettings] = []
        self.failure: Exception | None = None

    async def __call__(self, settings: AgentSettings) -> None:
        self.settings.append(settings)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runs]:
    made = Runs()
    monkeypatch.setattr(app_module, "run_agent", made)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("ARBORCAST_SOCKET", raising=False)
    for name in ("ARBORCAST_JOIN_TOKEN", "ARBORCAST_JOIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    yield made
    for name in ("httpx", "httpcore", "websockets"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["arborcast", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    assert isinstance(code, int)
    return code


def test_every_flag_reaches_the_agent(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("join-token\n")
    flags = (
        f"--join-token-file {token} --listen 127.0.0.1:7400 --advertise 192.0.2.1:7400"
        " --advertise 192.0.2.2:7400 --peer B=192.0.2.7:7400 --only-peer B --only-peer C"
        " --link B=100M,5ms --link C=1G --scope neighbours --state S --receive R"
        " --control-socket C.sock --datagram-bytes 1400 --quota 10G --ready-file F"
        " --ca-file CA --insecure-http --only-advertised --max-rate 50M --max-rate B=20M"
        " --deny 10.8.0.0/16 --deny fd00::/8 --stun stun.example:3478"
    )
    assert run(monkeypatch, *BASE, *flags.split()) == 0
    assert runs.settings == [
        AgentSettings(
            server="http://127.0.0.1:8640",
            group="lab",
            device="A",
            state=Path("S"),
            receive=Path("R"),
            control_socket=Path("C.sock"),
            listen=("127.0.0.1", 7400),
            join_token="join-token",
            advertise=(("192.0.2.1", 7400), ("192.0.2.2", 7400)),
            peers={"B": ("192.0.2.7", 7400)},
            only_peers=frozenset({"B", "C"}),
            declared={"B": DeclaredQos(100e6, 0.005), "C": DeclaredQos(1e9)},
            max_rate_bps=50e6,
            max_rates={"B": 20e6},
            scope="neighbours",
            datagram_bytes=1400,
            quota_bytes=10 * 2**30,
            ready_file=Path("F"),
            ca_file=Path("CA"),
            insecure_http=True,
            only_advertised=True,
            denied=(ipaddress.ip_network("10.8.0.0/16"), ipaddress.ip_network("fd00::/8")),
            stun=(("stun.example", 3478),),
        )
    ]


def test_a_plain_agent_needs_few_flags(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARBORCAST_JOIN_TOKEN", "from-the-environment")
    assert run(monkeypatch, *BASE) == 0
    found = runs.settings[0]
    assert found.state == tmp_path / "arborcast"
    assert found.receive == tmp_path / "arborcast" / "received"
    assert found.control_socket == tmp_path / "arborcast" / "agent.sock"
    assert found.join_token == "from-the-environment"
    assert (found.listen, found.only_peers, found.scope, found.stun) == (None, None, "graph", None)


def test_a_named_state_folder_holds_the_socket(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, *BASE, "--state", "S") == 0
    assert runs.settings[0].control_socket == Path("S/agent.sock")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--link B=fast", "rate 'fast'"),
        ("--link B=1M --link B=2M", "a link for peer 'B' is given twice"),
        ("--peer B", "peer 'B' is not PEER=HOST:PORT"),
        ("--only-peer no/name", "peer name 'no/name'"),
        ("--listen 7400", "address '7400' is not HOST:PORT"),
        ("--quota much", "size 'much'"),
        ("--scope world", "scope 'world' is neither graph nor neighbours"),
        ("--log-level loud", "log level 'loud' is not one of"),
        ("--datagram-bytes 100", "1200 to 9000"),
        ("--server http://192.0.2.1", "--insecure-http"),
        ("--device no/name", "device name 'no/name'"),
        ("--join-token-file /no/such/file", "cannot read the join token"),
        ("--join-token-file {empty}", "does not hold a join token"),
    ],
)
def test_a_wrong_flag_is_one_sentence_and_exit_code_2(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    flags: str,
    words: str,
) -> None:
    # Not /dev/null: where that has been replaced by a file, as root can by accident, it holds what others wrote.
    empty = tmp_path / "empty"
    empty.touch()
    assert run(monkeypatch, *BASE, *flags.format(empty=empty).split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("arborcast: ")
    assert err.count("\n") == 1
    assert words in err
    assert runs.settings == []


def test_an_agent_that_is_told_of_no_server_asks_for_a_join_string(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "agent", "--group", "lab") == 2
    assert capsys.readouterr().err.startswith("arborcast: which server? Give --join with a join string")


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_a_join_string_says_all_that_has_to_be_said(runs: Runs, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    word = encode(JoinString("https://tree.example.org:8640", "lab", "join~x", bytes(range(32))))
    monkeypatch.setattr(socket, "gethostname", lambda: "edge-7")
    if way == "environment":
        monkeypatch.setenv("ARBORCAST_JOIN", word)
    assert run(monkeypatch, "agent", *(("--join", word) if way == "flag" else ())) == 0
    found = runs.settings[0]
    assert (found.server, found.group, found.device) == ("https://tree.example.org:8640", "lab", "edge-7")
    assert (found.join_token, found.fingerprint) == ("join~x", bytes(range(32)))
    assert found.stun_servers == (("tree.example.org", 8640), ("tree.example.org", 8641))


def test_a_wrong_join_string_is_one_sentence(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "agent", "--join", "arborcast1.abc") == 2
    err = capsys.readouterr().err
    assert err == "arborcast: the join string does not hold together: it was cut short or mistyped\n"


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (RefusedError("device-exists", "device 'A' is enrolled already"), "device 'A' is enrolled already"),
        (TransportError("cannot listen"), "cannot listen"),
    ],
)
def test_an_agent_that_fails_says_why_and_exits_1(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
    sentence: str,
) -> None:
    runs.failure = failure
    assert run(monkeypatch, *BASE) == 1
    assert capsys.readouterr().err == f"arborcast: {sentence}\n"


def test_a_command_without_an_agent_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--control-socket", "/no/such.sock") == 1
    sentence = "no agent answers at /no/such.sock; start one with `arborcast agent`"
    assert capsys.readouterr().err == f"arborcast: {sentence}\n"


def test_a_file_that_is_not_there_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "send", "/no/such/file") == 2


def test_every_command_explains_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("agent", "send", "publish", "tail", "status", "graph"):
        assert run(monkeypatch, command, "--help") == 0
        assert "Usage" in capsys.readouterr().out
