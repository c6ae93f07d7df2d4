"""A real system under attack: a server and agents as processes, and hands to look at them and to wait for them."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from common.ids import DeviceId, link_key
from lab.loopback import GROUP, LoopbackSystem
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario

WAIT_S = 20.0
LOOK_S = 0.02
DATAGRAM_BYTES = 1_472
RATE_BPS = 200e6


class Attacked(LoopbackSystem):
    """A server, and agents with links between all of them.

    Args:
        folder: an empty folder with a short path.
        devices: whose agents run.
        flags: further flags of an agent, by device.
        guests: members that a test plays itself; every agent may speak with them.
        apart: pairs of devices, as "A-C", that have no link.
    """

    def __init__(
        self,
        folder: Path,
        devices: str = "A B",
        *,
        flags: Mapping[DeviceId, Sequence[str]] | None = None,
        guests: Sequence[DeviceId] = (),
        apart: Sequence[str] = (),
    ) -> None:
        names = tuple(devices.split())
        pairs = [link_key(a, b) for a in names for b in names if a < b and f"{a}-{b}" not in apart]
        links = dict.fromkeys(pairs, LinkFigures(RATE_BPS, delay_s=0.0))
        scenario = Scenario(name="attacked", devices=names, links=links, datagram_bytes=DATAGRAM_BYTES)
        super().__init__(scenario, folder, QuietWatcher())
        self._flags = flags or {}
        self._guests = guests

    def _agent_command(self, device: DeviceId) -> list[str]:
        command = super()._agent_command(device) + list(self._flags.get(device, ()))
        for guest in self._guests:
            command += ["--only-peer", guest]
        return command

    @property
    def join_token(self) -> str:
        """What lets a device in."""
        return (self.folder / "server" / "state" / f"join-token-{GROUP}").read_text().strip()

    @property
    def admin_token(self) -> str:
        """What opens everything at the server."""
        return self.admin_token_file.read_text().strip()

    async def look(self, device: DeviceId) -> dict[str, Any]:
        """Return an agent's status."""
        status = await self.status(device)
        assert status is not None, self.log(device)
        return dict(status)

    async def link(self, device: DeviceId, peer: DeviceId) -> dict[str, Any]:
        """Return what an agent says of a link."""
        return next(dict(link) for link in (await self.look(device))["links"] if link["peer"] == peer)

    async def drops(self, device: DeviceId) -> dict[str, int]:
        """Return what an agent dropped, by reason."""
        return {reason: count for reason, count in (await self.look(device))["drops"].items() if count}

    async def stream(self, device: DeviceId, name: str) -> dict[str, Any]:
        """Return what an agent says of a file's stream; empty if it knows none."""
        streams = (await self.look(device))["streams"]
        return next((dict(each) for each in streams if each["name"] == name), {})

    def log(self, device: DeviceId) -> str:
        """Return what an agent said."""
        return (self.folder / device / "log.txt").read_text()

    async def send(self, source: DeviceId, file: Path, channel: str = "files") -> str:
        """Leave a file to an agent; return its stream's id in hex."""
        body = {"path": str(file), "channel": channel, "wait": "none"}
        answer = await self.client(source).post("/streams/file", json=body)
        answer.raise_for_status()
        return str(httpx.Response(200, content=answer.text.splitlines()[0]).json()["stream"])

    async def arrives(self, device: DeviceId, file: Path, *, within: float = WAIT_S) -> None:
        """Wait until a device has a file, and hold it against the one that was sent."""
        copy = self.received(device) / file.name
        await until(copy.exists, within=within, told=lambda: self.log(device))
        assert sha256(copy) == sha256(file)

    def fingerprint(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Return what no stranger may change of an agent."""
        return {
            "links": [(link["peer"], link["state"], link["address"], link["in_tree"]) for link in status["links"]],
            "streams": [(each["stream"], each["role"], each["held_chunks"]) for each in status["streams"]],
            "rest": {key: status[key] for key in ("epoch", "members", "neighbours", "candidates", "mapping")},
            "degraded": status["degraded"]["active"],
        }


@asynccontextmanager
async def running(system: Attacked) -> AsyncIterator[Attacked]:
    """Let a system run, from when its agents know each other."""
    try:
        await system.start()
        if len(system.scenario.devices) > 1:
            await system.span()
        yield system
    finally:
        await system.stop()


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    *,
    within: float = WAIT_S,
    told: Callable[[], object] = lambda: "",
) -> Any:
    """Ask until the answer is true, and return it; bounded.

    Args:
        condition: asked again and again; it may have to be awaited.
        within: seconds before giving up.
        told: what to say then.
    """
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"did not come true in {within:g} s; {told()}")
        await asyncio.sleep(LOOK_S)


def make_file(folder: Path, size_bytes: int, name: str = "model.bin") -> Path:
    """Make a file of random bytes, the same ones for each size."""
    path = folder / name
    path.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    return path


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
