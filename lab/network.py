"""The simulated network: links with a rate, a queue, a delay and faults, between sockets of simulated hosts.

Theory of operation. A link is two pipes, one for each direction. What happens to a datagram is worked out when it is
sent: when the link is free for it, whether the queue before the link has room, whether it is lost, when it arrives. No
timer runs for it. Arrivals are put into the receiving socket's inbox, in slots of `SLOT_S`; at the end of a slot all
that arrived in it is handed over as one batch, in the order of arrival. Real sockets do the same to a busy process, and
it makes a simulated second cheap.

Losses come by Gilbert's model: a pipe is good or bad, and what it carries while it is bad is lost. That changes as time
passes, whether or not anything is sent. With bursts of one, each datagram is lost by itself.

A datagram that is larger than the link's MTU vanishes before it takes up any of the link, as it does at an interface
that must not cut it. A datagram for an address that the sender has no link to vanishes, as it does behind a firewall.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Final

from common.ids import DeviceId, LinkKey, link_key
from lab.clock import Agenda
from lab.oracle import Crossings, Oracle
from lab.scenario import ETHERNET_MTU_BYTES, LinkFigures, Scenario

Address = tuple[str, int]
Deliver = Callable[[DeviceId, int, list[tuple[bytes, Address]]], None]

SLOT_S: Final = 0.00025
HEADERS_BYTES: Final = 28  # IPv4 (20) and UDP (8): an MTU counts IP packets.
FRAME_BYTES: Final = 42  # Ethernet (14), IPv4 (20) and UDP (8) headers: a link's rate counts whole frames.
FIRST_PORT: Final = 4000
REORDER_S: Final = 0.002  # At least this much later comes a datagram that is to be overtaken.

_arrival: Final = itemgetter(0)


class _Inbox:
    """One socket's arrivals by slot."""

    __slots__ = ("device", "slots", "socket")

    def __init__(self, device: DeviceId, socket: int) -> None:
        self.device = device
        self.socket = socket
        self.slots: dict[int, list[tuple[float, bytes, Address]]] = {}


class _Pipe:
    """One direction of a link."""

    __slots__ = (
        "bad",
        "cut",
        "dropped",
        "figures",
        "last_arrival",
        "link",
        "looked_at",
        "lost",
        "next_free",
        "oversize",
        "rng",
        "sent",
    )

    def __init__(self, link: LinkKey, figures: LinkFigures, rng: random.Random) -> None:
        self.link = link
        self.figures = figures
        self.rng = rng
        self.cut = False
        self.bad = False
        self.next_free = 0.0
        self.last_arrival = 0.0
        self.looked_at = 0.0
        self.dropped = 0
        self.lost = 0
        self.oversize = 0
        self.sent = 0

    def loses(self, at: float) -> bool:
        """Tell whether a datagram that has been sent at a time, not before the last one, gets lost.

        Source: E. N. Gilbert, Capacity of a burst-noise channel, 1960: the chain whose bad state loses everything; a
        step of it is a full datagram at the link's rate.
        """
        chance, burst = self.figures.loss, self.figures.burst
        if burst * (1.0 - chance) > 1.0:
            steps = (at - self.looked_at) / _full_s(self.figures)
            kept = (1.0 - 1.0 / (burst * (1.0 - chance))) ** steps
            chance += (float(self.bad) - chance) * kept
            self.looked_at = at
        self.bad = self.rng.random() < chance
        return self.bad


