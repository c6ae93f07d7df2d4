"""The STUN responder on real sockets of the loopback interface."""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from common.errors import TransportError
from common.limits import MAX_STUN_BYTES
from common.stun import COOKIE, BindingError, BindingRequest, BindingSuccess, decode_untrusted, encode_answer
from server.services.stun import BATCH_DATAGRAMS, StunResponder

TRANSACTION = bytes(range(12))
REQUEST = b"\0\1\0\0" + COOKIE + TRANSACTION


def two_ports() -> int:
    """Return a UDP port that is free together with the next one, for both families."""
    for _ in range(64):
        with closing(StunResponder("::", free_port())) as found:
            if len(found.ports) == 2:
                return found.ports[0]
    raise AssertionError("no two UDP ports in a row are free")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind(("127.0.0.1", 0))
        port = raw.getsockname()[1]
        assert isinstance(port, int)
        return port


@asynccontextmanager
async def responder(host: str = "127.0.0.1") -> AsyncIterator[StunResponder]:
    with closing(StunResponder(host, two_ports())) as made:
        made.start()
        yield made


def client(host: str = "127.0.0.1") -> socket.socket:
    raw = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    raw.setblocking(False)
    raw.bind((host, 0))
    return raw


async def ask(raw: socket.socket, host: str, port: int, request: bytes = REQUEST) -> tuple[bytes, tuple[Any, ...]]:
    """Send a request and return the answer, and where it came from."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendto(raw, request, (host, port))
    async with asyncio.timeout(10):
        data, source = await loop.sock_recvfrom(raw, 2_000)
    return data, source[:2]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_request_is_answered_with_its_source_from_the_port_that_was_asked(host: str) -> None:
    async with responder(host) as made:
        with client(host) as raw:
            for port in made.ports:
                answer, source = await ask(raw, host, port)
                assert decode_untrusted(answer) == BindingSuccess(COOKIE + TRANSACTION, raw.getsockname()[:2])
                assert source == (host, port)
                assert len(answer) <= 3 * len(REQUEST)
        assert made.ports == (made.ports[0], made.ports[0] + 1)
        assert (made.answered, dict(made.dropped)) == (2, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("asked", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_on_a_wildcard_both_families_are_served_from_the_address_that_was_asked(host: str, asked: str) -> None:
    async with responder(host) as made:
        with client("::1" if ":" in asked else "127.0.0.1") as raw:
            answer, source = await ask(raw, asked, made.ports[0])
            assert decode_untrusted(answer) == BindingSuccess(COOKIE + TRANSACTION, raw.getsockname()[:2])
            assert source == (asked, made.ports[0])


async def test_what_must_be_understood_and_is_not_gets_error_420() -> None:
    async with responder() as made:
        with client() as raw:
            asked = b"\0\1\0\x08" + COOKIE + TRANSACTION + b"\0\3\0\4\0\0\0\0"
            answer, _ = await ask(raw, "127.0.0.1", made.ports[0], asked)
            assert decode_untrusted(answer) == BindingError(COOKIE + TRANSACTION, 420, "Unknown Attribute")
            assert len(answer) <= 3 * len(asked)


async def test_what_is_no_request_is_counted_by_reason_and_not_answered() -> None:
    answer = encode_answer(BindingRequest(COOKIE + TRANSACTION), ("192.0.2.1", 1))
    garbage = (b"", b"\0", REQUEST[:19], bytes(100), bytes(MAX_STUN_BYTES + 1), bytes(9_000), answer)
    async with responder() as made:
        with client() as raw:
            for each in garbage:
                raw.sendto(each, ("127.0.0.1", made.ports[0]))
            # What comes next is answered, and first.
            data, _ = await ask(raw, "127.0.0.1", made.ports[0])
            assert isinstance(decode_untrusted(data), BindingSuccess)
            with pytest.raises(BlockingIOError):
                raw.recv(2_000)
        assert made.dropped == {"malformed": 4, "oversized": 2, "not-a-request": 1}
        assert made.answered == 1


class Flood:
    """A socket that never runs dry."""

    def __init__(self, data: bytes = REQUEST, *, receive: OSError | None = None, send: OSError | None = None) -> None:
        self.data, self.receive, self.send = data, receive, send
        self.received = 0

    def recvmsg(self, size: int, ancillary: int) -> tuple[bytes, list[Any], int, tuple[str, int]]:
        self.received += 1
        if self.receive is not None:
            raise self.receive
        return self.data, [], 0, ("192.0.2.1", 7)

    def sendmsg(self, *_: object) -> None:
        if self.send is not None:
            raise self.send


async def test_a_flood_is_taken_in_bounded_portions() -> None:
    async with responder() as made:
        flood = Flood()
        made._on_readable(flood)  # type: ignore[arg-type]
        assert flood.received == made.answered == BATCH_DATAGRAMS


async def test_errors_of_the_kernel_are_counted_by_name() -> None:
    async with responder() as made:
        made._on_readable(Flood(receive=OSError(errno.ECONNREFUSED, "")))  # type: ignore[arg-type]
        made._on_readable(Flood(send=BlockingIOError(errno.EAGAIN, "")))  # type: ignore[arg-type]
        made._on_readable(Flood(send=OSError("no number")))  # type: ignore[arg-type]
        each = BATCH_DATAGRAMS
        assert made.dropped == {"econnrefused": each, "eagain": each, "oserror": each}
        assert made.answered == 0


def test_a_first_port_that_is_taken_is_named() -> None:
    with client() as taken, pytest.raises(TransportError, match="cannot listen for STUN on UDP"):
        StunResponder(*taken.getsockname())


async def test_without_a_second_port_one_has_to_do(caplog: pytest.LogCaptureFixture) -> None:
    port = two_ports()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, caplog.at_level(logging.WARNING):
        taken.bind(("127.0.0.1", port + 1))
        with closing(StunResponder("127.0.0.1", port)) as made:
            assert made.ports == (port,)
            assert caplog.text.count(f"port {port + 1}") == 1
            made.start()
            with client() as raw:
                assert isinstance(decode_untrusted((await ask(raw, "127.0.0.1", port))[0]), BindingSuccess)


def test_behind_the_last_port_there_is_none() -> None:
    try:
        made = StunResponder("127.0.0.1", 65_535)
    except TransportError:
        pytest.skip("UDP port 65535 is taken here")
    with closing(made):
        assert made.ports == (65_535,)


def test_one_family_taken_is_an_error_and_leaves_nothing_bound() -> None:
    port = two_ports()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", port))
        with pytest.raises(TransportError, match=f":: port {port}"):
            StunResponder("0.0.0.0", port)
    with closing(StunResponder("0.0.0.0", port)) as made:
        assert made.ports[0] == port


def test_a_family_that_this_host_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port = two_ports()

    class NoIPv6(socket.socket):
        def __init__(self, family: int = -1, kind: int = -1) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr("server.services.stun.socket.socket", NoIPv6)
    with closing(StunResponder("::", port)) as made:
        assert [each.family for each in made._sockets] == [socket.AF_INET, socket.AF_INET]
    with pytest.raises(TransportError, match="no such address here"):
        StunResponder("::1", port)
