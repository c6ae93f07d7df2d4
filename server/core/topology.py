"""Which links count and how good they are.

A link counts while both ends list each other in their adjacency and both leases run. What the two ends say about it
is kept apart, one direction each; where they differ the worse counts, and what only one of them knows is taken from
that one. So the planner weighs a link by the lesser of its directions. A link that comes and goes is held down
(`flapping`).
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from common.ids import DeviceId, LinkKey, link_key
from common.limits import LEASE_S, MAX_PEERS, UNMEASURED_DELAY_S, UNMEASURED_RATE_BPS
from common.messages import QosFigures
from server.core.flapping import Flapping, Held
from server.core.planner import WeighedLink
from server.core.weight import worth_bps

_NO_FIGURES = QosFigures()

_F = TypeVar("_F", int, float)


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known about one link that at least one end reports, or that is held down.

    Attributes:
        key: its two devices, sorted.
        counts: both ends list each other and both leases run.
        forward: what the first device says about it; None where it said nothing.
        backward: what the second says.
        figures: the worse of the two, figure by figure.
        held: what is held against it, because it comes and goes; None if it may be used like any other.
    """

    key: LinkKey
    counts: bool
    forward: QosFigures | None
    backward: QosFigures | None
    figures: QosFigures
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What an event did to the links that count.

    Attributes:
        moved: something that the planner looks at is different now.
        lost: the links that count no longer.
    """

    moved: bool = False
    lost: tuple[LinkKey, ...] = ()

    def also(self, other: "Change") -> "Change":
        """Join two changes."""
        return Change(self.moved or other.moved, self.lost + other.lost)


@dataclass(slots=True)
class _Device:
    """One device's claims: its peers (values unused, an ordered set), its figures by peer, its lease's end."""

    expires: float
    alive: bool = True
    peers: dict[DeviceId, None] = field(default_factory=dict)
    figures: dict[DeviceId, QosFigures] = field(default_factory=dict)


class Topology:
    """The claims of all devices, and the links that follow from them.

    Attributes:
        flapping: which links come and go.
    """

    def __init__(self) -> None:
        """Start with no device."""
        self.flapping = Flapping()
        self._devices: dict[DeviceId, _Device] = {}
        self._counting: dict[LinkKey, WeighedLink] = {}
        self._mtus: dict[LinkKey, int] = {}
        self._links_by_mtu: Counter[int] = Counter()
        self._leases: list[tuple[float, DeviceId]] = []

    def __contains__(self, device: object) -> bool:
        """Tell whether a device is a member."""
        return device in self._devices

    def __len__(self) -> int:
        """Count the members."""
        return len(self._devices)

    def devices(self) -> tuple[DeviceId, ...]:
        """List the members, sorted."""
        return tuple(sorted(self._devices))

    def counting(self) -> Mapping[LinkKey, WeighedLink]:
        """Give the links that count, by key; not to be changed."""
        return self._counting

    def smallest_mtu(self) -> int | None:
        """Say how large a datagram every link that counts takes, in bytes; None where no end of any has said it."""
        return min(self._links_by_mtu, default=None)

    def add(self, device: DeviceId, *, now: float) -> None:
        """Add a member without links; its lease begins to run."""
        self._devices[device] = _Device(now + LEASE_S)
        heapq.heappush(self._leases, (now + LEASE_S, device))

    def restore(
        self, device: DeviceId, peers: Iterable[DeviceId], figures: Mapping[DeviceId, QosFigures], *, now: float
    ) -> None:
        """Add a member with the claims it had when the server stopped; its links count as old ones.

        Args:
            device: the member.
            peers: its last adjacency.
            figures: its last figures by peer.
            now: monotonic seconds; the lease runs from here.
        """
        self.add(device, now=now)
        state = self._devices[device]
        state.peers = dict.fromkeys(peers)
        state.figures = dict(figures)
        for peer in state.peers:
            self._reweigh(device, peer, since=float("-inf"))

    def remove(self, device: DeviceId) -> Change:
        """Remove a member, its claims, and what others claim about it."""
        gone = self._devices.pop(device)
        self.flapping.on_gone(device)
        change = Change()
        for other in self._devices.values():
            other.peers.pop(device, None)
            other.figures.pop(device, None)
        for peer in gone.peers:
            change = change.also(self._reweigh(device, peer, since=0.0))
        return change

    def report_peers(self, device: DeviceId, peers: Iterable[DeviceId], *, now: float) -> Change:
        """Replace a device's adjacency (M1).

        Args:
            device: the reporter.
            peers: all devices to which it has an open link.
            now: monotonic seconds; renews the lease.
        """
        state = self._devices[device]
        before = state.peers
        change = self._renew(device, now)
        state.peers = dict.fromkeys(peers)
        self._trim_figures(state, ())
        for peer in [*before, *(peer for peer in state.peers if peer not in before)]:
            change = change.also(self._reweigh(device, peer, since=now))
        return change

    def report_figures(self, device: DeviceId, figures: Mapping[DeviceId, QosFigures], *, now: float) -> Change:
        """Replace a device's figures of the links that it names (M2).

        Args:
            device: the reporter.
            figures: by peer.
            now: monotonic seconds; renews the lease.
        """
        state = self._devices[device]
        change = self._renew(device, now)
        state.figures.update(figures)
        self._trim_figures(state, figures)
        for peer in figures:
            change = change.also(self._reweigh(device, peer, since=now))
        return change

    def renew(self, device: DeviceId, *, now: float) -> Change:
        """Let a device's lease run from now; its links count again if it had run out."""
        return self._renew(device, now)

    def expire(self, *, now: float) -> Change:
        """Drop the links of every device whose lease has run out, and hold those down no longer whose time is over."""
        change = Change()
        for a, b in self.flapping.take_expired(now=now):
            change = change.also(self._reweigh(a, b, since=now))
        while self._leases and self._leases[0][0] <= now:
            _, device = heapq.heappop(self._leases)
            state = self._devices.get(device)
            if state is None or not state.alive:
                continue
            if state.expires > now:
                heapq.heappush(self._leases, (state.expires, device))
                continue
            state.alive = False
            for peer in state.peers:
                change = change.also(self._reweigh(device, peer, since=now))
        return change

    def next_expiry(self) -> float | None:
        """Say when `expire` has to be called again; it may find nothing to do then."""
        times = [self._leases[0][0] if self._leases else None, self.flapping.next_expiry()]
        return min((at for at in times if at is not None), default=None)

    def alive(self, device: DeviceId) -> bool:
        """Tell whether a member's lease runs."""
        return self._devices[device].alive

    def claims(self, device: DeviceId) -> tuple[tuple[DeviceId, ...], dict[DeviceId, QosFigures]]:
        """Give what a member last said: its peers, and its figures by peer."""
        state = self._devices[device]
        return tuple(state.peers), dict(state.figures)

    def links(self) -> tuple[LinkState, ...]:
        """List every link that at least one end reports, or that is held down, sorted."""
        keys = {link_key(device, peer): None for device, state in self._devices.items() for peer in state.peers}
        keys.update(self.flapping.down())
        return tuple(self._link(key) for key in sorted(keys))

    def _link(self, key: LinkKey) -> LinkState:
        a, b = key
        forward = self._devices[a].figures.get(b)
        backward = self._devices[b].figures.get(a)
        figures = worse(forward or _NO_FIGURES, backward or _NO_FIGURES)
        return LinkState(key, key in self._counting, forward, backward, figures, self.flapping.held(key))

    def _renew(self, device: DeviceId, now: float) -> Change:
        state = self._devices[device]
        state.expires = now + LEASE_S
        change = Change()
        if not state.alive:
            state.alive = True
            heapq.heappush(self._leases, (state.expires, device))
            for peer in state.peers:
                change = change.also(self._reweigh(device, peer, since=now))
        return change

    def _reweigh(self, device: DeviceId, peer: DeviceId, *, since: float) -> Change:
        """Bring one link of the counting ones up to date after something about it changed."""
        key = link_key(device, peer)
        before = self._counting.get(key)
        if not (self._lists(device, peer) and self._lists(peer, device)):
            if before is None:
                return Change()
            del self._counting[key]
            self._count_mtu(key, None)
            if all(end in self._devices and self._devices[end].alive for end in key):
                self.flapping.on_lost(key, now=since)
            return Change(True, (key,))
        figures = self._link(key).figures
        self._count_mtu(key, figures.mtu_bytes)
        after = weigh(key, figures, since, held=self.flapping.held(key) is not None)
        if before is not None:
            after = replace(after, since=before.since)
        else:
            self.flapping.on_back(key)
        self._counting[key] = after
        return Change(before != after)

    def _count_mtu(self, key: LinkKey, mtu_bytes: int | None) -> None:
        before = self._mtus.pop(key, None)
        if before is not None:
            self._links_by_mtu[before] -= 1
            if not self._links_by_mtu[before]:
                del self._links_by_mtu[before]
        if mtu_bytes is not None:
            self._mtus[key] = mtu_bytes
            self._links_by_mtu[mtu_bytes] += 1

    def _lists(self, device: DeviceId, peer: DeviceId) -> bool:
        state = self._devices.get(device)
        return state is not None and state.alive and peer in state.peers

    @staticmethod
    def _trim_figures(state: _Device, named: Iterable[DeviceId]) -> None:
        """Forget figures of links that neither stand nor were named just now, once there are too many."""
        if len(state.figures) > MAX_PEERS:
            keep = {**state.peers, **dict.fromkeys(named)}
            state.figures = {peer: found for peer, found in state.figures.items() if peer in keep}


