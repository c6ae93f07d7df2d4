import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from host.notify import STATUS_S, ServiceManager


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as raw:
        raw.bind(str(tmp_path / "notify"))
        raw.settimeout(10)
        yield raw


def manager(listener: socket.socket, **environ: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": str(listener.getsockname()), **environ})


def heard(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


async def watch(service: ServiceManager, monkeypatch: pytest.MonkeyPatch, *statuses: str) -> list[float]:
    """Keep watch for as long as there are statuses to tell; return the pauses."""
    pauses: list[float] = []
    left = list(statuses)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if not left:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with suppress(asyncio.CancelledError):
        await service.keep_watch(lambda: left.pop(0))
    return pauses


def test_ready_and_stopping_are_told_with_a_status_of_one_line(listener: socket.socket) -> None:
    service = manager(listener)
    service.ready("listening\non 8640")
    assert heard(listener) == ["READY=1", "STATUS=listening on 8640"]
    service.stopping()
    assert heard(listener) == ["STOPPING=1", "STATUS=stopping"]


async def test_signs_of_life_come_three_times_in_the_watchdog_s_time(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = manager(listener, WATCHDOG_USEC="6000000", WATCHDOG_PID=str(os.getpid()))
    service.ready("idle")
    heard(listener)
    assert await watch(service, monkeypatch, "idle", "busy", "busy") == [2.0, 2.0, 2.0, 2.0]
    assert heard(listener) == ["WATCHDOG=1"]
    assert heard(listener) == ["WATCHDOG=1", "STATUS=busy"]
    assert heard(listener) == ["WATCHDOG=1"]


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}])
async def test_without_a_watchdog_the_status_alone_is_told(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    service = manager(listener, **environ)
    assert service.watchdog_s is None
    assert await watch(service, monkeypatch, "", "busy", "busy") == [STATUS_S] * 4
    assert heard(listener) == ["STATUS=busy"]
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1)


async def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    silent = ServiceManager({})
    silent.ready("x")
    await silent.keep_watch(lambda: "x")
    gone = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    gone.ready("x")
    gone.stopping()


def test_an_abstract_socket_is_reached() -> None:
    name = f"arborcast-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as raw:
        raw.bind(f"\0{name}")
        raw.settimeout(10)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready("x")
        assert heard(raw) == ["READY=1", "STATUS=x"]
