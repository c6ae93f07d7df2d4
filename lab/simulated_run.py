"""The lab's ``sim`` backend: one file through a simulation, as a report."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from agent.core.events import FileFailed, FileVerified, GraphChanged, LinkChanged, StreamProgress
from common.ids import DeviceId
from lab.happenings import Happening
from lab.incidents import EventOutcome, Incidents
from lab.progress import Watcher
from lab.report import ChannelOutcome, DeviceOutcome, Report
from lab.scenario import Scenario
from lab.simulator import Simulation, SimulationTimeout, channels_of
from lab.traces import GraphNote, LinkNote, Trace

CHANNEL: Final = "files"
LEAST_PATIENCE_S: Final = 60.0
PATIENCE: Final = 10.0  # Times what the slowest link of the scenario would need.


@dataclass(slots=True)
class _Devices:
    """Reads the devices' events as they come, each once."""

    simulation: Simulation
    stream: str
    watcher: Watcher
    seen: dict[DeviceId, int] = field(default_factory=dict)
    done: dict[DeviceId, float] = field(default_factory=dict)
    failed: dict[DeviceId, str] = field(default_factory=dict)

    def look(self, device: DeviceId) -> None:
        """Take what is new at a device."""
        events = self.simulation.timed_events(device)
        for at, event in events[self.seen.get(device, 0) :]:
            if isinstance(event, StreamProgress) and event.stream == self.stream:
                self.watcher.progress(device, event.held_bytes)
            elif isinstance(event, FileVerified) and event.stream == self.stream:
                self.done.setdefault(device, at)
                self.failed.pop(device, None)
                self.watcher.progress(device, event.size_bytes)
            elif isinstance(event, FileFailed) and event.stream == self.stream:
                self.failed[device] = f"{event.reason}: {event.detail}"
        self.seen[device] = len(events)


class _Watch:
    """Keeps what happens, and when a stream brings each device something new."""

    def __init__(self, simulation: Simulation, source: DeviceId) -> None:
        self._simulation = simulation
        self._incidents = Incidents(simulation.scenario, source)
        self._traces = {device: Trace() for device in simulation.scenario.devices}
        self._graph = simulation.graph()
        self._objective = objective_of(simulation.scenario)
        self._short = 0

    def begin(self, stream: str) -> None:
        """Follow a stream from now on, if anything is going to happen."""
        self._short = int(stream[:8], 16)
        if self._simulation.scenario.happenings:
            self._simulation.on_delivery = self._delivered

    def before(self, happening: Happening) -> None:
        """Take down what happens."""
        if self._simulation.server.group is not None:
            self._graph = self._simulation.graph()
        edges = self._graph.trees[self._graph.tree_for(self._objective)].edges
        self._incidents.happens(happening, self._simulation.now, edges)

    def _delivered(self, device: DeviceId) -> None:
        if self._simulation.alive(device):
            entry = self._simulation.node(device).streams.by_short.get(self._short)
            if entry is not None and entry.stream.progress_at == self._simulation.now:
                self._traces[device].arrived(self._simulation.now)

    def outcomes(self, done: dict[DeviceId, float], began: float) -> list[EventOutcome]:
        """Work out what came of everything that happened."""
        for device, trace in self._traces.items():
            for at, event in self._simulation.timed_events(device):
                if isinstance(event, LinkChanged):
                    trace.links.append(LinkNote(at, event.peer, event.state))
                elif isinstance(event, GraphChanged):
                    trace.graphs.append(GraphNote(at, frozenset(event.neighbours.get(self._objective, ()))))
        return self._incidents.outcomes(self._traces, done, began=began)


def run_simulation(
    scenario: Scenario, *, data: bytes, name: str, source: DeviceId, seed: int, within: float | None, watcher: Watcher
) -> Report:
    """Send a file through the simulated system.

    Args:
        scenario: What to simulate; its happenings begin with the sending.
        data: The file.
        name: Its name.
        source: Who sends it.
        seed: What everything random follows from.
        within: Simulated seconds before giving up; None for some times what the slowest link would need.
        watcher: Is told how it goes.

    Returns:
        How it ended; a timeout is told in it.
    """
    report = Report(scenario.name, "sim", source, len(data))
    report.channels = {link: ChannelOutcome() for link in scenario.pairs}
    receivers = [device for device in scenario.devices if device != source]
    report.devices = {device: DeviceOutcome() for device in receivers}
    simulation = Simulation(scenario, seed=seed)
    try:
        simulation.settle()
        watcher.say(f"graph of epoch {simulation.graph().epoch} spans all {len(scenario.devices)} devices")
        watch = _Watch(simulation, source)
        simulation.begin_happenings(watch.before)
        began = simulation.now
        stream = simulation.send_file(source, CHANNEL, name, data)
        watch.begin(stream)
        watcher.begin(receivers, len(data))
        devices = _Devices(simulation, stream, watcher)

        def finished() -> bool:
            for device in receivers:
                if device not in devices.done:
                    devices.look(device)
            return len(devices.done) + len(devices.failed) == len(receivers)

        try:
            simulation.run_until(
                finished, within=within or patience_s(scenario, len(data)), what="the file at every device"
            )
        finally:
            _fill(report, simulation, devices, began, hashlib.sha256(data).digest())
            report.events = watch.outcomes(devices.done, began)
    except SimulationTimeout as error:
        report.trouble.append(str(error))
    return report


def objective_of(scenario: Scenario) -> str:
    """Return what the tree of the file channel is made for."""
    return next((channel.objective for channel in channels_of(scenario) if channel.name == CHANNEL), "throughput")


def patience_s(scenario: Scenario, size_bytes: int) -> float:
    """Return how many seconds a transfer may take before it counts as stuck."""
    slowest = min(scenario.figures(*pair).rate_bps for pair in scenario.pairs)
    last = max((happening.at for happening in scenario.happenings), default=0.0)
    return last + max(LEAST_PATIENCE_S, PATIENCE * 8 * size_bytes / slowest)


def _fill(report: Report, simulation: Simulation, devices: _Devices, began: float, digest: bytes) -> None:
    for link, channel in report.channels.items():
        crossings = simulation.network.crossings(*link, devices.stream)
        channel.chunks = crossings.chunks
        channel.bytes = crossings.data_bytes + crossings.repair_bytes
        channel.duplicates = crossings.duplicates
        channel.repairs = crossings.repairs
        channel.needless = crossings.needless
    for device, outcome in report.devices.items():
        if device in devices.done:
            content = simulation.content(device, devices.stream)
            outcome.sha256_ok = hashlib.sha256(content).digest() == digest
            outcome.seconds = devices.done[device] - began
        elif not simulation.alive(device):
            outcome.note = "the device is dead"
        else:
            outcome.note = devices.failed.get(device, "still receiving")
    if simulation.server.group is not None:
        graph = simulation.graph()
        report.add_unicast(graph, graph.tree_for(objective_of(simulation.scenario)))
    rates = [simulation.scenario.figures(*edge).rate_bps for edge in report.edges]
    report.bottleneck_bps = min(rates, default=None)
