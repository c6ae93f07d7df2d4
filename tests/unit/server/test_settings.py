from pathlib import Path

import pytest
from pydantic import ValidationError

from common.errors import ConfigError
from common.limits import MAX_JOIN_EXPIRY_S, MAX_JOIN_USES, MAX_NOTE_CHARS, MAX_TLS_NAMES
from server.api.groups import NewJoinToken
from server.settings import Settings, check_url, is_loopback, parse_span

STATE = Path("state")
PEM = Path("x.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_plain_http_is_for_this_machine(host: str) -> None:
    assert is_loopback(host)
    Settings(STATE, host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "edge.example"])
def test_where_others_reach_it_a_server_uses_tls_unless_told_otherwise(host: str) -> None:
    assert not is_loopback(host)
    for settings, makes in (
        (Settings(STATE, host=host), True),
        (Settings(STATE, host=host, self_signed=True), True),
        (Settings(STATE, host=host, insecure_http=True), False),
        (Settings(STATE, host=host, tls_cert=PEM, tls_key=PEM), False),
        (Settings(STATE), False),
        (Settings(STATE, self_signed=True, tls_names=("tree.example.org", "::1")), True),
    ):
        settings.check()
        assert settings.makes_certificate == makes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(STATE, self_signed=True, tls_cert=PEM, tls_key=PEM), "--self-signed and --tls-cert contradict"),
        (Settings(STATE, self_signed=True, insecure_http=True), "--self-signed and --insecure-http contradict"),
        (Settings(STATE, tls_names=("a",)), "it uses none; see --self-signed"),
        (Settings(STATE, host="::", tls_names=("no name",)), "'no name' is neither a host name nor an address"),
        (Settings(STATE, self_signed=True, tls_names=("a",) * 65), "65 names for the certificate; at most 64"),
    ],
)
def test_what_is_said_of_the_certificate_has_to_make_sense(settings: Settings, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings.check()


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="go together"):
        Settings(STATE, tls_cert=PEM).check()
    with pytest.raises(ConfigError, match="go together"):
        Settings(STATE, tls_key=PEM).check()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(STATE, port=65_536),
        Settings(STATE, groups=("no spaces",)),
        Settings(STATE, stun_port=0),
        Settings(STATE, stun_port=65_536),
        Settings(STATE, stun_port=3_478, stun=False),
    ],
)
def test_a_port_or_a_group_that_cannot_be_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError):
        settings.check()


def test_a_time_has_its_unit_and_an_end() -> None:
    assert [parse_span(text) for text in ("30s", "5m", "24h", "7d", "never")] == [30, 300, 86_400, 604_800, None]
    for text in ("", "24", "1w", "0h", "-1h", "1.5h", "h", "999999999d", "Never"):
        with pytest.raises(ConfigError, match="such as 24h, of at most 3660d, nor 'never'"):
            parse_span(text)


def test_a_url_is_one_of_a_server() -> None:
    for url in ("https://tree.example.org:8640", "http://127.0.0.1", "https://[2001:db8::1]:1"):
        assert check_url(url) == url
    assert check_url("https://h/") == "https://h"
    for url in (
        *("", "h:8640", "ftp://h", "https://", "https://h:port", "https://[::1", "https://h/path", "https://h?x"),
        *("https://h#x", "https://a b", "https://user@h", "https://" + ".".join(["a" * 60] * 5)),
    ):
        with pytest.raises(ConfigError, match="is not a URL such as https://"):
            check_url(url)


def test_the_names_of_a_certificate_have_their_most(tmp_path: Path) -> None:
    names = tuple(f"n{number}.example.org" for number in range(MAX_TLS_NAMES))
    Settings(tmp_path, self_signed=True, tls_names=names).check()
    with pytest.raises(ConfigError, match=f"at most {MAX_TLS_NAMES}"):
        Settings(tmp_path, self_signed=True, tls_names=(*names, "one.more")).check()


@pytest.mark.parametrize(
    ("field", "most", "more"),
    [
        ("expires_s", MAX_JOIN_EXPIRY_S, MAX_JOIN_EXPIRY_S + 1),
        ("uses", MAX_JOIN_USES, MAX_JOIN_USES + 1),
        ("note", "x" * MAX_NOTE_CHARS, "x" * (MAX_NOTE_CHARS + 1)),
    ],
)
def test_the_terms_of_a_join_token_have_their_most(field: str, most: object, more: object) -> None:
    assert NewJoinToken.model_validate({field: most})
    with pytest.raises(ValidationError):
        NewJoinToken.model_validate({field: more})
