"""Cut links and killed relays of a random mesh, one after the other, while messages flow: how long devices are without.

Twelve agents in namespaces, over a random mesh of interface pairs that no single link or device holds together. From
one of the devices messages flow to all others at an even pace. A tree link is cut, silently and in both directions;
when all devices have new messages again it is restored, and after a rest the next one is cut. In the other mode a relay
of the tree is killed (SIGKILL) and started again. What counts is the largest gap between two deliveries at the devices
behind what was cut or killed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._common import (
    EmulatorOption,
    answer,
    command,
    machine,
    one_sentence,
    outwards,
    over_namespaces,
    percentile,
    say,
)
from bench._flow import Flow
from common.errors import ConnectError
from common.ids import DeviceId, LinkKey, link_key
from lab.happenings import Happening, Verb
from lab.incidents import Incidents
from lab.netns import NetnsSystem
from lab.scenario import LinkFigures, Scenario
from lab.traces import Trace

RATES_BPS: Final = (20e6, 100e6)
RECOVERED_S: Final = 30.0
"""Seconds after which a device without a new message counts as not recovered."""
AROUND_S: Final = 0.5
"""Seconds before and after an event in which a gap may begin or end and still be due to it."""
SPAN_S: Final = 30.0
END_S: Final = 30.0
LOOK_S: Final = 0.1
OBJECTIVE: Final = "throughput"


class Mode(StrEnum):
    """What is done to the mesh."""

    CUT = "cut"
    KILL = "kill"


def mend(
    mode: Annotated[list[Mode] | None, typer.Option(help="cut: tree links; kill: relays. Default both.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Cuts, and kills.")] = 20,
    devices: Annotated[int, typer.Option(min=4, help="Devices of the mesh.")] = 12,
    degree: Annotated[float, typer.Option(min=2.0, help="Links of each on average.")] = 3.0,
    seed: Annotated[int, typer.Option(help="The mesh and the order of events follow from it.")] = 1,
    per_second: Annotated[float, typer.Option(min=1.0, help="Messages a second.")] = 100.0,
    message_bytes: Annotated[int, typer.Option(min=12, help="Bytes of a message.")] = 200,
    rest: Annotated[float, typer.Option(min=0.0, help="Seconds between two events, after all is whole again.")] = 2.0,
    emulator: EmulatorOption = None,
) -> None:
    """Cut and kill while messages flow, and print one JSON object."""
    scenario = mesh(devices, degree, seed)
    figures: dict[str, Any] = {
        "bench": "mend",
        "devices": devices,
        "links": len(scenario.links),
        "seed": seed,
        "per_second": per_second,
        "message_bytes": message_bytes,
        "machine": machine(),
        "modes": {},
    }
    with one_sentence():
        for each in mode or list(Mode):
            order = _Order(each, count, seed, per_second, message_bytes, rest)
            figures["modes"][each.value] = over_namespaces(scenario, order.measure, emulator=emulator)
    answer(figures)


def mesh(devices: int, degree: float, seed: int) -> Scenario:
    """Draw a random mesh that stays connected without any one link or device: a ring in random order, and chords."""
    rng = random.Random(f"mend:{seed}")
    names = [f"d{index:02}" for index in range(devices)]
    ring = rng.sample(names, devices)
    pairs = {link_key(a, b): None for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)}
    wanted = min(round(devices * degree / 2), devices * (devices - 1) // 2)
    while len(pairs) < wanted:
        pairs[link_key(*rng.sample(names, 2))] = None
    links = {pair: LinkFigures(rate_bps=round(rng.uniform(*RATES_BPS), -5), delay_s=0.0) for pair in sorted(pairs)}
    return Scenario(name="mend", devices=tuple(names), links=links, seed=seed, datagram_bytes=1472)


@dataclass(frozen=True, slots=True)
class _Order:
    """One mode's run."""

    mode: Mode
    count: int
    seed: int
    per_second: float
    message_bytes: int
    rest: float

    async def measure(self, system: NetnsSystem, folder: Path) -> dict[str, Any]:
        """Let everything happen over a running system."""
        rng = random.Random(f"{self.mode}:{self.seed}")
        source = system.scenario.devices[0]
        flow = Flow(system, source, per_second=self.per_second, message_bytes=self.message_bytes)
        await flow.start()
        mesh_run = _Run(system, flow, source, rng)
        events = []
        for number in range(1, self.count + 1):
            await asyncio.sleep(self.rest)
            event = await (mesh_run.cut() if self.mode is Mode.CUT else mesh_run.kill())
            say(f"{self.mode} {number}/{self.count}: {event}")
            events.append(event)
        missing = await flow.end(within=END_S)
        return {
            "events": len(events),
            "detected_ms": _percentiles(event["detected_ms"] for event in events),
            "recovered_ms": _percentiles(event["gap_ms"] for event in events),
            "lab_recovered_ms": _percentiles(event["lab_recovered_ms"] for event in events),
            "not_recovered": sum(event["gap_ms"] is None for event in events),
            "published": flow.published,
            "lost": sum(missing.values()),
            "repeated": sum(flow.repeated().values()),
            "runs": events,
        }


