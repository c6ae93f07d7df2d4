"""The simulated public network: devices on it directly or behind a NAT, and a STUN server that all of them reach.

Theory of operation. Each device has an access link, two pipes. A datagram goes through its sender's NAT, up the access
link, and at the network's middle down the access link of whoever has the address it is for; there the receiver's NAT
looks at it when it arrives, so that a hole punched meanwhile counts. The STUN server sits in the middle itself.
Every device behind a NAT has an address of its own behind it, which nobody else reaches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.addresses import Address
from common.errors import DecodeError
from common.ids import DeviceId, LinkKey, link_key
from common.stun import BindingRequest, decode_untrusted, encode_answer
from lab.clock import Agenda
from lab.nat import Kind, Nat
from lab.oracle import Oracle
from lab.pipe import Pipe
from lab.scenario import Scenario
from lab.slots import Slots

STUN_HOST: Final = "198.19.0.1"
STUN_PORTS: Final = (3478, 3479)
"""Both answer, so that a device learns whether its mapping depends on the destination."""

Deliver = Callable[[DeviceId, int, list[tuple[bytes, Address]]], None]


@dataclass(frozen=True, slots=True)
class _Datagram:
    """On its way between two doors."""

    payload: bytes
    source: Address
    target: Address
    link: LinkKey | None


class _Access:
    """One device's way to the internet."""

    __slots__ = ("device", "door", "down", "inner", "nat", "public", "up")

    def __init__(
        self, device: DeviceId, inner: str, public: str, nat: Nat | None, up: Pipe, down: Pipe, door: Slots[_Datagram]
    ) -> None:
        self.device = device
        self.inner = inner
        self.public = public
        self.nat = nat
        self.up = up
        self.down = down
        self.door = door


class Internet:
    """The network and everything on it.

    Attributes:
        unroutable: Datagrams to an address that nobody has.
        filtered: Datagrams that a NAT did not let in, by device.
    """

    def __init__(self, scenario: Scenario, seed: int, agenda: Agenda, oracle: Oracle, deliver: Deliver) -> None:
        """Lay out a scenario's access links and NATs.

        Args:
            scenario: Its devices.
            seed: Drawn ports and the access links' faults follow from it.
            agenda: The simulated time.
            oracle: Is told what crosses between two devices.
            deliver: Called with device, port and a batch of (datagram, source address) when they have arrived.
        """
        self.unroutable = 0
        self.filtered: dict[DeviceId, int] = dict.fromkeys(scenario.internet, 0)
        self._agenda = agenda
        self._oracle = oracle
        self._deliver = deliver
        self._middle: Slots[_Datagram] = Slots(agenda, self._route)
        self._accesses: dict[DeviceId, _Access] = {}
        for index, (device, access) in enumerate(scenario.internet.items(), 1):
            kind = Kind(access.kind)
            rng = random.Random(f"{seed}:{device}:internet")
            public = f"198.18.{index >> 8}.{index & 255}"
            self._accesses[device] = _Access(
                device,
                public if kind is Kind.OPEN else f"192.168.{index >> 8}.{index & 255}",
                public,
                None if kind is Kind.OPEN else Nat(kind, random.Random(rng.random())),
                Pipe(access.figures, random.Random(rng.random())),
                Pipe(access.figures, random.Random(rng.random())),
                Slots(agenda, self._enter),
            )
        self._by_public = {access.public: access for access in self._accesses.values()}

    def host(self, device: DeviceId) -> str | None:
        """Return a device's own address, as its interface has it; None if it is not on the internet."""
        access = self._accesses.get(device)
        return None if access is None else access.inner

    def public_host(self, device: DeviceId) -> str:
        """Return the address that others see of a device."""
        return self._accesses[device].public

    def rebind(self, device: DeviceId) -> None:
        """Let a device's NAT forget everything, as after a power cut."""
        nat = self._accesses[device].nat
        if nat is not None:
            nat.rebind()

    def send(self, device: DeviceId, port: int, target: Address, datagrams: Sequence[bytes]) -> None:
        """Send a train of datagrams.

        Args:
            device: Who sends; it is on the internet.
            port: From which of its UDP ports.
            target: Host and port to send to.
            datagrams: UDP payloads in order.
        """
        now = self._agenda.now
        access, other = self._accesses[device], self._by_public.get(target[0])
        outer = port if access.nat is None else access.nat.outbound(port, target, now)
        if other is access or (other is None and target[0] != STUN_HOST):
            self.unroutable += len(datagrams)
            return
        link = None if other is None else link_key(device, other.device)
        if link is not None:
            for datagram in datagrams:
                self._oracle.note(link, datagram)
        for arrival, datagram in access.up.carry(datagrams, now):
            self._middle.put(arrival, _Datagram(datagram, (access.public, outer), target, link))

    def _route(self, batch: list[_Datagram]) -> None:
        for datagram in batch:
            if datagram.target[0] == STUN_HOST:
                self._answer(datagram)
            else:
                self._lead_down(datagram)

    def _lead_down(self, datagram: _Datagram) -> None:
        access = self._by_public[datagram.target[0]]
        for arrival, _ in access.down.carry([datagram.payload], self._agenda.now):
            access.door.put(arrival, datagram)

    def _answer(self, datagram: _Datagram) -> None:
        if datagram.target[1] not in STUN_PORTS:
            self.unroutable += 1
            return
        try:
            request = decode_untrusted(datagram.payload)
        except DecodeError:
            return
        if isinstance(request, BindingRequest):
            answer = encode_answer(request, datagram.source)
            self._lead_down(_Datagram(answer, datagram.target, datagram.source, None))

    def _enter(self, batch: list[_Datagram]) -> None:
        """Let the receiver's NAT judge what has arrived there, and hand over what comes in."""
        now = self._agenda.now
        access = self._by_public[batch[0].target[0]]
        entering: dict[int, list[tuple[bytes, Address]]] = {}
        for datagram in batch:
            _, outer = datagram.target
            port = outer if access.nat is None else access.nat.inbound(outer, datagram.source, now)
            if port is None:
                self.filtered[access.device] += 1
                continue
            if datagram.link is not None:
                self._oracle.arrives(datagram.link, datagram.payload)
            entering.setdefault(port, []).append((datagram.payload, datagram.source))
        for port, arrived in entering.items():
            self._deliver(access.device, port, arrived)
