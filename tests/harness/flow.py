"""A stream that flows through a simulated mesh while links and devices fail, and when it comes in again at whom."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from agent.core.events import GraphChanged, LinkChanged, MessageGap
from common.ids import DeviceId, LinkKey
from common.messages import ChannelSpec
from lab.random_mesh import random_mesh
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

STEP_S = 0.002
EVERY_S = 0.01
RATE_BPS = 25e6
UNDER_WAY_S = 0.03
"""What left before a link was cut is there by then, whatever the way."""


def even_mesh(devices: int, seed: int, *, routing: str = "subscribe", rate_bps: float = RATE_BPS) -> Scenario:
    """Draw a mesh of equal links, so that every way is as good as every other."""
    mesh = random_mesh(devices, seed=seed, degree=3.0)
    channels = tuple(
        ChannelSpec.model_validate({"name": f"{kind}s", "kind": kind, "routing": routing})
        for kind in ("file", "message")
    )
    return replace(mesh, links=dict.fromkeys(mesh.links, LinkFigures(rate_bps, 0.005)), channels=channels)


def behind(edges: Iterable[LinkKey], gone: LinkKey, source: DeviceId, devices: Iterable[DeviceId]) -> list[DeviceId]:
    """Return the devices that edges no longer join with a source once one of them is gone."""
    left = [edge for edge in edges if edge != gone]
    near = {source}
    for _ in left:
        near |= {end for edge in left if near.intersection(edge) for end in edge}
    return [device for device in devices if device not in near]


def replaceable(simulation: Simulation, source: DeviceId) -> list[LinkKey]:
    """Return the tree's edges that other links can stand in for."""
    mesh = simulation.scenario
    return [edge for edge in simulation.graph().trees[0].edges if not behind(mesh.links, edge, source, mesh.devices)]


@dataclass
class Flow:
    """A stream from one device to all others, and how much of it each held when.

    Attributes:
        simulation: where it flows.
        source: from whom.
        payload: of a file; None lets a message be published every `EVERY_S`.
        held: (time, chunks held) by device, wherever that grew.
    """

    simulation: Simulation
    source: DeviceId
    payload: bytes | None = None
    stream: str = ""
    sent: list[bytes] = field(default_factory=list)
    held: dict[DeviceId, list[tuple[float, int]]] = field(default_factory=dict)
    _next: float = 0.0

    def begin(self) -> "Flow":
        """Send the first of it."""
        if self.payload is None:
            self.run(EVERY_S)
        else:
            self.stream = self.simulation.send_file(self.source, "files", "payload.bin", self.payload)
        return self

    def run(self, seconds: float) -> None:
        """Let it flow for a while."""
        until = self.simulation.now + seconds
        while self.simulation.now < until:
            self._step()

    def until(self, goal: Callable[[], bool], *, within: float = 10.0, what: str = "the goal") -> None:
        """Let it flow until a goal is reached."""
        until = self.simulation.now + within
        while not goal():
            assert self.simulation.now < until, f"{what} was not reached within {within} s"
            self._step()

    def drain(self, seconds: float = 1.0) -> None:
        """Publish no more, and let what is under way arrive."""
        self._next = float("inf")
        self.run(seconds)

    def again_at(self, device: DeviceId, after: float) -> float | None:
        """Return when a device first held more than it did at a time; None if it never did."""
        before = max((count for at, count in self.held[device] if at <= after), default=0)
        return next((at for at, count in self.held[device] if at > after and count > before), None)

    def whole_at_all(self) -> bool:
        """Whether every device has all of it."""
        others = [device for device in self.simulation.scenario.devices if device != self.source]
        if self.payload is not None:
            return self.simulation.verified(self.stream) == others
        return all(len(self.simulation.messages(device)) >= len(self.sent) for device in others)

    def check(self) -> None:
        """Assert that everything came to every application once and in order."""
        for device in self.simulation.scenario.devices:
            if device == self.source:
                continue
            if self.payload is None:
                assert self.simulation.messages(device) == self.sent, f"once and in order at {device}"
                assert self.simulation.events(device, MessageGap) == []
            else:
                assert self.simulation.content(device, self.stream) == self.payload

    def needless(self) -> int:
        """Return how many chunks crossed some link again though they had arrived over it."""
        network = self.simulation.network
        return sum(network.crossings(*link, self.stream).needless for link in self.simulation.scenario.links)

    def first_crossings_twice(self) -> int:
        """Return how many chunks some link carried twice that were no repairs."""
        network = self.simulation.network
        return sum(network.crossings(*link, self.stream).duplicates for link in self.simulation.scenario.links)

    def _step(self) -> None:
        simulation = self.simulation
        if self.payload is None and simulation.now >= self._next and simulation.alive(self.source):
            self._next = simulation.now + EVERY_S
            self.sent.append(f"message {len(self.sent)}".encode())
            self.stream, _ = simulation.publish(self.source, "messages", self.sent[-1])
        simulation.run_for(STEP_S)
        for device in simulation.scenario.devices:
            if device != self.source and simulation.alive(device):
                entry = simulation.node(device).streams.by_short.get(int(self.stream[:8], 16))
                count = 0 if entry is None else len(entry.stream.held)
                counts = self.held.setdefault(device, [])
                if not counts or counts[-1][1] != count:
                    counts.append((simulation.now, count))


def noticed_at(simulation: Simulation, after: float) -> float:
    """Return when the first device took a link for silent, or closed, after a time."""
    return min(
        at
        for device in simulation.scenario.devices
        for at, event in simulation.timed_events(device)
        if at >= after and isinstance(event, LinkChanged) and event.state != "open"
    )


def graph_at(simulation: Simulation, device: DeviceId, after: float) -> float | None:
    """Return when a device learnt of the next graph after a time."""
    times = (at for at, event in simulation.timed_events(device) if at > after and isinstance(event, GraphChanged))
    return next(times, None)
