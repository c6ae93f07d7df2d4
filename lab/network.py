"""The simulated network: links between sockets of simulated hosts, and the internet that some of them are on.

Theory of operation. A link is two pipes, one for each direction. Arrivals wait for the end of their slot of time, and
all that arrived in it at one socket is handed over as one batch, in the order of arrival. Real sockets do the same to a
busy process, and it makes a simulated second cheap.

A datagram for an address that the sender has no link to, and no internet, vanishes, as it does behind a firewall.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from common.addresses import Address
from common.ids import DeviceId, LinkKey, link_key
from lab.clock import Agenda
from lab.internet import Internet
from lab.oracle import Crossings, Oracle
from lab.pipe import Pipe
from lab.scenario import Scenario
from lab.slots import Slots

Deliver = Callable[[DeviceId, int, list[tuple[bytes, Address]]], None]

FIRST_PORT: Final = 4000


@dataclass(slots=True)
class _Wire:
    """One direction of a link."""

    link: LinkKey
    pipe: Pipe
    cut: bool = False


class Network:
    """Hosts, sockets and links.

    Attributes:
        oracle: What crossed each link.
        internet: The public network, and who is on it.
        unroutable: Datagrams to an address that the sender has no link to.
    """

    def __init__(self, scenario: Scenario, seed: int, agenda: Agenda, deliver: Deliver) -> None:
        """Lay out a scenario's hosts and links.

        Args:
            scenario: The devices and links.
            seed: Loss, jitter, duplication and reordering of each direction follow from it.
            agenda: The simulated time.
            deliver: Called with device, socket and a batch of (datagram, source address) when they have arrived.
        """
        self.oracle = Oracle()
        self.unroutable = 0
        self._agenda = agenda
        self._deliver = deliver
        self._hosts = {
            device: f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"
            for index, device in enumerate(scenario.devices, 1)
        }
        self._devices = {host: device for device, host in self._hosts.items()}
        self._inboxes: dict[Address, Slots[tuple[bytes, Address]]] = {}
        self._sockets: dict[DeviceId, int] = {}
        self.internet = Internet(scenario, seed, agenda, self.oracle, self._deliver_at)
        self._figures = dict(scenario.links)
        self._wires: dict[tuple[DeviceId, DeviceId], _Wire] = {}
        for a, b in scenario.links:
            for source, target in ((a, b), (b, a)):
                rng = random.Random(f"{seed}:{source}>{target}")
                pipe = Pipe(scenario.links[a, b].towards(second=target == b), rng)
                self._wires[source, target] = _Wire((a, b), pipe)

    def host(self, device: DeviceId) -> str:
        """Return the address of a device on its links."""
        return self._hosts[device]

    def hosts(self, device: DeviceId) -> tuple[str, ...]:
        """Return the addresses of all interfaces of a device."""
        online = self.internet.host(device)
        if online is None:
            return (self._hosts[device],)
        wired = any(device in pair for pair in self._figures)
        return (self._hosts[device], online) if wired else (online,)

    def open_socket(self, device: DeviceId) -> tuple[int, int]:
        """Open one more socket on a device.

        Returns:
            Its number (the first one is 0) and its port.
        """
        socket = self._sockets.get(device, 0)
        self._sockets[device] = socket + 1
        port = FIRST_PORT + socket
        self._inboxes[self._hosts[device], port] = Slots(self._agenda, partial(self._deliver, device, socket))
        return socket, port

    def close_sockets(self, device: DeviceId) -> None:
        """Close all sockets of a device; what is under way to them is lost."""
        host = self._hosts[device]
        for socket in range(self._sockets.pop(device, 0)):
            for datagram, source in self._inboxes.pop((host, FIRST_PORT + socket)).clear():
                self.oracle.vanishes(link_key(device, self._devices[source[0]]), datagram)

    def send(self, device: DeviceId, socket: int, address: Address, datagrams: Sequence[bytes]) -> None:
        """Send a train of datagrams.

        Args:
            device: Who sends.
            socket: From which of its sockets.
            address: Host and port to send to.
            datagrams: UDP payloads in order.
        """
        target = self._devices.get(address[0])
        wire = self._wires.get((device, target)) if target is not None else None
        if wire is not None:
            self._convey(wire, (self._hosts[device], FIRST_PORT + socket), address, datagrams)
        elif target is None and self.internet.host(device) is not None:
            self.internet.send(device, FIRST_PORT + socket, address, datagrams)
        else:
            self.unroutable += len(datagrams)

    def _convey(self, wire: _Wire, source: Address, target: Address, datagrams: Sequence[bytes]) -> None:
        link, oracle = wire.link, self.oracle
        for datagram in datagrams:
            oracle.note(link, datagram)
        if wire.cut:
            wire.pipe.sent += len(datagrams)
            return
        arriving = wire.pipe.carry(datagrams, self._agenda.now)
        inbox = self._inboxes.get(target)
        if inbox is not None:
            for arrival, datagram in arriving:
                oracle.arrives(link, datagram)
                inbox.put(arrival, (datagram, source))

    def _deliver_at(self, device: DeviceId, port: int, batch: list[tuple[bytes, Address]]) -> None:
        """Hand over what came from the internet, if there is a socket."""
        socket = port - FIRST_PORT
        if 0 <= socket < self._sockets.get(device, 0):
            self._deliver(device, socket, batch)

    def cut(self, link: LinkKey) -> None:
        """Let nothing enter a link any more; what is under way still arrives."""
        for wire in self._both(link):
            wire.cut = True

    def restore(self, link: LinkKey) -> None:
        """Make a link again what the scenario says."""
        for wire, there in zip(self._both(link), (True, False), strict=True):
            wire.cut = False
            wire.pipe.figures = self._figures[link].towards(second=there)

    def degrade(self, link: LinkKey, **figures: float) -> None:
        """Change a link's figures.

        Args:
            link: The link.
            figures: New values by field name of `LinkFigures`.
        """
        for wire in self._both(link):
            wire.pipe.figures = replace(wire.pipe.figures, **figures)  # type: ignore[arg-type]

    def crossings(self, a: DeviceId, b: DeviceId, stream: str | None = None) -> Crossings:
        """Return what crossed the link between two devices.

        Args:
            a: One end.
            b: The other end.
            stream: Id in hex; None for all streams together (then without counts by number).
        """
        return self.oracle.crossings(link_key(a, b), None if stream is None else int(stream[:8], 16))

    def sent(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams ``a`` sent to ``b``, whatever became of them."""
        return self._wires[a, b].pipe.sent

    def dropped(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams from ``a`` to ``b`` found the queue full."""
        return self._wires[a, b].pipe.dropped

    def lost(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams from ``a`` to ``b`` were lost by chance."""
        return self._wires[a, b].pipe.lost

    def oversize(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams from ``a`` to ``b`` were larger than the link takes."""
        return self._wires[a, b].pipe.oversize

    def _both(self, link: LinkKey) -> tuple[_Wire, _Wire]:
        a, b = link
        return self._wires[a, b], self._wires[b, a]
