import asyncio
import errno
import socket
import sys

import pytest

from agent.services.endpoint import SHARED, Endpoint
from agent.services.refusals import Refusal, listen_for_refusals, take_refusals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which address an error is about")


def closed_port(family: int = socket.AF_INET, host: str = "127.0.0.1") -> int:
    """Return a port at which nobody listens."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("bound", "host", "seen"),
    [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::", "::ffff:127.0.0.1", "::ffff:127.0.0.1"), ("::", "::1", "::1")],
)
def test_an_error_names_the_address_that_it_is_about(bound: str, host: str, seen: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as raw:
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        raw.bind((bound, 0))
        raw.setblocking(False)
        listen_for_refusals(raw)
        assert take_refusals(raw) == []
        port = closed_port(family, "::1" if host == "::1" else "127.0.0.1" if family == socket.AF_INET else "::")
        raw.sendto(b"anybody?", (host, port))
        assert take_refusals(raw) == [Refusal((seen, port), errno.ECONNREFUSED)]
        assert take_refusals(raw) == []


async def test_an_endpoint_tells_once_of_an_address_that_refuses_and_goes_on() -> None:
    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    receiver = Endpoint("127.0.0.1", 0, on_batch=lambda batch, _: None, on_room=lambda: None)
    other = Endpoint(
        "127.0.0.1",
        0,
        on_batch=lambda batch, _: arrived.put_nowait(batch[0][0]),
        on_room=lambda: None,
    )
    sender = Endpoint(
        "127.0.0.1", 0, on_batch=lambda batch, _: None, on_room=lambda: None, on_unreachable=told.put_nowait
    )
    try:
        port = closed_port()
        sender.send(SHARED, ("127.0.0.1", port), [b"anybody?"])
        # The error about the first makes this call fail, which has nothing to do with it.
        sender.send(SHARED, other.address, [b"to the other"])
        assert await asyncio.wait_for(told.get(), 5) == ("127.0.0.1", port)
        assert await asyncio.wait_for(arrived.get(), 5) == b"to the other"
        assert told.empty()
    finally:
        for each in (sender, other, receiver):
            each.close()


IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 23, 3  # of linux/in6.h: the kernel shall not cut
TOO_LARGE = bytes(65_500)
"""More than loopback takes over IPv6, headers and all, and no more than a datagram may have."""


def test_a_datagram_that_is_too_large_is_no_word_about_who_is_there() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as raw:
        raw.bind(("::1", 0))
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        listen_for_refusals(raw)
        with pytest.raises(OSError, match="too long"):
            raw.sendto(TOO_LARGE, ("::1", 9))
        (refusal,) = take_refusals(raw)
        assert refusal == (("::1", 9), errno.EMSGSIZE)
        assert not refusal.unreachable


async def test_an_endpoint_does_not_take_a_probe_that_is_too_large_for_a_peer_that_is_gone() -> None:
    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    sender = Endpoint("::1", 0, on_batch=lambda batch, _: None, on_room=lambda: None, on_unreachable=told.put_nowait)
    try:
        sender.send(SHARED, ("::1", 9), [TOO_LARGE])
        assert sender.drops == {"emsgsize": 1}
        port = closed_port(socket.AF_INET6, "::1")
        sender.send(SHARED, ("::1", port), [b"anybody?"])
        assert await asyncio.wait_for(told.get(), 5) == ("::1", port)
    finally:
        sender.close()


async def test_an_endpoint_that_only_listens_hears_of_refusals_too() -> None:
    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    sender = Endpoint(
        "127.0.0.1", 0, on_batch=lambda batch, _: None, on_room=lambda: None, on_unreachable=told.put_nowait
    )
    try:
        port = closed_port()
        sender.send(SHARED, ("127.0.0.1", port), [b"anybody?"])
        assert await asyncio.wait_for(told.get(), 5) == ("127.0.0.1", port)
    finally:
        sender.close()


async def test_an_address_without_a_route_is_told_at_once() -> None:
    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    sender = Endpoint(
        "127.0.0.1", 0, on_batch=lambda batch, _: None, on_room=lambda: None, on_unreachable=told.put_nowait
    )

    class Unrouted:
        """A kernel without a route."""

        segments = False
        plain: dict[tuple[str, int], None] = {}  # noqa: RUF012 - never changed

        def send(self, datagrams: list[bytes], target: tuple[str, int]) -> int:
            raise OSError(101, "Network is unreachable")

    try:
        sender._sockets[SHARED].sender = Unrouted()  # type: ignore[assignment]
        sender.send(SHARED, ("192.0.2.1", 9), [b"x", b"y"])
        assert await asyncio.wait_for(told.get(), 5) == ("192.0.2.1", 9)
        assert sender.drops == {"enetunreach": 2}
    finally:
        sender.close()
