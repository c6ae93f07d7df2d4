"""Programs of the benches' own beside a system's agents: in the same places, over the same links."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from common.errors import ConnectError
from common.ids import DeviceId
from lab.loopback import LoopbackSystem
from lab.netns import NetnsSystem
from lab.processes import cpu_seconds_of

READY_S: Final = 20.0

_LOOPBACK: Final = int(ipaddress.IPv4Address("127.0.0.0"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where each device of a system is.

    Attributes:
        system: Started.
        port: The TCP or UDP port of every device, each of which has an address of its own.
    """

    system: LoopbackSystem
    port: int

    def address(self, device: DeviceId, peer: DeviceId) -> tuple[str, int]:
        """Return where a device listens for a peer."""
        if isinstance(self.system, NetnsSystem):
            return self.system.plan.address(device, peer), self.port
        # All of 127.0.0.0/8 is this host: an address for each process that runs a bench, and for each device.
        host = _LOOPBACK + ((os.getpid() & 0xFFFF) << 8) + self.system.scenario.devices.index(device) + 1
        return str(ipaddress.IPv4Address(host)), self.port

    def target(self, device: DeviceId, peer: DeviceId) -> str:
        """Return the same as ``host:port``."""
        host, port = self.address(device, peer)
        return f"{host}:{port}"

    def command(self, device: DeviceId, module: str, arguments: Sequence[str]) -> list[str]:
        """Return the command line that runs a module where a device is."""
        line = [sys.executable, "-m", module, *arguments]
        if isinstance(self.system, NetnsSystem):
            return self.system.plan.inside(self.system.plan.namespace(device), line)
        return line


class Program:
    """One program that says lines of JSON."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Take a program that runs.

        Args:
            name: For messages.
            process: Its standard streams are pipes.
        """
        self.name = name
        self._process = process

    def cpu_seconds(self) -> float:
        """Return the processor time that it used so far, in seconds."""
        return cpu_seconds_of(self._process.pid)

    async def line(self, *, within: float = READY_S) -> dict[str, Any]:
        """Return what it says next.

        Args:
            within: Seconds before giving up.

        Raises:
            ConnectError: It ended, or said nothing in time.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise ConnectError(f"{self.name} said nothing for {within:g} s") from error
        if not line:
            raise ConnectError(f"{self.name} ended")
        return dict(json.loads(line))

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def kill(self) -> None:
        """End it: all that it had to say is said."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()


class Programs:
    """Some programs, which all end together: one that saw others end first would have something to say about it."""

    def __init__(self, place: Place) -> None:
        """Take the place where they run."""
        self._place = place
        self.running: dict[DeviceId, Program] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for program in self.running.values():
            program.kill()
        for program in self.running.values():
            await program.gone()

    async def start(self, device: DeviceId, module: str, *arguments: str) -> Program:
        """Start one.

        Args:
            device: Where.
            module: What.
            arguments: Its own.

        Returns:
            What runs now.
        """
        process = await asyncio.create_subprocess_exec(
            *self._place.command(device, module, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        program = Program(f"{module} at {device}", process)
        self.running[device] = program
        return program

    def cpu_seconds(self) -> dict[DeviceId, float]:
        """Return the processor time of each so far, in seconds."""
        return {device: program.cpu_seconds() for device, program in self.running.items()}


@contextlib.asynccontextmanager
async def told(what: str) -> AsyncIterator[dict[str, Any]]:
    """Give figures to fill; what fails meanwhile stands in them, for the other figures of the run are good."""
    figures: dict[str, Any] = {}
    try:
        yield figures
    except (ConnectError, OSError) as error:
        figures.clear()
        figures["failed"] = f"{what}: {error}"


def spent(before: Mapping[DeviceId, float], after: Mapping[DeviceId, float]) -> dict[DeviceId, float]:
    """Return the processor seconds that each used between two looks."""
    return {device: round(seconds - before.get(device, 0.0), 3) for device, seconds in after.items()}
