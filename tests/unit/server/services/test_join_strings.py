import json
from pathlib import Path

import httpx
import pytest

from common.errors import ConfigError, ConnectError, RefusedError
from common.fields import encode_key
from common.join_string import JoinString, decode_untrusted
from server.services.certificates import ensure_certificate
from server.services.join_strings import Order, make_join_string
from server.services.whereabouts import Whereabouts, write_whereabouts
from tests.unit.server.harness import WALL

ADMIN = "admin~0123456789abcdef"
FINGERPRINT = bytes(range(32))


class Server:
    """Answers what a test says, and keeps the request."""

    def __init__(self, status: int = 201, content: bytes = b'{"join_token": "join~x"}') -> None:
        self.status, self.content = status, content
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, content=self.content)


def prepare(state: Path, *, tls: bool = True) -> None:
    (state / "admin-token").write_text(ADMIN)
    scheme = "https" if tls else "http"
    certificate = ensure_certificate(state, names=(), wanted=(), wall=WALL)[0]
    write_whereabouts(
        state,
        Whereabouts(
            local_url=f"{scheme}://127.0.0.1:8640",
            url=f"{scheme}://192.0.2.1:8640",
            certificate=str(certificate) if tls else None,
            fingerprint=encode_key(FINGERPRINT) if tls else None,
        ),
    )


def make(state: Path, order: Order, server: Server) -> tuple[JoinString, str]:
    word, url = make_join_string(state, order, transport=httpx.MockTransport(server))
    return decode_untrusted(word), url


def test_a_join_string_holds_a_new_token_on_its_terms_and_the_fingerprint(tmp_path: Path) -> None:
    prepare(tmp_path)
    server = Server()
    found, url = make(tmp_path, Order("lab", None, 3_600.0, 10, "a note"), server)
    assert found == JoinString("https://192.0.2.1:8640", "lab", "join~x", FINGERPRINT)
    assert url == found.url
    (request,) = server.requests
    assert str(request.url) == "https://127.0.0.1:8640/v1/groups/lab/join-tokens"
    assert request.headers["authorization"] == f"Bearer {ADMIN}"
    assert json.loads(request.content) == {"expires_s": 3_600.0, "uses": 10, "note": "a note"}


def test_the_url_may_be_another_and_then_has_to_fit(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert make(tmp_path, Order("lab", "https://h"), Server())[0] == JoinString(
        "https://h", "lab", "join~x", FINGERPRINT
    )
    with pytest.raises(ConfigError, match="speaks TLS, so http://h does not lead to it"):
        make(tmp_path, Order("lab", "http://h"), Server())
    prepare(tmp_path, tls=False)
    for url in ("http://h", "https://h"):
        assert make(tmp_path, Order("lab", url), Server())[0] == JoinString(url, "lab", "join~x")
    with pytest.raises(ConfigError, match="this cannot be a join string"):
        make(tmp_path, Order("lab", "https://" + "h" * 300), Server())


def test_a_server_that_refuses_is_quoted(tmp_path: Path) -> None:
    prepare(tmp_path)
    body = b'{"reason": "unknown-group", "detail": "there is no group \'lab\'"}'
    with pytest.raises(RefusedError, match="there is no group 'lab'"):
        make(tmp_path, Order("lab"), Server(404, body))


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b"null"])
@pytest.mark.parametrize("status", [200, 404])
def test_what_is_no_server_of_ours_is_said(tmp_path: Path, status: int, content: bytes) -> None:
    prepare(tmp_path)
    with pytest.raises(ConnectError, match="is no server of arborcast"):
        make(tmp_path, Order("lab"), Server(status, content))


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    prepare(tmp_path, tls=False)
    with pytest.raises(ConnectError, match=r"no server answers at http://127\.0\.0\.1:8640: refused"):
        make_join_string(tmp_path, Order("lab"), transport=httpx.MockTransport(gone))


def test_a_state_without_what_is_needed_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no server has run"):
        make(tmp_path, Order("lab"), Server())
    prepare(tmp_path)
    with pytest.raises(ConfigError, match="cannot read a token"):
        make_join_string(tmp_path, Order("lab"), tmp_path / "missing")
    (tmp_path / "tls-cert.pem").unlink()
    with pytest.raises(ConfigError, match="cannot read the server's certificate"):
        make(tmp_path, Order("lab"), Server())