class _Run:
    """Does one thing after the other to a mesh, and looks what comes of it."""

    def __init__(self, system: NetnsSystem, flow: Flow, source: DeviceId, rng: random.Random) -> None:
        self._system = system
        self._flow = flow
        self._source = source
        self._rng = rng

    async def cut(self) -> dict[str, Any]:
        """Cut a link of the tree, and restore it when data has gone round it."""
        edges = await self._edges()
        open_links = await self._open_links()
        others = [edge for edge in edges if connected(self._system.scenario.devices, open_links - {edge})]
        if not others:
            raise ConnectError("no link of the tree can be cut: the links that are open hold together by each of them")
        link = self._rng.choice(others)
        event = await self._hit(Happening(0.0, Verb.CUT, link=link), edges)
        await self._system.happen(Happening(0.0, Verb.RESTORE, link=link))
        await self._whole()
        return event

    async def kill(self) -> dict[str, Any]:
        """Kill a relay of the tree, and start it again when data has gone round it."""
        edges = await self._edges()
        open_links = await self._open_links()
        degree = {device: sum(device in edge for edge in edges) for device in self._system.scenario.devices}
        relays = [
            device
            for device, neighbours in degree.items()
            if neighbours > 1
            and device != self._source
            and connected(
                [other for other in degree if other != device], {pair for pair in open_links if device not in pair}
            )
        ]
        if not relays:
            raise ConnectError("no relay of the tree can be killed: the links that are open hold together by each")
        device = self._rng.choice(relays)
        event = await self._hit(Happening(0.0, Verb.KILL, device=device), edges)
        await self._system.happen(Happening(0.0, Verb.START, device=device))
        await self._flow.follow(device)
        await self._whole()
        return event

    async def _hit(self, happening: Happening, edges: Collection[LinkKey]) -> dict[str, Any]:
        """Let something happen, wait until everybody behind it has new messages, and tell how long that took."""
        flow, scenario = self._flow, self._system.scenario
        hit = behind(edges, self._source, happening)
        incidents = Incidents(scenario, self._source)
        at = time.monotonic()
        incidents.happens(happening, at, edges)
        await self._system.happen(happening)
        first = flow.published + 1
        recovered = True
        try:
            await flow.wait(lambda: flow.reached(hit, first), within=RECOVERED_S, what="a new message")
        except ConnectError as error:
            say(f"{happening}: {error}")
            recovered = False
        ended = time.monotonic()
        await asyncio.sleep(AROUND_S)
        traces = await self._traces()
        (outcome,) = incidents.outcomes(traces, {}, began=at)
        gaps = {device: flow.followers[device][-1].largest_gap(at, ended) for device in hit}
        known = [gap for gap in gaps.values() if gap is not None]
        return {
            "event": str(happening),
            "behind": list(gaps),
            "detected_ms": _ms(outcome.detected_s),
            "gap_ms": _ms(max(known)) if recovered and len(known) == len(gaps) else None,
            "lab_recovered_ms": _ms(outcome.recovered_s),
            "gaps_ms": {device: _ms(gap) for device, gap in gaps.items()},
        }

    async def _traces(self) -> dict[DeviceId, Trace]:
        traces = {}
        for device in self._system.scenario.devices:
            traces[device] = Trace()
            changes = await self._system.ask_agent(device, "/changes") if self._system.running(device) else None
            if changes is not None:
                traces[device].take(changes, self._flow.stream, OBJECTIVE)
        return traces

    async def _whole(self) -> None:
        """Wait until the graph spans all devices and all have what was published.

        Raises:
            ConnectError: That took too long.
        """
        await self._system.span()
        number = self._flow.published
        await self._flow.wait(
            lambda: self._flow.reached(self._flow.followers, number - 1), within=SPAN_S, what="a message everywhere"
        )

    async def _edges(self) -> tuple[LinkKey, ...]:
        graph = await self._system.graph()
        if graph is None:
            raise ConnectError("the server tells no graph")
        return graph.trees[graph.tree_for(OBJECTIVE)].edges

    async def _open_links(self) -> frozenset[LinkKey]:
        """Return the links that both ends hold open; one that was cut may be kept out for a while."""
        states: dict[tuple[DeviceId, DeviceId], str] = {}
        for device in self._system.scenario.devices:
            status = await self._system.status(device)
            for link in status["links"] if status else ():
                states[device, link["peer"]] = link["state"]
        return frozenset(
            (a, b)
            for a, b in self._system.scenario.links
            if states.get((a, b)) == "open" and states.get((b, a)) == "open"
        )


def behind(edges: Collection[LinkKey], source: DeviceId, happening: Happening) -> list[DeviceId]:
    """Return the devices that a tree reaches from its source by a link or over a device."""
    reached: dict[DeviceId, bool] = {source: False}
    for near, far in outwards(list(edges), source):
        hit = link_key(near, far) == happening.link or near == happening.device
        reached[far] = reached[near] or hit
    return [device for device, hit in reached.items() if hit]


def connected(devices: Collection[DeviceId], links: Collection[LinkKey]) -> bool:
    """Tell whether some devices can all reach each other over some links among them."""
    reached = [next(iter(devices))]
    for near in reached:
        for a, b in links:
            reached += [far for far, other in ((a, b), (b, a)) if other == near and far not in reached]
    return len(reached) == len(devices)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1e3 * seconds, 1)


def _percentiles(values: Any) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return {"p50": None, "p95": None, "max": None}
    return {"p50": percentile(known, 0.5), "p95": percentile(known, 0.95), "max": max(known)}


if __name__ == "__main__":
    command(mend)
