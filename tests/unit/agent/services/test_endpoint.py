import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from agent.core.events import Address
from agent.services import endpoint as endpoint_module
from agent.services import moderation as moderation_module
from agent.services.endpoint import SHARED, Endpoint, default_host, local_host_towards
from common.errors import TransportError

Batch = tuple[list[tuple[bytes, Address]], int]
Open = Callable[..., tuple[Endpoint, asyncio.Queue[Batch]]]


@pytest.fixture
async def opened() -> Iterator[Open]:  # type: ignore[misc]
    """Open endpoints with a queue of what they receive; all are closed at the end."""
    endpoints: list[Endpoint] = []

    def open_one(host: str = "127.0.0.1", port: int = 0) -> tuple[Endpoint, asyncio.Queue[Batch]]:
        batches: asyncio.Queue[Batch] = asyncio.Queue()
        endpoint = Endpoint(
            host,
            port,
            on_batch=lambda batch, number: batches.put_nowait((list(batch), number)),
            on_room=lambda: None,
        )
        endpoints.append(endpoint)
        return endpoint, batches

    yield open_one
    for each in endpoints:
        each.close()


async def take(batches: asyncio.Queue[Batch], count: int) -> list[tuple[bytes, Address]]:
    found: list[tuple[bytes, Address]] = []
    while len(found) < count:
        batch, _ = await asyncio.wait_for(batches.get(), 5)
        found.extend(batch)
    return found


async def test_a_train_arrives_in_order_and_with_its_source(opened: Open) -> None:
    sender, _ = opened()
    receiver, batches = opened()
    train = [bytes([number]) * 1_200 for number in range(50)]
    sender.send(SHARED, receiver.address, train)
    assert await take(batches, 50) == [(datagram, sender.address) for datagram in train]


async def test_what_waits_in_the_kernel_comes_as_one_bounded_batch(opened: Open) -> None:
    sender, _ = opened()
    receiver, batches = opened()
    sender.send(SHARED, receiver.address, [bytes(1_000)] * (endpoint_module.BATCH_DATAGRAMS + 1))
    first, _ = await asyncio.wait_for(batches.get(), 5)
    second, _ = await asyncio.wait_for(batches.get(), 5)
    assert (len(first), len(second)) == (endpoint_module.BATCH_DATAGRAMS, 1)


async def test_a_small_datagram_after_a_pause_is_handed_over_before_the_kernel_is_asked_for_more(opened: Open) -> None:
    sender, _ = opened()
    receiver, batches = opened()
    for datagram in (b"first", b"second!", b"third"):
        sender.send(SHARED, receiver.address, [datagram])
    first, _ = await asyncio.wait_for(batches.get(), 5)
    second, _ = await asyncio.wait_for(batches.get(), 5)
    assert [[datagram for datagram, _ in batch] for batch in (first, second)] == [[b"first"], [b"second!", b"third"]]


