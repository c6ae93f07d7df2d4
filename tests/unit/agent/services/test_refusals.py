import asyncio
import socket
import sys

import pytest

from agent.services.endpoint import SHARED, Endpoint
from agent.services.refusals import listen_for_refusals, take_refusals

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
        assert take_refusals(raw) == [(seen, port)]
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