class Network:
    """Hosts, sockets and links.

    Attributes:
        oracle: What crossed each link.
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
        self._inboxes: dict[Address, _Inbox] = {}
        self._sockets: dict[DeviceId, int] = {}
        self._figures = dict(scenario.links)
        self._pipes: dict[tuple[DeviceId, DeviceId], _Pipe] = {}
        for a, b in scenario.links:
            for source, target in ((a, b), (b, a)):
                rng = random.Random(f"{seed}:{source}>{target}")
                self._pipes[source, target] = _Pipe((a, b), scenario.links[a, b].towards(second=target == b), rng)

    def host(self, device: DeviceId) -> str:
        """Return the address of a device's only interface."""
        return self._hosts[device]

    def open_socket(self, device: DeviceId) -> tuple[int, int]:
        """Open one more socket on a device.

        Returns:
            Its number (the first one is 0) and its port.
        """
        socket = self._sockets.get(device, 0)
        self._sockets[device] = socket + 1
        port = FIRST_PORT + socket
        self._inboxes[self._hosts[device], port] = _Inbox(device, socket)
        return socket, port

    def close_sockets(self, device: DeviceId) -> None:
        """Close all sockets of a device; what is under way to them is lost."""
        host = self._hosts[device]
        for socket in range(self._sockets.pop(device, 0)):
            slots = self._inboxes.pop((host, FIRST_PORT + socket)).slots
            for _, datagram, source in itertools.chain.from_iterable(slots.values()):
                self.oracle.vanishes(link_key(device, self._devices[source[0]]), datagram)
            slots.clear()

    def send(self, device: DeviceId, socket: int, address: Address, datagrams: Sequence[bytes]) -> None:
        """Send a train of datagrams.

        Args:
            device: Who sends.
            socket: From which of its sockets.
            address: Host and port to send to.
            datagrams: UDP payloads in order.
        """
        target = self._devices.get(address[0])
        pipe = self._pipes.get((device, target)) if target is not None else None
        if pipe is None:
            self.unroutable += len(datagrams)
            return
        pipe.sent += len(datagrams)
        if not pipe.cut:
            self._convey(pipe, (self._hosts[device], FIRST_PORT + socket), address, datagrams)
            return
        for datagram in datagrams:
            self.oracle.note(pipe.link, datagram)

    def _convey(self, pipe: _Pipe, source: Address, target: Address, datagrams: Sequence[bytes]) -> None:
        figures = pipe.figures
        now = self._agenda.now
        byte_s = 8.0 / figures.rate_bps
        queue_s = (figures.queue_bytes or figures.default_queue_bytes) * byte_s
        most = (figures.mtu_bytes or ETHERNET_MTU_BYTES) - HEADERS_BYTES
        faulty = bool(figures.jitter_s or figures.loss or figures.duplicate or figures.reorder)
        free = pipe.next_free if pipe.next_free > now else now
        inbox = self._inboxes.get(target)
        note = self.oracle.note
        for datagram in datagrams:
            note(pipe.link, datagram)
            if len(datagram) > most:
                pipe.oversize += 1
                continue
            paid = free + (len(datagram) + FRAME_BYTES) * byte_s
            sent = max(paid - figures.bucket_s, now)
            if sent - now > queue_s:
                pipe.dropped += 1
                continue
            free = paid
            if inbox is None:
                continue
            if faulty:
                self._faults(pipe, figures, inbox, sent, datagram, source)
            else:
                self._arrive(pipe, inbox, sent + figures.delay_s, datagram, source)
        pipe.next_free = free

    def _faults(
        self, pipe: _Pipe, figures: LinkFigures, inbox: _Inbox, sent: float, datagram: bytes, source: Address
    ) -> None:
        draw = pipe.rng.random
        if figures.loss and pipe.loses(sent):
            pipe.lost += 1
            return
        arrival = sent + figures.delay_s
        if figures.jitter_s:
            arrival += draw() * figures.jitter_s
        if figures.reorder and draw() < figures.reorder:
            arrival += _held_back_s(figures, draw())
        else:
            arrival = pipe.last_arrival = max(arrival, pipe.last_arrival)
        self._arrive(pipe, inbox, arrival, datagram, source)
        if figures.duplicate and draw() < figures.duplicate:
            self._arrive(pipe, inbox, arrival + draw() * REORDER_S, datagram, source)

    def _arrive(self, pipe: _Pipe, inbox: _Inbox, arrival: float, datagram: bytes, source: Address) -> None:
        self.oracle.arrives(pipe.link, datagram)
        slot = int(arrival / SLOT_S) + 1
        waiting = inbox.slots.get(slot)
        if waiting is None:
            inbox.slots[slot] = [(arrival, datagram, source)]
            self._agenda.put(slot * SLOT_S, self._hand_over, (inbox, slot))
        else:
            waiting.append((arrival, datagram, source))

    def _hand_over(self, due: tuple[_Inbox, int]) -> None:
        inbox, slot = due
        waiting = inbox.slots.pop(slot, None)
        if waiting is None:
            return  # The socket was closed meanwhile.
        waiting.sort(key=_arrival)
        self._deliver(inbox.device, inbox.socket, [(datagram, source) for _, datagram, source in waiting])

    def cut(self, link: LinkKey) -> None:
        """Let nothing enter a link any more; what is under way still arrives."""
        for pipe in self._both(link):
            pipe.cut = True

    def restore(self, link: LinkKey) -> None:
        """Make a link again what the scenario says."""
        for pipe, there in zip(self._both(link), (True, False), strict=True):
            pipe.cut = False
            pipe.figures = self._figures[link].towards(second=there)

    def degrade(self, link: LinkKey, **figures: float) -> None:
        """Change a link's figures.

        Args:
            link: The link.
            figures: New values by field name of `LinkFigures`.
        """
        for pipe in self._both(link):
            pipe.figures = replace(pipe.figures, **figures)  # type: ignore[arg-type]

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
        return self._pipes[a, b].sent

    def dropped(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams from ``a`` to ``b`` found the queue full."""
        return self._pipes[a, b].dropped

    def lost(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams from ``a`` to ``b`` were lost by chance."""
        return self._pipes[a, b].lost

    def oversize(self, a: DeviceId, b: DeviceId) -> int:
        """Return how many datagrams from ``a`` to ``b`` were larger than the link takes."""
        return self._pipes[a, b].oversize

    def _both(self, link: LinkKey) -> tuple[_Pipe, _Pipe]:
        a, b = link
        return self._pipes[a, b], self._pipes[b, a]


def _held_back_s(figures: LinkFigures, draw: float) -> float:
    """Return for how long a datagram is held back so that later ones overtake it.

    Args:
        figures: The link's.
        draw: From 0 to 1.
    """
    if figures.reorder_by:
        return draw * figures.reorder_by * _full_s(figures)
    return REORDER_S + draw * max(REORDER_S, figures.delay_s)


def _full_s(figures: LinkFigures) -> float:
    """Return how long a full datagram takes at the link's rate."""
    return (ETHERNET_MTU_BYTES - HEADERS_BYTES + FRAME_BYTES) * 8.0 / figures.rate_bps
