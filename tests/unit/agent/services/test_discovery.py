"""What the core is told of interfaces and STUN servers, as both change."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

import pytest

from agent.services import discovery
from agent.services.discovery import Discovery, resolve
from agent.services.interfaces import InterfaceAddress
from common.addresses import Address
from common.errors import TransportError

LO = InterfaceAddress("lo", "127.0.0.1", up=True, loopback=True)
ETH = InterfaceAddress("eth0", "192.0.2.5", up=True, loopback=False)


class Told:
    """Records what the core is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.candidates: list[tuple[Address, ...]] = []
        self.servers: asyncio.Queue[tuple[Address, ...]] = asyncio.Queue()

    def set_candidates(self, candidates: Iterable[Address]) -> None:
        self.candidates.append(tuple(candidates))

    def set_stun_servers(self, servers: Iterable[Address]) -> None:
        self.servers.put_nowait(tuple(servers))

    async def next(self) -> tuple[Address, ...]:
        async with asyncio.timeout(10):
            return await self.servers.get()


class Host:
    """A host whose interfaces and names a test changes."""

    def __init__(self) -> None:
        self.interfaces: tuple[InterfaceAddress, ...] = (LO, ETH)
        self.names: dict[str, list[str]] = {}
        self.failure: str | None = None
        self.looks = 0

    def read(self) -> tuple[InterfaceAddress, ...]:
        self.looks += 1
        if self.failure is not None:
            raise TransportError(self.failure)
        return self.interfaces

    async def resolve(self, host: str, port: int) -> list[str]:
        if host not in self.names:
            raise TimeoutError
        return self.names[host]


def make(told: Told, host: Host, *stun: Address, bound: str = "::", loopback: bool = False) -> Discovery:
    return Discovery(told, (bound, 7400), stun, loopback=loopback, read=host.read, resolve=host.resolve)


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_change_of_interfaces_is_told_once() -> None:
    told, host = Told(), Host()
    found = make(told, host)
    found.look()
    found.look()
    host.interfaces = (LO,)
    found.look()
    host.interfaces = (LO, ETH)
    found.look()
    assert told.candidates == [(("192.0.2.5", 7400),), (), (("192.0.2.5", 7400),)]


async def test_interfaces_that_cannot_be_read_stay_as_they_were_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told, host = Told(), Host()
    found = make(told, host)
    found.look()
    host.failure = "the kernel does not tell"
    with caplog.at_level(logging.WARNING):
        found.look()
        found.look()
    assert caplog.text.count("the kernel does not tell") == 1
    assert len(told.candidates) == 1


async def test_interfaces_are_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "LOOK_EVERY_S", 0.0)
    told, host = Told(), Host()
    seen = asyncio.Event()
    found = make(told, host)
    watching = asyncio.create_task(found.watch_interfaces())
    read = host.read

    def read_and_stop() -> tuple[InterfaceAddress, ...]:
        if host.looks >= 3:
            seen.set()
        return read()

    found._read = read_and_stop
    async with asyncio.timeout(10):
        await seen.wait()
    await stop(watching)


async def test_names_are_looked_up_numbers_are_not_and_trouble_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery, "RETRY_S", 0.0)
    told, host = Told(), Host()
    found = make(told, host, ("127.0.0.1", 1), ("stun.example", 2))
    with caplog.at_level(logging.WARNING):
        watching = asyncio.create_task(found.watch_servers())
        assert await told.next() == (("127.0.0.1", 1),)
        assert await told.next() == (("127.0.0.1", 1),)
        host.names["stun.example"] = ["127.0.0.2", "::ffff:127.0.0.3"]
        while (servers := await told.next()) == (("127.0.0.1", 1),):
            pass
    assert servers == (("127.0.0.1", 1), ("127.0.0.2", 2), ("127.0.0.3", 2))
    assert caplog.text.count("STUN server 'stun.example' has no address: it took too long") == 1
    await stop(watching)


async def test_after_a_change_of_interfaces_the_ways_are_looked_at_again() -> None:
    told, host = Told(), Host()
    found = make(told, host, ("127.0.0.1", 1))
    watching = asyncio.create_task(found.watch_servers())
    await told.next()
    found.look()
    assert await told.next() == (("127.0.0.1", 1),)
    await stop(watching)


async def test_what_the_socket_cannot_reach_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    told, host = Told(), Host()
    host.names["both.example"] = ["::1", "127.0.0.1", "odd"]
    found = make(told, host, ("both.example", 1), ("::1", 2), bound="0.0.0.0")
    with caplog.at_level(logging.WARNING):
        watching = asyncio.create_task(found.watch_servers())
        assert await told.next() == (("127.0.0.1", 1),)
    assert [record.message for record in caplog.records] == ["= no way leads to STUN server [::1]:2"]
    await stop(watching)


async def test_without_a_server_there_is_nothing_to_watch() -> None:
    async with asyncio.timeout(10):
        await make(Told(), Host()).watch_servers()


async def test_a_name_has_the_systems_addresses() -> None:
    assert set(await resolve("localhost", 1)) <= {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r".+"):
        await resolve("no.such.host.invalid", 1)