async def test_each_socket_has_a_number_and_a_port(opened: Open) -> None:
    sender, _ = opened()
    receiver, batches = opened()
    number, port = receiver.open()
    assert number != SHARED
    sender.send(SHARED, ("127.0.0.1", port), [b"to the second"])
    batch, socket_number = await asyncio.wait_for(batches.get(), 5)
    assert socket_number == number
    receiver.send(number, sender.address, [b"back"])
    assert batch == [(b"to the second", sender.address)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_trains_pass_a_dual_stack_socket_as_whole_as_any_other(opened: Open, host: str) -> None:
    both, at_both = opened("::")
    plain, at_plain = opened(host)
    assert both.offload["receive"] == plain.offload["receive"]
    assert both.offload["send"] == plain.offload["send"]
    train = [bytes([number]) * 1_200 for number in range(40)]
    plain.send(SHARED, (host, both.address[1]), train)
    assert await take(at_both, 40) == [(datagram, plain.address) for datagram in train]
    both.send(SHARED, plain.address, train)
    assert await take(at_plain, 40) == [(datagram, (host, both.address[1])) for datagram in train]
    assert (both.offload["plain_addresses"], dict(both.drops)) == ([], {})


def test_the_default_takes_both_families_where_this_host_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_host() == "::"

    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("agent.services.endpoint.socket.socket", refuse)
    assert default_host() == "0.0.0.0"


async def test_a_dual_stack_socket_speaks_ipv4_under_plain_addresses(opened: Open) -> None:
    both, at_both = opened("::")
    plain, at_plain = opened()
    port = both.address[1]
    plain.send(SHARED, ("127.0.0.1", port), [b"hello"])
    assert await take(at_both, 1) == [(b"hello", plain.address)]
    both.send(SHARED, plain.address, [b"answer"])
    assert await take(at_plain, 1) == [(b"answer", ("127.0.0.1", port))]
    both.send(SHARED, ("::1", port), [b"self"])
    assert await take(at_both, 1) == [(b"self", ("::1", port))]


async def test_addresses_that_cannot_be_used_are_counted(opened: Open) -> None:
    endpoint, _ = opened()
    for address in (("host.example", 7400), ("::1", 7400), ("127.0.0.1", 0), ("127.0.0.1", 70_000)):
        endpoint.send(SHARED, address, [b"x"])
    assert endpoint.drops == {"unusable-address": 4}


async def test_a_socket_that_is_gone_is_counted(opened: Open) -> None:
    endpoint, _ = opened()
    endpoint.send(7, ("127.0.0.1", 7400), [b"x"])
    assert endpoint.drops == {"no-socket": 1}


async def test_what_the_kernel_refuses_is_counted_and_the_rest_goes_on(opened: Open) -> None:
    sender, _ = opened()
    receiver, batches = opened()
    sender.send(SHARED, receiver.address, [b"x" * 70_000, b"fits"])
    assert await take(batches, 1) == [(b"fits", sender.address)]
    assert sender.drops == {"emsgsize": 1}


class FullKernel:
    """A socket that takes so many datagrams, then none until told."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.room = 0

    def sendto(self, datagram: bytes, target: Address) -> int:
        if self.room == 0:
            raise BlockingIOError
        self.room -= 1
        return self._real.sendto(datagram, target)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def fill(endpoint: Endpoint, *, room: int) -> FullKernel:
    sender = endpoint._sockets[SHARED].sender
    full = FullKernel(sender._raw)
    full.room = room
    sender._raw = full  # type: ignore[assignment]
    sender.segments = False
    return full


async def test_the_rest_of_a_train_waits_for_room(opened: Open) -> None:
    sender, _ = opened()
    receiver, batches = opened()
    room = asyncio.Event()
    sender._on_room = room.set
    full = fill(sender, room=2)
    sender.send(SHARED, receiver.address, [b"1", b"2", b"3", b"4"])
    sender.send(SHARED, receiver.address, [b"5"])
    congested = [sender.congested]
    full.room = 1
    got = await take(batches, 3)
    congested.append(sender.congested)
    full.room = 10
    await asyncio.wait_for(room.wait(), 5)
    congested.append(sender.congested)
    got += await take(batches, 2)
    assert [data for data, _ in got] == [b"1", b"2", b"3", b"4", b"5"]
    assert congested == [True, True, False]
    assert sender.drops == {}


async def test_what_overflows_the_backlog_is_counted(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "BACKLOG_DATAGRAMS", 3)
    sender, _ = opened()
    fill(sender, room=0)
    sender.send(SHARED, ("127.0.0.1", 9), [b"x"] * 5)
    assert sender.drops == {"backlog-full": 2}


async def test_an_icmp_error_is_counted_and_does_not_stop_the_batch(opened: Open) -> None:
    receiver, batches = opened()
    sender, _ = opened()

    class Failing:
        """Reports one error, then gives what is there."""

        def __init__(self, real: socket.socket) -> None:
            self._real = real
            self._failed = False

        def recvmsg_into(self, *arguments: object) -> object:
            if not self._failed:
                self._failed = True
                raise ConnectionRefusedError(111, "Connection refused")
            return self._real.recvmsg_into(*arguments)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    incoming = receiver._sockets[SHARED].receiver
    incoming._raw = Failing(incoming._raw)  # type: ignore[assignment]
    sender.send(SHARED, receiver.address, [b"x"])
    assert await take(batches, 1) == [(b"x", sender.address)]
    assert receiver.drops == {"econnrefused": 1}


async def test_an_address_in_use_is_named(opened: Open) -> None:
    endpoint, _ = opened()
    with pytest.raises(TransportError, match=r"cannot listen on UDP 127.0.0.1 port \d+: Address already"):
        opened(port=endpoint.address[1])


async def test_sockets_are_bounded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_SOCKETS", 2)
    endpoint, _ = opened()
    endpoint.open()
    with pytest.raises(TransportError, match="2 UDP sockets are open"):
        endpoint.open()


async def test_known_routes_are_bounded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_ROUTES_KEPT", 2)
    endpoint, _ = opened()
    targets: Sequence[Address] = [("127.0.0.1", port) for port in (9, 10, 11)]
    for target in targets:
        endpoint.send(SHARED, target, [])
    assert len(endpoint._routes) == 1


def test_the_address_towards_a_host_is_found_without_a_packet() -> None:
    assert local_host_towards("127.0.0.1", 9) == "127.0.0.1"
    assert local_host_towards("no.such.host.invalid", 9) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
async def test_no_socket_lets_ip_cut_a_datagram(opened: Open) -> None:
    both, _ = opened("::")
    both.open()
    for each in both._sockets.values():
        assert each.raw.getsockopt(socket.IPPROTO_IP, endpoint_module._IP_MTU_DISCOVER) == 3
        assert each.raw.getsockopt(socket.IPPROTO_IPV6, endpoint_module._IPV6_MTU_DISCOVER) == 3


async def test_a_datagram_larger_than_the_interface_takes_is_counted_and_the_next_train_is_segmented(
    opened: Open,
) -> None:
    sender, _ = opened()
    receiver, batches = opened()

    class Narrow:
        """An interface that takes Ethernet frames."""

        def __init__(self, real: socket.socket) -> None:
            self._real = real

        def sendmsg(self, datagrams: Sequence[bytes], *rest: object) -> int:
            if len(datagrams[0]) > 1_472:
                raise OSError(errno.EINVAL, "Invalid argument")
            return self._real.sendmsg(datagrams, *rest)  # type: ignore[arg-type]

        def sendto(self, datagram: bytes, target: Address) -> int:
            if len(datagram) > 1_472:
                raise OSError(errno.EMSGSIZE, "Message too long")
            return self._real.sendto(datagram, target)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    shared = sender._sockets[SHARED].sender
    shared._raw = Narrow(shared._raw)  # type: ignore[assignment]
    sender.send(SHARED, receiver.address, [bytes(8_972), bytes(8_972), bytes(1_472), bytes(1_472)])
    assert [len(data) for data, _ in await take(batches, 2)] == [1_472, 1_472]
    assert sender.drops == {"emsgsize": 2}
    assert sender.offload["plain_addresses"] == []


async def test_a_busy_socket_is_looked_at_by_intervals_and_nothing_is_lost_or_reordered(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every wake counts as rapid, so the socket goes from wakes to looks and back again and again.
    monkeypatch.setattr(moderation_module, "RAPID_S", 3_600.0)
    monkeypatch.setattr(moderation_module, "LARGE_BYTES", 1)
    monkeypatch.setattr(moderation_module, "RAPID_WAKES", 2)
    monkeypatch.setattr(moderation_module, "QUIET_LOOKS", 1)
    monkeypatch.setattr(endpoint_module, "BATCH_DATAGRAMS", 4)
    sender, _ = opened()
    receiver, batches = opened()
    for number in range(40):
        burst = [b"%d.%d" % (number, place) for place in range(1 + number % 7)]
        sender.send(SHARED, receiver.address, burst)
        assert [datagram for datagram, _ in await take(batches, len(burst))] == burst


async def test_a_busy_socket_is_looked_at_again_whatever_a_batch_did(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moderation_module, "RAPID_S", 3_600.0)
    monkeypatch.setattr(moderation_module, "LARGE_BYTES", 1)
    monkeypatch.setattr(moderation_module, "RAPID_WAKES", 1)
    monkeypatch.setattr(moderation_module, "QUIET_LOOKS", 1_000_000)
    reported = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda *_: reported.set())
    sender, _ = opened()
    receiver, batches = opened()
    for _ in range(2):
        sender.send(SHARED, receiver.address, [b"x"])
        await take(batches, 1)
    assert receiver._sockets[SHARED].look is not None
    take_batch = receiver._on_batch

    def fail_once(batch: Sequence[tuple[bytes, Address]], number: int) -> None:
        receiver._on_batch = take_batch
        raise ValueError("a mistake in the core")

    receiver._on_batch = fail_once
    sender.send(SHARED, receiver.address, [b"lost"])
    await asyncio.wait_for(reported.wait(), 5)
    sender.send(SHARED, receiver.address, [b"heard"])
    assert await take(batches, 1) == [(b"heard", sender.address)]


async def test_closing_a_busy_socket_ends_its_looks(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderation_module, "RAPID_S", 3_600.0)
    monkeypatch.setattr(moderation_module, "LARGE_BYTES", 1)
    monkeypatch.setattr(moderation_module, "RAPID_WAKES", 1)
    sender, _ = opened()
    receiver, batches = opened()
    for _ in range(2):
        sender.send(SHARED, receiver.address, [b"x"])
        await take(batches, 1)
    address = receiver.address
    receiver.close()
    sender.send(SHARED, address, [b"nobody is there"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(batches.get(), 0.02)
