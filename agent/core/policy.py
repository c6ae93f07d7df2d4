"""What the operator says of peers: which of them, where they are, and what their links are taken to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.core.events import Address
from common.addresses import Network, is_within, numeric, why_unreachable
from common.fields import split_candidate
from common.ids import DeviceId
from common.messages import RosterEntry


@dataclass(frozen=True, slots=True)
class DeclaredQos:
    """What the operator says about a link; it counts until bandwidth is measured.

    Attributes:
        rate_bps: bits per second.
        delay_s: one way, seconds; None leaves it to measurement.
    """

    rate_bps: float
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """Which peers a device speaks with, and where.

    Attributes:
        only: the peers allowed; None allows every member.
        addresses: addresses given by the operator, by peer.
        declared: declared figures, by peer.
        max_rate_bps: what all hops together may send, bits per second; None for no cap.
        max_rates: the same for one hop, by peer.
        denied: networks of which no address is tried, and no hello taken.
    """

    only: frozenset[DeviceId] | None
    addresses: Mapping[DeviceId, Address]
    declared: Mapping[DeviceId, DeclaredQos]
    max_rate_bps: float | None = None
    max_rates: Mapping[DeviceId, float] = field(default_factory=dict)
    denied: tuple[Network, ...] = ()

    def allows(self, peer: DeviceId) -> bool:
        """Tell whether the device may speak with a peer."""
        return self.only is None or peer in self.only

    def usable(self, address: Address) -> bool:
        """Tell whether a peer's address is worth a datagram: numeric, of one host, and in no denied network."""
        host = address[0]
        return numeric(host) is not None and why_unreachable(host) is None and not is_within(host, self.denied)

    def addresses_of(self, entry: RosterEntry) -> tuple[Address, ...]:
        """Return the addresses at which a peer is tried, the operator's first."""
        given = self.addresses.get(entry.device)
        found = [] if given is None else [given]
        found.extend(split_candidate(candidate) for candidate in entry.candidates)
        return tuple(dict.fromkeys(filter(self.usable, found)))

    def rate_bps(self, peer: DeviceId) -> float | None:
        """Return what a link is taken to give, declared or capped; None where nothing is said."""
        said = [self.max_rates[peer]] if peer in self.max_rates else []
        if peer in self.declared:
            said.append(self.declared[peer].rate_bps)
        return min(said, default=None)

    def declared_bps(self, peer: DeviceId) -> float | None:
        """Return what a link is declared to give, bits per second; None where nothing is."""
        declared = self.declared.get(peer)
        return None if declared is None else declared.rate_bps

    def cap_bps(self, peer: DeviceId) -> float | None:
        """Return what may be sent to a peer at most, bits per second; None where there is no cap."""
        caps = [cap for cap in (self.max_rate_bps, self.max_rates.get(peer)) if cap is not None]
        return min(caps, default=None)
