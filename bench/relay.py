"""One relay: what a gigabyte costs that it verifies, stores and passes on, beside what it costs at the least.

The source S sends a file to the relay R, which passes it on to as many receivers as the fan-out says; all are real
agents. On the same links, one after the other: a loop that only passes trains of datagrams on; the same loop that also
opens, hashes and writes every chunk, which no relay in Python can do without; and a hand-made TCP relay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._beside import tcp_tree
from bench._cases import Case
from bench._common import (
    answer,
    command,
    deliver,
    machine,
    made_up,
    median,
    one_sentence,
    say,
    size_bytes,
    used_since,
)
from bench._programs import Place, Programs, spent, told
from common.errors import ConfigError
from common.ids import link_key
from lab.loopback import LoopbackSystem
from lab.scenario import Scenario

SOURCE: Final = "S"
RELAY: Final = "R"
PORT: Final = 5201
RAW_TIMES: Final = 4
"""The bare loop costs little, and processor time is counted in hundredths of a second: it gets more bytes."""
MEDIANS: Final = ("cpu_s_per_gb", "gbit_s_per_core", "gbit_s")
KINDS: Final = ("agent", "raw", "raw_open_store", "tcp")


def relay(
    case: Annotated[list[Case] | None, typer.Option(help="Where, and with what datagrams. Default all.")] = None,
    fan_out: Annotated[list[int] | None, typer.Option(min=1, max=16, help="Receivers. Default 1, 2 and 4.")] = None,
    size: Annotated[str, typer.Option(help="How much to send.")] = "256M",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 5,
    declared: Annotated[
        str, typer.Option(help="The rate that the links are said to have; nothing shapes them.")
    ] = "1G",
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for one transfer.")] = 120.0,
    beside: Annotated[bool, typer.Option(help="Measure the loops and the TCP relay as well.")] = True,
) -> None:
    """Measure one relay, several times, and print one JSON object."""
    with one_sentence():
        figures: dict[str, Any] = {
            "bench": "relay",
            "size_bytes": size_bytes(size),
            "machine": machine(),
            "cases": {},
        }
        for each in case or list(Case):
            fans: dict[int, dict[str, Any]] = {}
            try:
                for fan in fan_out or (1, 2, 4):
                    order = _Order(each, fan, figures["size_bytes"], timeout, beside)
                    fans[fan] = order.repeat(_star(each, fan, declared), runs)
            except ConfigError as error:
                if case:
                    raise
                figures["cases"][each.value] = {"skipped": str(error)}
                say(f"{each}: skipped: {error}")
                continue
            figures["cases"][each.value] = {
                "datagram_bytes": each.datagram_bytes,
                "fan_out": fans,
                "fan_out_ratio": _growth(fans),
            }
    answer(figures)


def _star(case: Case, fan_out: int, declared: str) -> Scenario:
    others = [SOURCE, *(f"D{number}" for number in range(1, fan_out + 1))]
    return Scenario(
        name=f"star-{fan_out}",
        devices=tuple(sorted((RELAY, *others))),
        links=dict.fromkeys(sorted(link_key(RELAY, other) for other in others), case.link(declared)),
        datagram_bytes=case.datagram_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """One case at one fan-out."""

    case: Case
    fan_out: int
    size: int
    within: float
    beside: bool

    def repeat(self, scenario: Scenario, runs: int) -> dict[str, Any]:
        """Measure some runs."""
        done = []
        for number in range(1, runs + 1):
            run = self.case.over(scenario, self.measure)
            costs = ", ".join(f"{kind} {figures.get('cpu_s_per_gb')}" for kind, figures in run.items())
            say(f"{self.case} to {self.fan_out} {number}/{runs}: CPU-s per GB: {costs}")
            done.append(run)
        return {
            kind: {
                "median": {key: median(run[kind].get(key) for run in done) for key in MEDIANS},
                "runs": [run[kind] for run in done],
            }
            for kind in KINDS
            if kind in done[0]
        }

    async def measure(self, system: LoopbackSystem, folder: Path) -> dict[str, Any]:
        """Send the file by every means over a running system."""
        file = made_up(folder / "payload.bin", self.size)
        run = {"agent": await self._agent(system, file)}
        if self.beside:
            run["raw"] = await self._loop(system, "-", RAW_TIMES * self.size)
            run["raw_open_store"] = await self._loop(system, str(folder / "kept.bin"), self.size)
            run["tcp"] = await self._tcp(system, file)
        return run

    async def _agent(self, system: LoopbackSystem, file: Path) -> dict[str, Any]:
        async with told("the agents") as figures:
            before = system.cpu_seconds()
            seconds = await deliver(system, SOURCE, file, within=self.within)
            cpu_s = used_since(before, system.cpu_seconds())
            status = await system.status(RELAY)
            figures |= _cost(cpu_s[f"agent {RELAY}"], max(seconds.values()), self.size)
            figures |= {"offload": status and status.get("offload"), "cpu_s_of": cpu_s}
        return figures

    async def _tcp(self, system: LoopbackSystem, file: Path) -> dict[str, Any]:
        edges = list(system.scenario.links)
        run = await tcp_tree(system, edges, SOURCE, file, within=self.within)
        return run if "failed" in run else _cost(run["cpu_s_of"][RELAY], run["seconds"], self.size)

    async def _loop(self, system: LoopbackSystem, kept: str, size: int) -> dict[str, Any]:
        place = Place(system, PORT)
        receivers = [device for device in system.scenario.peers(RELAY) if device != SOURCE]
        async with told("the loop") as figures, Programs(place) as programs:
            for device in receivers:
                host, port = place.address(device, RELAY)
                await (await programs.start(device, "bench._raw", "receive", host, str(port), str(size))).line()
            host, port = place.address(RELAY, SOURCE)
            # Any address of its own, for it speaks to all its peers by one socket.
            host = host if host.startswith("127.") else ""
            targets = [place.target(device, RELAY) for device in receivers]
            loop = await programs.start(RELAY, "bench._raw", "relay", host, str(port), str(size), kept, *targets)
            await loop.line()
            target, datagram = place.target(RELAY, SOURCE), str(self.case.datagram_bytes)
            sender = await programs.start(SOURCE, "bench._raw", "send", target, str(size), datagram)
            await sender.line()
            before = programs.cpu_seconds()
            sender.go()
            ended = await loop.line(within=self.within)
            cpu_s = spent(before, programs.cpu_seconds())
            began = (await sender.line())["began"]
            arrived = [(await programs.running[device].line())["bytes"] for device in receivers]
            figures |= _cost(cpu_s[RELAY], ended["at"] - began, ended["bytes"])
            figures |= {"arrived_share": round(min(arrived) / ended["bytes"], 4), "cpu_s_of": cpu_s}
        return figures


def _cost(cpu_s: float, seconds: float, size: int) -> dict[str, Any]:
    return {
        "cpu_s_per_gb": round(cpu_s / (size / 1e9), 3),
        "gbit_s_per_core": round(8e-9 * size / cpu_s, 3) if cpu_s else None,
        "gbit_s": round(8e-9 * size / seconds, 3),
        "seconds": round(seconds, 3),
    }


def _growth(fans: Mapping[int, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return what the widest fan-out costs over the narrowest, by kind."""
    narrow, wide = fans[min(fans)], fans[max(fans)]
    growth = {}
    for kind in narrow:
        few, many = (fan[kind]["median"]["cpu_s_per_gb"] for fan in (narrow, wide))
        growth[kind] = round(many / few, 3) if few and many else None
    return growth


if __name__ == "__main__":
    command(relay)
