import asyncio
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from agent.services.pinning import WrongCertificate, make_tls, pin, untrusted
from common.errors import ConfigError
from server.services.certificates import ensure_certificate


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return ensure_certificate(tmp_path_factory.mktemp("tls"), names=(), wanted=(), wall=time.time())


@pytest.fixture(scope="module")
def fingerprint(pair: tuple[Path, Path]) -> bytes:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair[0].read_text())).digest()


def serving(pair: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


@asynccontextmanager
async def server(pair: tuple[Path, Path], heard: list[bytes]) -> AsyncIterator[int]:
    """Answer every request, and keep what came once TLS was up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read(65_536))
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    made = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving(pair))
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        await made.wait_closed()


async def test_the_right_certificate_is_taken_whatever_the_host_is_called(
    pair: tuple[Path, Path], fingerprint: bytes
) -> None:
    heard: list[bytes] = []
    async with server(pair, heard) as port, httpx.AsyncClient(verify=pin(fingerprint), trust_env=False) as client:
        answer = await client.get(f"https://127.0.0.1:{port}/", headers={"Authorization": "Bearer t"})
        assert answer.status_code == 204
    assert b"Bearer t" in heard[0]


async def test_any_other_certificate_is_refused_before_a_byte_of_the_request_leaves(
    pair: tuple[Path, Path], fingerprint: bytes
) -> None:
    heard: list[bytes] = []
    wrong = bytes(range(32))
    async with server(pair, heard) as port:
        url = f"://127.0.0.1:{port}/"
        async with httpx.AsyncClient(verify=pin(wrong), trust_env=False) as client:
            with pytest.raises(httpx.ConnectError, match=wrong.hex()) as caught:
                await client.get(f"https{url}", headers={"Authorization": "Bearer secret"})
        for part in (wrong.hex(), fingerprint.hex(), "nothing was sent", "join string"):
            assert part in str(untrusted(caught.value))
        with pytest.raises(WrongCertificate):
            await connect(f"wss{url}", ssl=pin(wrong), additional_headers={"Authorization": "Bearer secret"})
        # What came of those is here before what comes of this.
        async with httpx.AsyncClient(verify=pin(fingerprint), trust_env=False) as client:
            await client.get(f"https{url}")
    assert [data[:3] for data in heard if data] == [b"GET"]
    assert b"secret" not in b"".join(heard)


@pytest.mark.parametrize("right", [True, False])
def test_a_plain_socket_is_checked_too(pair: tuple[Path, Path], fingerprint: bytes, right: bool) -> None:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(10)

    def serve() -> None:
        try:
            with serving(pair).wrap_socket(theirs, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if right:
            with pin(fingerprint).wrap_socket(ours, server_hostname="any") as tls:
                assert tls.version() == "TLSv1.3"
                tls.send(b"x")
        else:
            with pytest.raises(WrongCertificate, match=fingerprint.hex()):
                pin(bytes(32)).wrap_socket(ours, server_hostname="any")
    finally:
        ours.close()
        thread.join(10)


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    for context in (pin(bytes(32)), make_tls(None)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_without_a_fingerprint_authorities_and_names_count(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    for context in (make_tls(None), make_tls(pair[0])):
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert make_tls(None, bytes(32)).verify_mode == ssl.CERT_NONE
    with pytest.raises(ConfigError, match="cannot use the authorities"):
        make_tls(tmp_path / "none.pem")


def test_a_certificate_that_is_not_trusted_is_found_behind_other_errors_and_only_there() -> None:
    wrong = WrongCertificate(bytes(32), bytes(32))
    outer = ValueError("outer")
    outer.__cause__ = OSError("middle")
    assert untrusted(outer) is None
    outer.__cause__.__context__ = wrong
    assert untrusted(outer) == untrusted(wrong) == str(wrong)


async def test_a_certificate_that_no_authority_vouches_for_is_said_with_what_to_do(pair: tuple[Path, Path]) -> None:
    async with server(pair, []) as port, httpx.AsyncClient(verify=make_tls(None), trust_env=False) as client:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.get(f"https://127.0.0.1:{port}/")
    assert untrusted(caught.value) == (
        "the server's certificate is not trusted: self-signed certificate;"
        " a join string makes this device trust it, or see --ca-file"
    )
