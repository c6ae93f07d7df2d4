import socket
from dataclasses import replace
from pathlib import Path

import pytest

from agent.joining import Home, Said, device_of, settle
from agent.services.identity import StateFolder
from common.errors import ConfigError
from common.join_string import JoinString, encode

PRINT = bytes(range(32))
JOIN = JoinString("https://h:1", "lab", "join~x", PRINT)
WORD = encode(JOIN)


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "edge 7.example")


def leave(state: Path, server: str | None = "https://h:1", fingerprint: bytes | None = PRINT) -> None:
    """Leave what an agent that has enrolled leaves."""
    folder = StateFolder(state)
    identity = folder.load_identity("lab", "A")
    if server is not None:
        identity = identity.at(server, fingerprint)
    folder.save_identity(identity)
    folder.close()


def test_a_join_string_says_everything_but_the_name_which_is_the_host_s(tmp_path: Path) -> None:
    home = Home("https://h:1", "lab", "edge-7.example", "join~x", PRINT)
    assert settle(Said(join=WORD), tmp_path) == home
    assert settle(Said(join=f" {WORD}\n"), tmp_path) == home
    (tmp_path / "word").write_text(WORD + "\n")
    assert settle(Said(join=f"@{tmp_path / 'word'}"), tmp_path) == home
    assert settle(Said("https://h:1/", "lab", "B", WORD), tmp_path) == replace(home, server="https://h:1/", device="B")
    assert "join~x" not in repr(home)
    assert WORD not in repr(Said(join=WORD))


def test_without_a_join_string_server_and_group_have_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    said = Said("https://h:1", "lab", "A", join_token="from-flag")
    assert settle(said, tmp_path) == Home("https://h:1", "lab", "A", "from-flag", None)
    assert settle(replace(said, join_token_file=tmp_path / "token"), tmp_path).join_token == "from-file"
    with pytest.raises(ConfigError, match="which server"):
        settle(Said(group="lab"), tmp_path)
    with pytest.raises(ConfigError, match="which group"):
        settle(Said("https://h:1"), tmp_path)


def test_what_was_settled_before_is_remembered_and_the_user_may_change_it(tmp_path: Path) -> None:
    leave(tmp_path)
    assert settle(Said(), tmp_path) == Home("https://h:1", "lab", "A", None, PRINT)
    assert settle(Said(join=WORD), tmp_path) == Home("https://h:1", "lab", "A", "join~x", PRINT)
    assert settle(Said(server="https://h:1/"), tmp_path).fingerprint == PRINT
    # At another server, or where authorities are named, the old certificate says nothing.
    assert settle(Said(server="https://other"), tmp_path) == Home("https://other", "lab", "A", None, None)
    assert settle(Said(ca_file=Path("ca.pem")), tmp_path).fingerprint is None
    moved = encode(replace(JOIN, url="https://moved", fingerprint=bytes(32)))
    assert settle(Said(join=moved), tmp_path) == Home("https://moved", "lab", "A", "join~x", bytes(32))


def test_a_device_of_before_servers_were_remembered_has_to_be_told(tmp_path: Path) -> None:
    leave(tmp_path, None)
    with pytest.raises(ConfigError, match="which server"):
        settle(Said(), tmp_path)
    assert settle(Said("http://h:1"), tmp_path) == Home("http://h:1", "lab", "A", None, None)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(server="https://other"), "--server https://other contradicts the join string, which says https://h:1"),
        (Said(group="other"), "--group other contradicts the join string, which says lab"),
        (Said(join_token="t"), "leave --join-token, --join-token-file and"),
        (Said(join_token_file=Path("t")), "leave --join-token, --join-token-file and"),
        (Said(ca_file=Path("ca.pem")), "--ca-file contradicts the join string"),
    ],
)
def test_what_contradicts_the_join_string_is_refused(tmp_path: Path, said: Said, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settle(replace(said, join=WORD), tmp_path)


def test_authorities_may_vouch_for_a_server_whose_join_string_names_no_certificate(tmp_path: Path) -> None:
    word = encode(replace(JOIN, fingerprint=None))
    assert settle(Said(join=word, ca_file=Path("ca.pem")), tmp_path).fingerprint is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not hold a join string"),
        (b"one\ntwo", "does not hold a join string"),
        (b"\xff", "cannot read the join string"),
        (b"nonsense", "this is no join string"),
        (WORD[:-5].encode(), "cut short or mistyped"),
    ],
)
def test_a_file_without_a_join_string_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "word").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        settle(Said(join=f"@{tmp_path / 'word'}"), tmp_path)
    with pytest.raises(ConfigError, match="cannot read the join string in"):
        settle(Said(join=f"@{tmp_path / 'missing'}"), tmp_path)


@pytest.mark.parametrize(
    ("host", "device"),
    [
        ("edge-7", "edge-7"),
        ("a.example.org", "a.example.org"),
        ("büro 1", "b-ro-1"),
        ("-._x", "x"),
        ("h" * 80, "h" * 64),
    ],
)
def test_a_device_s_name_is_made_of_the_host_s(host: str, device: str) -> None:
    assert device_of(host) == device


def test_a_host_name_of_which_nothing_can_stand_in_a_name_is_told() -> None:
    with pytest.raises(ConfigError, match="give one with --device"):
        device_of("---")
