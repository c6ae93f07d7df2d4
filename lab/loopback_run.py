"""The lab's ``loopback`` backend: one file through real processes, as a report."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx

from agent.services.names import safe_name
from common.errors import ArborcastError, ConnectError
from common.ids import DeviceId, LinkKey
from lab.happenings import Happening, Verb
from lab.incidents import Incidents
from lab.loopback import LoopbackSystem
from lab.progress import Watcher
from lab.report import ChannelOutcome, DeviceOutcome, Report
from lab.scenario import Scenario
from lab.simulated_run import CHANNEL, objective_of, patience_s
from lab.traces import Trace

LOOK_S: Final = 0.02
AHEAD_S: Final = 0.1
"""How long before a happening the server is asked for the tree that it will hit, in seconds."""
STATUS_S: Final = 0.25
COUNTERS_S: Final = 3.0
COUNTED: Final = (
    "chunks_sent",
    "repeats_sent",
    "pulled_sent",
    "chunks_received",
    "duplicates_received",
    "repairs_received",
    "data_bytes_sent",
)

LinkCounters: TypeAlias = dict[DeviceId, dict[str, int]]
"""What a device counted on its link to each peer."""

Counters: TypeAlias = dict[DeviceId, LinkCounters]
"""What each device counted on its link to each peer."""

Make: TypeAlias = Callable[[Scenario, Path, Watcher], LoopbackSystem]
"""Makes a system of real processes for a scenario, in a folder."""


class LoopbackRun:
    """One file on its way through a running system.

    Attributes:
        report: What is known so far.
        stream: The stream's id in hex; empty until the source's agent named it.
    """

    def __init__(self, system: LoopbackSystem, *, file: Path, source: DeviceId, within: float | None, watcher: Watcher):
        """Prepare to send.

        Args:
            system: Started, with a graph over all devices.
            file: What to send.
            source: Who sends it.
            within: Seconds before giving up; None for some times what the slowest link would need.
            watcher: Is told how it goes.
        """
        scenario = system.scenario
        size_bytes = file.stat().st_size
        self.report = Report(scenario.name, system.backend, source, size_bytes)
        self.report.channels = {link: ChannelOutcome() for link in scenario.pairs}
        self._receivers = [device for device in scenario.devices if device != source]
        self.report.devices = {device: DeviceOutcome() for device in self._receivers}
        self._system = system
        self._scenario = scenario
        self._file = file
        self._source = source
        self._within = within or patience_s(scenario, size_bytes)
        self._watcher = watcher
        self.stream = ""
        self._done: dict[DeviceId, float] = {}
        self._failed: dict[DeviceId, str] = {}
        self._ethernet: Mapping[LinkKey, tuple[int, int]] = {}
        self._accesses: Mapping[DeviceId, tuple[int, int]] = {}
        self._earlier: Counters = {}
        self._objective = objective_of(scenario)
        self._incidents = Incidents(scenario, source)
        self._traces = {device: Trace() for device in scenario.devices}
        self._edges: tuple[LinkKey, ...] = ()

    async def run(self) -> Report:
        """Send the file, wait for it everywhere, and count.

        Returns:
            How it ended; a timeout or a dead process is told in it.
        """
        loop = asyncio.get_running_loop()
        self._ethernet = self._system.ethernet_bytes()
        self._accesses = self._system.access_bytes()
        began = loop.time()
        happenings: asyncio.Task[None] | None = None
        try:
            self.stream = await self._send()
            happenings = asyncio.create_task(self._happen(began))
            self._watcher.begin(self._receivers, self.report.file_bytes)
            async with asyncio.timeout(self._within):
                await self._arrive(began, happenings)
                await happenings
        except TimeoutError:
            self.report.trouble.append(f"not every device had the file after {self._within:g} s")
        except ArborcastError as error:
            self.report.trouble.append(str(error))
        finally:
            if happenings is not None:
                happenings.cancel()
        if self._scenario.happenings:
            await self._conclude(began)
        await self._verify()
        await self._count()
        self._check()
        return self.report

    async def happen(self, happening: Happening) -> None:
        """Let one thing happen, and keep what an agent counted and noticed until it is killed.

        Raises:
            ChildDied: A process that was started was not ready in time.
        """
        device = happening.device
        if device is not None and happening.verb is Verb.KILL and self._system.running(device):
            status = await self._system.status(device)
            if status is None:
                self.report.trouble.append(f"agent {device} told no status before it was killed")
            else:
                self._earlier[device] = _sum(self._earlier.get(device, {}), _counters(status))
            await self._take_changes(device)
        self._incidents.happens(happening, asyncio.get_running_loop().time(), self._edges)
        await self._system.happen(happening)

    async def _send(self) -> str:
        """Hand the file to the source's agent.

        Returns:
            The stream's id in hex.

        Raises:
            ConnectError: The agent refused it or does not answer.
        """
        body = {"path": str(self._file.resolve()), "channel": CHANNEL, "wait": "none"}
        try:
            async with self._system.client(self._source).stream("POST", "/streams/file", json=body) as answer:
                if not answer.is_success:
                    text = (await answer.aread()).decode(errors="replace")
                    raise ConnectError(f"agent {self._source} refused the file: {text}")
                async for line in answer.aiter_lines():
                    record = json.loads(line)
                    if "stream" in record:
                        return str(record["stream"])
        except httpx.HTTPError as error:
            raise ConnectError(f"agent {self._source} does not take the file: {error!r}") from error
        raise ConnectError(f"agent {self._source} took the file and named no stream")

    async def _happen(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        for happening in self._scenario.happenings:
            await asyncio.sleep(began + happening.at - AHEAD_S - loop.time())
            # A server that is dead has no newer graph: what it said last is what counts.
            graph = await self._system.graph()
            if graph is not None:
                self._edges = graph.trees[graph.tree_for(self._objective)].edges
            await asyncio.sleep(began + happening.at - loop.time())
            await self.happen(happening)

    async def _take_changes(self, device: DeviceId) -> None:
        """Keep what an agent noticed, as far as it goes back."""
        changes = await self._system.ask_agent(device, "/changes")
        if changes is not None:
            self._traces[device].take(changes, self.stream, self._objective)

    async def _arrive(self, began: float, happenings: asyncio.Task[None]) -> None:
        """Wait until every device has the file or has given up on it."""
        loop = asyncio.get_running_loop()
        looked = 0.0
        while len(self._done) + len(self._failed) < len(self._receivers):
            self._system.check()
            if happenings.done():
                happenings.result()
            for device in self._receivers:
                if device not in self._done and self._path(device).is_file():
                    self._done[device] = loop.time() - began
                    self._failed.pop(device, None)
                    self._watcher.progress(device, self.report.file_bytes)
            if loop.time() - looked >= STATUS_S:
                await self._look()
                looked = loop.time()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """Ask the devices that have not got the file how far they are."""
        for device in self._receivers:
            if device in self._done:
                continue
            if self._scenario.happenings:
                await self._take_changes(device)
            stream = await self._system.ask_agent(device, f"/streams/{self.stream}")
            if stream is None:
                continue
            self._watcher.progress(device, int(stream["held_bytes"]))
            if stream["state"] in ("failed", "cancelled"):
                self._failed[device] = f"{stream['state']}: {stream['reason']}"

    async def _conclude(self, began: float) -> None:
        """Work out what came of everything that happened."""
        for device in self._scenario.devices:
            await self._take_changes(device)
        done = {device: began + seconds for device, seconds in self._done.items()}
        self.report.events = self._incidents.outcomes(self._traces, done, began=began)

    async def _verify(self) -> None:
        """Read every received file and hash it here; no agent's word counts."""
        wanted = await asyncio.to_thread(_sha256, self._file)
        for device, outcome in self.report.devices.items():
            if device in self._done:
                found = await asyncio.to_thread(_sha256, self._path(device))
                outcome.sha256_ok = found == wanted
                outcome.seconds = self._done[device]
                outcome.note = "" if outcome.sha256_ok else "the hash is wrong"
            elif not self._system.running(device):
                outcome.note = "the agent is dead"
            else:
                outcome.note = self._failed.get(device, "still receiving")

    async def _count(self) -> None:
        """Gather the agents' counters once the last acknowledgements are in, and the graph."""
        last: Counters = {}
        before: Counters | None = None
        silent: list[DeviceId] = []
        until = asyncio.get_running_loop().time() + COUNTERS_S
        while (silent or last != before) and asyncio.get_running_loop().time() < until:
            if before is not None:
                await asyncio.sleep(STATUS_S)
            before = last
            statuses = {device: await self._system.status(device) for device in self._scenario.devices}
            silent = [device for device, told in statuses.items() if told is None and self._system.running(device)]
            last = {device: _counters(told) for device, told in statuses.items()}
        self.report.trouble += [f"agent {device} runs and tells no status" for device in silent]
        counters = {device: _sum(self._earlier.get(device, {}), links) for device, links in last.items()}
        ethernet = self._system.ethernet_bytes()
        for link, channel in self.report.channels.items():
            _add(channel, link, counters)
            if link in ethernet:
                before_sending = self._ethernet.get(link, (0, 0))
                channel.ethernet_bytes = (ethernet[link][0] - before_sending[0], ethernet[link][1] - before_sending[1])
        for device, (sent, received) in self._system.access_bytes().items():
            sent_before, received_before = self._accesses.get(device, (0, 0))
            self.report.accesses[device] = (sent - sent_before, received - received_before)
        graph = await self._system.graph()
        if graph is not None:
            self.report.add_unicast(graph, graph.tree_for(self._objective))
            if self._system.shaped:
                rates = [self._scenario.figures(*edge).rate_bps for edge in self.report.edges]
                self.report.bottleneck_bps = min(rates, default=None)

    def _check(self) -> None:
        """Tell of a process that ended by itself after the file was everywhere, or while the lab counted."""
        try:
            self._system.check()
        except ArborcastError as error:
            if str(error) not in self.report.trouble:
                self.report.trouble.append(str(error))

    def _path(self, device: DeviceId) -> Path:
        return self._system.received(device) / safe_name(self._file.name)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _counters(status: Mapping[str, Any] | None) -> LinkCounters:
    links = status["links"] if status else ()
    return {link["peer"]: {name: int(link[name]) for name in COUNTED} for link in links}


