"""The whole system in one process and in simulated time: the same cores, no socket, no clock, one seed.

`Simulation` is also what tests are written against::

    simulation = Simulation(load_scenario(path), seed=7)
    simulation.settle()
    stream = simulation.send_file("A", "files", "pieces.bin", data)
    simulation.run_until(lambda: simulation.verified(stream) == ["B", "C", "D", "E", "F"])

The same scenario and seed give the same run, event by event (`Simulation.digest`); every failure names the seed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

from agent.core.events import Event, FileVerified, MessageReceived
from agent.core.memory_store import MemoryStores
from agent.core.node import Node
from common.addresses import Address
from common.errors import ArborcastError, LocalProtocolError
from common.graph import AcyclicGraph
from common.ids import DeviceId
from common.messages import ChannelSpec
from lab.clock import Agenda
from lab.control_plane import SimulatedServer
from lab.device import SimulatedDevice
from lab.happenings import Happening, Verb
from lab.network import Network
from lab.scenario import Scenario

LOOK_S: Final = 0.005
PATIENCE_S: Final = 60.0

_E = TypeVar("_E")


class SimulationTimeout(ArborcastError):
    """What was waited for did not come about in time; the text says the seed to play it again."""


class Simulation:
    """One run of a scenario.

    Attributes:
        scenario: What is run.
        seed: What everything random follows from.
        network: The links and what crossed them.
        server: The coordination server.
        on_delivery: Called with a device that has just taken what arrived at one of its sockets.
    """

    def __init__(self, scenario: Scenario, *, seed: int | None = None) -> None:
        """Start the server and all devices.

        Args:
            scenario: Devices, links and channels; its happenings wait for `begin_happenings`.
            seed: In place of the scenario's own.
        """
        self.scenario = scenario
        self.seed = scenario.seed if seed is None else seed
        self.on_delivery: Callable[[DeviceId], None] | None = None
        self._agenda = Agenda()
        self._digest = hashlib.blake2b(digest_size=16)
        self._events: dict[DeviceId, list[tuple[float, Event]]] = {device: [] for device in scenario.devices}
        self.network = Network(scenario, self.seed, self._agenda, self._deliver)
        self.server = SimulatedServer(self._agenda, self.seed, channels_of(scenario))
        numbers = itertools.count(1)
        self._devices = {
            device: SimulatedDevice(
                device,
                scenario,
                self.seed,
                self._agenda,
                self.network,
                self.server,
                lambda: next(numbers),
                self._on_event,
            )
            for device in scenario.devices
        }
        for simulated in self._devices.values():
            simulated.start()

    def __enter__(self) -> Self:
        """Name the seed in whatever is raised inside the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Add the seed to the error."""
        if error is not None:
            error.add_note(self._place())

    @property
    def now(self) -> float:
        """Simulated seconds since the start."""
        return self._agenda.now

    @property
    def digest(self) -> str:
        """A hash over everything that happened so far: every delivery and every event with its time."""
        return self._digest.hexdigest()

    def run_until(
        self, goal: float | Callable[[], bool], *, within: float = PATIENCE_S, what: str = "the goal"
    ) -> None:
        """Let simulated time pass.

        Args:
            goal: A time in simulated seconds, or a question that is asked every `LOOK_S` until it is true.
            within: For a question: simulated seconds before giving up.
            what: For a question: what is waited for, for the error.

        Raises:
            SimulationTimeout: The question stayed false.
        """
        if not callable(goal):
            self._agenda.run_to(goal)
            return
        until = self.now + within
        while not goal():
            if self.now >= until:
                raise SimulationTimeout(f"{what} was not reached within {within} s; {self._place()}")
            self._agenda.run_to(self.now + LOOK_S)

    def run_for(self, seconds: float) -> None:
        """Let some simulated seconds pass."""
        self._agenda.run_to(self.now + seconds)

    def settle(self, *, within: float = PATIENCE_S) -> None:
        """Run until the server's graph spans all devices and every device that subscribes works with it.

        Raises:
            SimulationTimeout: That took too long.
        """
        self.run_until(self._settled, within=within, what="one graph over all devices")

    def graph(self) -> AcyclicGraph:
        """Return the server's current graph.

        Raises:
            LocalProtocolError: The server is dead.
        """
        if self.server.group is None:
            raise LocalProtocolError("the server is not running")
        return self.server.group.graph()

    def node(self, device: DeviceId) -> Node:
        """Return a device's running node.

        Raises:
            LocalProtocolError: The device is dead.
        """
        node = self._devices[device].node
        if node is None:
            raise LocalProtocolError(f"device {device} is not running")
        return node

    def alive(self, device: DeviceId) -> bool:
        """Tell whether a device is running."""
        return self._devices[device].node is not None

    def stores(self, device: DeviceId) -> MemoryStores:
        """Return a device's disk."""
        return self._devices[device].stores

    def requests(self, device: DeviceId) -> Mapping[str, int]:
        """Return how many control requests a device made, by type name."""
        return self._devices[device].requests

    def alarms(self, device: DeviceId) -> int:
        """Return how often a device's timer rang."""
        return self._devices[device].alarms

    def send_file(self, device: DeviceId, channel: str, name: str, data: bytes) -> str:
        """Send a file; returns the stream's id.

        Raises:
            RefusedError: The device refused it.
        """
        return self._devices[device].send_file(channel, name, data)

    def publish(self, device: DeviceId, channel: str, payload: bytes) -> tuple[str, int]:
        """Publish a message; returns the stream's id and the message's number.

        Raises:
            RefusedError: The device refused it.
        """
        return self._devices[device].publish(channel, payload)

    def cancel(self, device: DeviceId, stream: str) -> None:
        """Take a stream back."""
        self._devices[device].cancel(stream)

    def put_channel(self, channel: ChannelSpec) -> None:
        """Add a channel to the group, or change it."""
        self.server.put_channel(channel)

    def timed_events(self, device: DeviceId) -> list[tuple[float, Event]]:
        """Return all events of a device so far, with their times."""
        return self._events[device]

    def events(self, device: DeviceId, kind: type[_E]) -> list[_E]:
        """Return the events of one kind of a device, oldest first."""
        return [event for _, event in self._events[device] if isinstance(event, kind)]

    def messages(self, device: DeviceId) -> list[bytes]:
        """Return the payloads of the messages that a device received, in order."""
        return [event.payload for event in self.events(device, MessageReceived)]

    def verified(self, stream: str) -> list[DeviceId]:
        """Return the devices that hold a file and verified it, sorted."""
        return sorted(
            device
            for device in self.scenario.devices
            if any(event.stream == stream for event in self.events(device, FileVerified))
        )

    def content(self, device: DeviceId, stream: str) -> bytes:
        """Return a file as it lies on a device's disk, as far as it is there without a hole.

        Args:
            device: The device.
            stream: Id in hex.
        """
        return self.stores(device).streams[stream].content()

    def begin_happenings(self, before: Callable[[Happening], None] = lambda _: None) -> None:
        """Let the scenario's happenings come at their times, counted from now.

        Args:
            before: Called with each when its time has come.
        """

        def due(happening: Happening) -> None:
            before(happening)
            self.happen(happening)

        for happening in self.scenario.happenings:
            self._agenda.after(happening.at, due, happening)

    def happen(self, happening: Happening) -> None:
        """Let one thing happen now."""
        if happening.link is not None:
            if happening.verb is Verb.CUT:
                self.network.cut(happening.link)
            elif happening.verb is Verb.RESTORE:
                self.network.restore(happening.link)
            else:
                self.network.degrade(happening.link, **happening.figures)
        elif happening.device is not None:
            if happening.verb is Verb.KILL:
                self.kill(happening.device)
            else:
                self.start(happening.device)
        elif happening.verb is Verb.KILL:
            self.server.kill()
        else:
            self.server.start()

    def kill(self, device: DeviceId) -> None:
        """Stop a device at once; its disk stays."""
        self._devices[device].kill()

    def start(self, device: DeviceId) -> None:
        """Start a dead device from its disk."""
        self._devices[device].start()

    def _settled(self) -> bool:
        group = self.server.group
        if group is None:
            return False
        graph = group.graph()
        running = [device for device in self.scenario.devices if self.alive(device)]
        if graph.components() != (tuple(running),):
            return False
        return not subscribes(self.scenario) or all(
            self.node(device).status(now=self.now).epoch == graph.epoch for device in running
        )

    def _deliver(self, device: DeviceId, socket: int, batch: list[tuple[bytes, Address]]) -> None:
        self._note(f"{device}/{socket}:{len(batch)}:{sum(len(datagram) for datagram, _ in batch)}")
        self._devices[device].receive(socket, batch)
        if self.on_delivery is not None:
            self.on_delivery(device)

    def _on_event(self, device: DeviceId, event: Event) -> None:
        self._note(f"{device}!{event}")
        self._events[device].append((self.now, event))

    def _note(self, what: str) -> None:
        self._digest.update(f"{self._agenda.now:.9f} {what}\n".encode())

    def _place(self) -> str:
        return f"scenario {self.scenario.name}, seed {self.seed}, simulated second {self.now:.6f}"


def subscribes(scenario: Scenario) -> bool:
    """Tell whether the devices subscribe to the graph; otherwise they ask for it when they need it."""
    routings = {"files": "subscribe", "messages": "subscribe"}
    routings.update((channel.name, channel.routing) for channel in scenario.channels)
    return "subscribe" in routings.values()


def channels_of(scenario: Scenario) -> tuple[ChannelSpec, ...]:
    """Return the channels to put into the group: the scenario's, and the file channel if its objective is unusual."""
    names = [channel.name for channel in scenario.channels]
    if scenario.objective == "throughput" or "files" in names:
        return scenario.channels
    files = ChannelSpec(name="files", kind="file", objective="latency")
    return (files, *scenario.channels)
