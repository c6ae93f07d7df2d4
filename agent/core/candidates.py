"""What this device tells the group of where it may be reached.

In the order in which peers should try: what the operator advertises; the addresses of this host's interfaces, IPv4
first; what STUN servers see; this host's loopback addresses, which the shell names only where the server is on this
host too. Nothing that lies in a denied network is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.core.reflexive import Reflexive
from common.addresses import Address, Network, is_within, numeric, why_unreachable, write_address
from common.fields import split_candidate
from common.limits import MAX_CANDIDATES
from common.messages import CandidatesReport


class OwnCandidates:
    """Collects the candidates of this device.

    Args:
        advertised: what the operator advertises, "host:port".
        reflexive: what STUN servers see.
        denied: networks that are kept out of.
        only_advertised: whether nothing but what is advertised is told.
    """

    def __init__(
        self,
        advertised: Sequence[str],
        reflexive: Reflexive,
        *,
        denied: Sequence[Network] = (),
        only_advertised: bool = False,
    ) -> None:
        self._advertised = [split_candidate(each) for each in advertised]
        self._reflexive = reflexive
        self._denied = tuple(denied)
        self._only_advertised = only_advertised
        self._hosts: tuple[Address, ...] = ()
        self._changes = 0

    @property
    def version(self) -> int:
        """Grows whenever what is told may have changed."""
        return self._changes + self._reflexive.version

    def set_hosts(self, hosts: Iterable[Address], now: float) -> None:
        """Take the addresses of this host's interfaces, each with the port of the shared socket."""
        found = tuple(dict.fromkeys(hosts))
        if found != self._hosts:
            self._hosts = found
            self._changes += 1
            self._reflexive.set_own(found, now)

    def report(self) -> CandidatesReport:
        """Return what is to be told: at most `MAX_CANDIDATES`, of which those of interfaces give way first."""
        advertised = self._usable(self._advertised)
        if self._only_advertised:
            found = advertised
        else:
            hosts = [each for each in sorted(self._usable(self._hosts), key=_is_ipv6) if each not in advertised]
            seen = [each for each in self._usable(self._reflexive.addresses) if each not in advertised + hosts]
            room = max(MAX_CANDIDATES - len(advertised) - len(seen), 0)
            near = [each for each in hosts if not _is_loopback(each)]
            found = advertised + near[:room] + seen + [each for each in hosts if each not in near]
        told = tuple(dict.fromkeys(write_address(each) for each in found))
        return CandidatesReport(candidates=told[:MAX_CANDIDATES], mapping=self._reflexive.mapping)

    def _usable(self, addresses: Iterable[Address]) -> list[Address]:
        return [each for each in addresses if why_unreachable(each[0]) is None and not is_within(each[0], self._denied)]


def _is_ipv6(address: Address) -> bool:
    return ":" in address[0]


def _is_loopback(address: Address) -> bool:
    host = numeric(address[0])
    return host is not None and host.is_loopback