def _sum(some: Mapping[DeviceId, Mapping[str, int]], more: Mapping[DeviceId, Mapping[str, int]]) -> LinkCounters:
    """Add up what two runs of one agent counted."""
    return {
        peer: {name: some.get(peer, {}).get(name, 0) + more.get(peer, {}).get(name, 0) for name in COUNTED}
        for peer in {**some, **more}
    }


def _add(channel: ChannelOutcome, link: LinkKey, counters: Counters) -> None:
    """Add up both directions; an agent that died lost some of its counts, so the larger of both ends' views counts."""

    def count(counted: Mapping[str, int], *names: str) -> int:
        return sum(counted.get(name, 0) for name in names)

    for source, target in itertools.permutations(link):
        sent = counters.get(source, {}).get(target, {})
        received = counters.get(target, {}).get(source, {})
        repairs = count(sent, "repeats_sent", "pulled_sent")
        channel.chunks += max(count(sent, "chunks_sent"), count(received, "chunks_received") - repairs)
        channel.bytes += count(sent, "data_bytes_sent")
        channel.repairs += repairs
        channel.duplicates += count(received, "duplicates_received")
        channel.needless += count(received, "repairs_received")


async def run_loopback(
    scenario: Scenario,
    *,
    folder: Path,
    file: Path,
    source: DeviceId,
    within: float | None,
    watcher: Watcher,
    after: Callable[[LoopbackSystem, Report], Awaitable[None]] | None = None,
    make: Make = LoopbackSystem,
) -> Report:
    """Start the whole system in real processes, send one file through it, and stop it.

    Args:
        scenario: What to start.
        folder: An empty folder with a short path.
        file: What to send.
        source: Who sends it.
        within: Seconds before giving up; None for some times what the slowest link would need.
        watcher: Is told how it goes.
        after: Awaited with the report while the system is still up.
        make: What makes the system: on loopback, or in namespaces of its own.

    Returns:
        How it ended.

    Raises:
        ArborcastError: The system did not come up.
    """
    system = make(scenario, folder, watcher)
    try:
        await system.start()
        graph = await system.span()
        watcher.say(f"graph of epoch {graph.epoch} spans all {len(scenario.devices)} devices")
        report = await LoopbackRun(system, file=file, source=source, within=within, watcher=watcher).run()
        if after is not None:
            await after(system, report)
        return report
    finally:
        await system.stop()
