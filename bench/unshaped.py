"""A file over the worked example's six links, as fast as the host moves it: our agents beside Zenoh.

Ours encrypt; the others do not. Everybody writes the file and hashes it with SHA-256 at every device.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._beside import Beside, beside
from bench._cases import Case
from bench._common import (
    SCENARIOS,
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
from bench._programs import told
from common.errors import ConfigError, ConnectError
from common.ids import LinkKey
from lab.loopback import LOOK_S, LoopbackSystem
from lab.scenario import Scenario, load_scenario

OURS: Final = "arborcast"
MEDIANS: Final = ("seconds", "cpu_s")
WORST: Final = ("B", "C")
"""Of the triangle; said to be half as fast, so that the tree does not depend on which link opens first."""
TREE_S: Final = 20.0
"""An edge of the tree is kept for some seconds when a better one appears."""
DEFAULT: Final = (Case.NETNS, Case.LOOPBACK_JUMBO)


def unshaped(
    case: Annotated[
        list[Case] | None, typer.Option(help=f"Where, and with what datagrams. Default {' and '.join(DEFAULT)}.")
    ] = None,
    size: Annotated[str, typer.Option(help="How much to send.")] = "64M",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 5,
    declared: Annotated[str, typer.Option(help="What the links are said to have; nothing shapes them.")] = "1G",
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for one transfer.")] = 60.0,
) -> None:
    """Send a file over unshaped links by several means, several times, and print one JSON object."""
    with one_sentence():
        figures: dict[str, Any] = {
            "bench": "unshaped",
            "size_bytes": size_bytes(size),
            "machine": machine(),
            "cases": {},
        }
        for each in case or DEFAULT:
            scenario = _six(each, declared)
            try:
                done = _repeat(each, scenario, figures["size_bytes"], runs, timeout)
            except ConfigError as error:
                if case:
                    raise
                figures["cases"][each.value] = {"skipped": str(error)}
                say(f"{each}: skipped: {error}")
                continue
            figures["cases"][each.value] = {
                "datagram_bytes": each.datagram_bytes,
                "ratio": {what: median(_ratio(run, what) for run in done) for what in Beside},
                "median": {
                    what: {key: median(run[what].get(key) for run in done) for key in MEDIANS}
                    for what in (OURS, *Beside)
                },
                "runs": done,
            }
    answer(figures)


def _six(case: Case, declared: str) -> Scenario:
    scenario = load_scenario(SCENARIOS / "six-100.toml")
    link = case.link(declared)
    links = {key: replace(link, rate_bps=link.rate_bps / 2) if key == WORST else link for key in scenario.links}
    return replace(scenario, name=f"six-{case}", links=links, datagram_bytes=case.datagram_bytes)


def _repeat(case: Case, scenario: Scenario, size: int, runs: int, within: float) -> list[dict[str, Any]]:
    done = []
    for number in range(1, runs + 1):
        order = _Order(number, size, within)
        run = case.over(scenario, order.measure)
        times = ", ".join(f"{what} {figures.get('seconds')} s" for what, figures in run.items())
        say(f"{case} {number}/{runs}: {times}; ratio to zenoh {_ratio(run, Beside.ZENOH)}")
        done.append(run)
    return done


@dataclass(frozen=True, slots=True)
class _Order:
    """One run: everybody once, beginning with another one each time."""

    number: int
    size: int
    within: float

    async def measure(self, system: LoopbackSystem, folder: Path) -> dict[str, Any]:
        """Send the file by every means over a running system."""
        file = made_up(folder / "payload.bin", self.size)
        edges = await _tree(system)
        source = system.scenario.devices[0]
        names = (OURS, *Beside)
        turn = self.number % len(names)
        run: dict[str, Any] = {}
        for name in itertools.chain(names[turn:], names[:turn]):
            if name == OURS:
                run[name] = await self._ours(system, source, file)
            else:
                run[name] = await beside(Beside(name), system, edges, source, file, within=self.within)
        return {name: run[name] for name in names}

    async def _ours(self, system: LoopbackSystem, source: str, file: Path) -> dict[str, Any]:
        async with told("the agents") as figures:
            before = system.cpu_seconds()
            devices = await deliver(system, source, file, within=self.within)
            cpu_s_of = used_since(before, system.cpu_seconds())
            agents_cpu_s = sum(used for name, used in cpu_s_of.items() if name.startswith("agent "))
            figures |= {
                "seconds": max(devices.values()),
                "cpu_s": round(agents_cpu_s, 3),
                "cpu_s_of": cpu_s_of,
                "devices": devices,
            }
        return figures


async def _tree(system: LoopbackSystem) -> list[LinkKey]:
    """Wait until the tree is that of the worked example.

    Returns:
        Its edges, that which Zenoh finds too.

    Raises:
        ConnectError: It was not in time.
    """
    wanted = [link for link in system.scenario.links if link != WORST]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TREE_S):
            while True:
                graph = await system.span()
                if list(graph.trees[graph.tree_for("throughput")].edges) == wanted:
                    return wanted
                await asyncio.sleep(LOOK_S)
    raise ConnectError(f"the tree is not {wanted} after {TREE_S:g} s")


def _ratio(run: dict[str, Any], what: Beside) -> float | None:
    ours, theirs = run[OURS].get("seconds"), run[what].get("seconds")
    return round(ours / theirs, 3) if ours and theirs else None


if __name__ == "__main__":
    command(unshaped)
