"""A file to a device that is flooded with garbage meanwhile, beside the same file in peace.

The source S sends a file to the relay R, which passes it on to the receiver D; all are real agents. In turn nobody
disturbs them, and a stranger sends garbage to the UDP port of R at the rate that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._cases import Case
from bench._common import (
    answer,
    command,
    deliver,
    machine,
    made_up,
    median,
    one_sentence,
    over_loopback,
    say,
    size_bytes,
    used_since,
)
from bench._flood import Kind
from bench._programs import Place, Program, Programs, told
from common.errors import ConnectError
from common.ids import DeviceId, link_key
from lab.loopback import LoopbackSystem
from lab.scenario import Scenario

SOURCE: Final = "S"
RELAY: Final = "R"
RECEIVER: Final = "D"
PEACE: Final = "peace"
MEDIANS: Final = ("seconds", "cpu_s", "repeats", "flood_per_s")
LINKS: Final = (link_key(RECEIVER, RELAY), link_key(RELAY, SOURCE))


def attack(
    size: Annotated[str, typer.Option(help="How much to send.")] = "64M",
    rate: Annotated[int, typer.Option(min=1, help="Datagrams of garbage in a second.")] = 50_000,
    kind: Annotated[list[Kind] | None, typer.Option(help="Of what garbage. Default all.")] = None,
    declared: Annotated[
        str, typer.Option(help="The rate that the links are said to have; nothing shapes them.")
    ] = "100M",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for one transfer.")] = 120.0,
) -> None:
    """Send a file in peace and under floods, several times, and print one JSON object."""
    with one_sentence():
        case = Case.LOOPBACK
        scenario = Scenario(
            name="chain",
            devices=(RECEIVER, RELAY, SOURCE),
            links=dict.fromkeys(LINKS, case.link(declared)),
            datagram_bytes=case.datagram_bytes,
        )
        kinds = [PEACE, *(kind or list(Kind))]
        figures: dict[str, Any] = {
            "bench": "attack",
            "size_bytes": size_bytes(size),
            "asked_per_s": rate,
            "machine": machine(),
        }
        order = _Order(kinds, figures["size_bytes"], rate, timeout)
        done = []
        for number in range(1, runs + 1):
            run = over_loopback(scenario, order.measure)
            say(f"{number}/{runs}: " + ", ".join(f"{what} {each.get('seconds')} s" for what, each in run.items()))
            done.append(run)
        figures["median"] = {
            what: {key: median(run[what].get(key) for run in done) for key in MEDIANS} for what in kinds
        }
        figures["slower"] = {what: median(_ratio(run, what) for run in done) for what in kinds if what != PEACE}
        answer(figures | {"runs": done})


@dataclass(frozen=True, slots=True)
class _Order:
    """What each run measures."""

    kinds: list[str]
    size: int
    rate: int
    within: float

    async def measure(self, system: LoopbackSystem, folder: Path) -> dict[str, Any]:
        """Send the file once for each kind of weather."""
        run = {}
        for kind in self.kinds:
            file = made_up(folder / f"{kind}.bin", self.size)
            run[kind] = await self._once(system, file, kind)
        return run

    async def _once(self, system: LoopbackSystem, file: Path, kind: str) -> dict[str, Any]:
        async with told(kind) as figures, Programs(Place(system, 0)) as programs:
            flood = None if kind == PEACE else await self._flood(system, programs, kind)
            before, dropped, repeats = system.cpu_seconds(), await _drops(system), await _repeats(system)
            if flood is not None:
                flood.go()
            seconds = await deliver(system, SOURCE, file, within=self.within)
            cpu_s = used_since(before, system.cpu_seconds())
            figures |= {"seconds": max(seconds.values()), "cpu_s": cpu_s[f"agent {RELAY}"], "cpu_s_of": cpu_s}
            figures["repeats"] = await _repeats(system) - repeats
            if flood is not None:
                flood.go()
                ended = await flood.line()
                figures |= {"flood_per_s": ended["per_s"], "flood_sent": ended["sent"]}
                after = await _drops(system)
                figures["dropped"] = {why: after[why] - dropped.get(why, 0) for why in after}
        return figures

    async def _flood(self, system: LoopbackSystem, programs: Programs, kind: str) -> Program:
        target = await _address(system, SOURCE, RELAY)
        flood = await programs.start("flood", "bench._flood", target, str(self.rate), str(self.within), kind)
        await flood.line()
        return flood


async def _status(system: LoopbackSystem, device: DeviceId) -> Mapping[str, Any]:
    status = await system.status(device)
    if status is None:
        raise ConnectError(f"agent {device} does not answer")
    return status


async def _address(system: LoopbackSystem, device: DeviceId, peer: DeviceId) -> str:
    """Return where a device reaches a peer."""
    links = (await _status(system, device))["links"]
    return str(next(link["address"] for link in links if link["peer"] == peer))


async def _drops(system: LoopbackSystem) -> dict[str, int]:
    return dict((await _status(system, RELAY))["drops"])


async def _repeats(system: LoopbackSystem) -> int:
    """Return how many chunks were sent again or pulled so far, on all links."""
    statuses = [await _status(system, device) for device in system.scenario.devices]
    return sum(link["repeats_sent"] + link["pulled_sent"] for status in statuses for link in status["links"])


def _ratio(run: Mapping[str, Mapping[str, Any]], what: str) -> float | None:
    """Return how many times longer a file takes under a flood."""
    peace, flooded = run[PEACE].get("seconds"), run[what].get("seconds")
    return round(flooded / peace, 3) if peace and flooded else None


if __name__ == "__main__":
    command(attack)
