"""The same file by other means, over the same links of a running system: a hand-made TCP tree, and Zenoh."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from bench._common import outwards, sha256
from bench._programs import Place, Program, Programs, spent, told
from common.errors import ConnectError
from common.ids import DeviceId, LinkKey
from lab.loopback import LoopbackSystem

TCP_PORT: Final = 5101
ZENOH_PORT: Final = 7447
SETTLE_S: Final = 1.0
"""For the routers to agree on their trees once everybody hears the source."""
DEFAULT_CONTROL: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
CONTROLS: Final = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


class Beside(StrEnum):
    """What runs beside the agents."""

    TCP = "tcp"
    ZENOH = "zenoh"


async def beside(
    what: Beside, system: LoopbackSystem, edges: Sequence[LinkKey], source: DeviceId, file: Path, *, within: float
) -> dict[str, Any]:
    """Send a file to all devices by other means than ours.

    Args:
        what: By which.
        system: Started; its agents rest meanwhile.
        edges: The tree for TCP; Zenoh makes its own of all links.
        source: Who sends.
        file: What.
        within: Seconds before giving up.

    Returns:
        ``seconds`` from the hand-over to the last device, ``cpu_s`` of all programs, ``devices`` with the seconds of
        each; or why there are none, as ``skipped`` or ``failed``.
    """
    if what is Beside.TCP:
        return await tcp_tree(system, edges, source, file, within=within)
    return await zenoh_routers(system, source, file, within=within)


async def tcp_tree(
    system: LoopbackSystem, edges: Sequence[LinkKey], source: DeviceId, file: Path, *, within: float
) -> dict[str, Any]:
    """Send a file along a tree by one TCP flow for each edge; devices hash and write it. Nothing is encrypted."""
    place, control = Place(system, TCP_PORT), _control(system)
    hops = list(outwards(edges, source))
    onward = {near: [place.target(far, near) for far in _children(hops, near)] for near in system.scenario.devices}
    async with told("TCP") as figures, Programs(place) as programs:
        # Leaves first: a relay connects onward before it says that it is ready.
        for near, far in reversed(hops):
            host, port = place.address(far, near)
            kept = str(file.with_name(f"tcp-{far}.bin"))
            arguments = ["receive", host, str(port), kept, control, *onward[far]]
            await (await programs.start(far, "bench._chain", *arguments)).line()
        sender = await programs.start(source, "bench._chain", "send", str(file), control, *onward[source])
        await sender.line()
        figures |= {"control": control} | await _transfer(programs, source, file, within)
    return figures


async def zenoh_routers(system: LoopbackSystem, source: DeviceId, file: Path, *, within: float) -> dict[str, Any]:
    """Send a file through one Zenoh router for each device; they hash and write it. Nothing is encrypted."""
    if importlib.util.find_spec("zenoh") is None:
        return {"skipped": "eclipse-zenoh is not installed; .venv/bin/pip install -e '.[bench]' brings it"}
    place, devices = Place(system, ZENOH_PORT), system.scenario.devices
    size = await asyncio.to_thread(os.path.getsize, file)
    async with told("Zenoh") as figures, Programs(place) as programs:
        for device in devices:
            what = "send" if device == source else "receive"
            kept = file if device == source else file.with_name(f"zenoh-{device}.bin")
            config = json.dumps(zenoh_config(place, device, system.scenario.peers(device)))
            await programs.start(device, "bench._zenoh", what, config, str(kept), str(size))
        for program in programs.running.values():
            await program.line()
        await asyncio.sleep(SETTLE_S)
        figures |= {"control": DEFAULT_CONTROL.read_text().strip()} | await _transfer(programs, source, file, within)
    return figures


def zenoh_config(place: Place, device: DeviceId, peers: Iterable[DeviceId]) -> dict[str, Any]:
    """Return a router's configuration: the system's links and no others, nothing found by itself, no shared memory."""
    links = [(place.target(device, peer), place.target(peer, device), device > peer) for peer in peers]
    return {
        "mode": "router",
        "listen": {"endpoints": sorted({f"tcp/{own}" for own, _, _ in links})},
        "connect": {"endpoints": [f"tcp/{other}" for _, other, calls in links if calls]},
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
        "transport": {
            # It would pass bytes between namespaces that no link carried.
            "shared_memory": {"enabled": False},
            # A slow link is to be waited for, not to be closed.
            "link": {"tx": {"queue": {"congestion_control": {"block": {"wait_before_close": 60_000_000}}}}},
        },
    }


async def _transfer(programs: Programs, source: DeviceId, file: Path, within: float) -> dict[str, Any]:
    digest = await asyncio.to_thread(sha256, file)
    before, began = programs.cpu_seconds(), time.monotonic()
    programs.running[source].go()
    receivers = {device: program for device, program in programs.running.items() if device != source}
    ends = await asyncio.gather(*(_end(program, within) for program in receivers.values()))
    cpu_s = spent(before, programs.cpu_seconds())
    for program, end in zip(receivers.values(), ends, strict=True):
        if not (end.get("ok") or end.get("sha256") == digest):
            raise ConnectError(f"{program.name} got {end['bytes']} bytes that are not the file")
    devices = {device: round(end["at"] - began, 4) for device, end in zip(receivers, ends, strict=True)}
    return {
        "seconds": max(devices.values()),
        "cpu_s": round(sum(cpu_s.values()), 3),
        "cpu_s_of": cpu_s,
        "devices": devices,
    }


async def _end(program: Program, within: float) -> dict[str, Any]:
    return await program.line(within=within)


def _children(hops: Iterable[tuple[DeviceId, DeviceId]], device: DeviceId) -> list[DeviceId]:
    return [far for near, far in hops if near == device]


def _control(system: LoopbackSystem) -> str:
    """Return the congestion control that does best: BBR where links lose something, if the kernel has it."""
    lossy = any(link.loss for link in system.scenario.links.values())
    return "bbr" if lossy and "bbr" in CONTROLS.read_text().split() else "cubic"
