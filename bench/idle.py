"""An agent at rest with five open links: its share of a core, and the memory that it takes; the server's too."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._common import answer, command, machine, median, one_sentence, over_loopback, say, used_since
from common.errors import ConfigError, ConnectError
from lab.loopback import LoopbackSystem
from lab.scenario import LinkFigures, Scenario

DEVICES: Final = ("A", "B", "C", "D", "E", "F")
OPEN: Final = "open"
MEDIANS: Final = ("agent_cpu_percent", "agent_rss_mib", "agent_pss_mib", "server_cpu_percent", "server_rss_mib")


def idle(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to look on.")] = 30.0,
    settle: Annotated[float, typer.Option(min=0.0, help="Seconds before, in which all comes to rest.")] = 15.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs.")] = 5,
) -> None:
    """Let six agents rest in a full mesh, several times, and print one JSON object."""
    links = dict.fromkeys(itertools.combinations(DEVICES, 2), LinkFigures(100e6, delay_s=0.0))
    scenario = Scenario(name="rest", devices=DEVICES, links=links, datagram_bytes=1472)
    figures: dict[str, Any] = {"bench": "idle", "links": len(DEVICES) - 1, "seconds": seconds, "machine": machine()}

    async def use(system: LoopbackSystem, folder: Path) -> dict[str, Any]:
        return await _rest(system, seconds, settle)

    with one_sentence():
        if not Path("/proc/self/smaps_rollup").exists():
            raise ConfigError("what a process uses is read from /proc, and this host has none")
        done = []
        for number in range(1, runs + 1):
            run = over_loopback(scenario, use)
            say(f"{number}/{runs}: " + ", ".join(f"{key} {run[key]}" for key in MEDIANS))
            done.append(run)
    answer(figures | {"median": {key: median(run[key] for run in done) for key in MEDIANS}, "runs": done})


async def _rest(system: LoopbackSystem, seconds: float, settle: float) -> dict[str, Any]:
    await asyncio.sleep(settle)
    await _all_open(system)
    before, began = system.cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    used, took = used_since(before, system.cpu_seconds()), time.monotonic() - began
    await _all_open(system)
    processes = {
        name: {"cpu_percent": round(100 * used[name] / took, 3)} | _memory(pid) for name, pid in system.pids().items()
    }
    agents = [figures for name, figures in processes.items() if name != "server"]
    return {
        "agent_cpu_percent": max(agent["cpu_percent"] for agent in agents),
        "agent_rss_mib": max(agent["rss_mib"] for agent in agents),
        "agent_pss_mib": max(agent["pss_mib"] for agent in agents),
        "server_cpu_percent": processes["server"]["cpu_percent"],
        "server_rss_mib": processes["server"]["rss_mib"],
        "processes": processes,
    }


async def _all_open(system: LoopbackSystem) -> None:
    """Make sure that every agent has all its links open.

    Raises:
        ConnectError: One has not.
    """
    for device in system.scenario.devices:
        status = await system.status(device)
        links = {link["peer"]: link["state"] for link in status["links"]} if status else {}
        if list(links.values()) != [OPEN] * (len(DEVICES) - 1):
            raise ConnectError(f"agent {device} rests with the links {links}, not with {len(DEVICES) - 1} open ones")


def _memory(pid: int) -> dict[str, float]:
    """Return what a process holds in memory, pages that it shares counted whole (RSS) and by their share (PSS).

    Source: proc(5), /proc/PID/smaps_rollup.
    """
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in ("Rss", "Pss"):
            found[f"{key.lower()}_mib"] = round(int(rest.split()[0]) / 1024, 1)
    return found


if __name__ == "__main__":
    command(idle)