def worse(one: QosFigures, other: QosFigures) -> QosFigures:
    """Reconcile what two ends say: the worse of the two, figure by figure; what one does not know the other says."""
    return QosFigures(
        bandwidth_bps=_pick(one.bandwidth_bps, other.bandwidth_bps, least=True),
        delay_s=_pick(one.delay_s, other.delay_s),
        jitter_s=_pick(one.jitter_s, other.jitter_s),
        loss=_pick(one.loss, other.loss),
        mtu_bytes=_pick(one.mtu_bytes, other.mtu_bytes, least=True),
    )


def _pick(one: _F | None, other: _F | None, *, least: bool = False) -> _F | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other) if least else max(one, other)


def weigh(key: LinkKey, figures: QosFigures, since: float, *, held: bool = False) -> WeighedLink:
    """Turn a link's figures into what the planner looks at; the delay includes the jitter.

    Args:
        key: the link.
        figures: reconciled.
        since: when it began to count, in monotonic seconds.
        held: whether it is held down.
    """
    bandwidth = UNMEASURED_RATE_BPS if figures.bandwidth_bps is None else figures.bandwidth_bps
    delay = None if figures.delay_s is None else figures.delay_s + (figures.jitter_s or 0.0)
    worth = worth_bps(bandwidth, figures.loss or 0.0, delay)
    return WeighedLink(key, worth, UNMEASURED_DELAY_S if delay is None else delay, since, held)
