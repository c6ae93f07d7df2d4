"""A NAT box in the simulator: which outer port stands for an inner one, and who may answer to it.

The four kinds differ in what a mapping depends on and in whom the filter lets in. All of them forget a mapping that
carried nothing for `TIMEOUT_S`, in either direction as Linux does, and none supports hairpinning. Where a mapping does
not depend on the destination, the outer port is the inner one's number as long as that is free; else it is drawn at
random.

Source: RFC 4787 sections 4.1 (mapping), 4.2.1 (port preservation), 4.3 (timeouts), 5 (filtering) and 6 (hairpinning).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from common.addresses import Address

TIMEOUT_S: Final = 120.0
"""Of a mapping and of a permission, in seconds: the least that RFC 4787 section 4.3 allows."""
FIRST_PORT: Final = 1024
LAST_PORT: Final = 65_535
MOST_MAPPINGS: Final = 4_096
"""And as many destinations of one; the oldest goes first."""


class Kind(StrEnum):
    """How a device is on the internet."""

    OPEN = "open"
    """Without a NAT: its address is a public one, and nothing is filtered."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """One mapping for all destinations; whoever sends to it comes in."""
    ADDRESS_RESTRICTED = "address-restricted"
    """One mapping; who was sent something comes in, from any of its ports."""
    PORT_RESTRICTED = "port-restricted"
    """One mapping; who was sent something comes in, from the port that it was sent to."""
    SYMMETRIC = "symmetric"
    """A mapping for each destination, which lets in that destination alone."""


@dataclass(slots=True)
class _Mapping:
    inner: int
    outer: int
    used_at: float
    allowed: dict[Address, float] = field(default_factory=dict)
    """Whom something was sent to, and when last."""


class Nat:
    """One box with one outer address and one device behind it.

    Attributes:
        kind: What it does; never `Kind.OPEN`.
    """

    def __init__(self, kind: Kind, rng: random.Random) -> None:
        """Make a box that has mapped nothing.

        Args:
            kind: What it does.
            rng: Draws the ports that are not preserved.
        """
        self.kind = kind
        self._rng = rng
        self._preserves = kind is not Kind.SYMMETRIC
        self._by_inner: dict[tuple[int, Address | None], _Mapping] = {}
        self._by_outer: dict[int, tuple[int, Address | None]] = {}

    def outbound(self, inner: int, target: Address, now: float) -> int:
        """Pass a datagram out.

        Args:
            inner: The port it comes from.
            target: Where it goes.
            now: Simulated seconds.

        Returns:
            The outer port from which it goes on.
        """
        key = (inner, target if self.kind is Kind.SYMMETRIC else None)
        mapping = self._by_inner.get(key)
        if mapping is not None and now - mapping.used_at >= TIMEOUT_S:
            self._forget(key)
            mapping = None
        if mapping is None:
            mapping = self._map(key, now)
        mapping.used_at = now
        mapping.allowed.pop(target, None)
        mapping.allowed[target] = now
        if len(mapping.allowed) > MOST_MAPPINGS:
            del mapping.allowed[next(iter(mapping.allowed))]
        return mapping.outer

    def inbound(self, outer: int, source: Address, now: float) -> int | None:
        """Take a datagram from outside.

        Args:
            outer: The port it came to.
            source: Where it comes from.
            now: Simulated seconds.

        Returns:
            The inner port to which it goes on; None if it is dropped.
        """
        key = self._by_outer.get(outer)
        mapping = None if key is None else self._by_inner[key]
        if mapping is None or now - mapping.used_at >= TIMEOUT_S or not self._allows(mapping, source, now):
            return None
        mapping.used_at = now
        if source in mapping.allowed:
            mapping.allowed[source] = now
        return mapping.inner

    def rebind(self) -> None:
        """Begin anew, as after a power cut: all mappings are forgotten, and the next ones get other ports."""
        self._by_inner.clear()
        self._by_outer.clear()
        self._preserves = False

    def _allows(self, mapping: _Mapping, source: Address, now: float) -> bool:
        match self.kind:
            case Kind.ENDPOINT_INDEPENDENT:
                return True
            case Kind.ADDRESS_RESTRICTED:
                times = [at for (host, _), at in mapping.allowed.items() if host == source[0]]
            case _:
                times = [mapping.allowed[source]] if source in mapping.allowed else []
        return bool(times) and now - max(times) < TIMEOUT_S

    def _map(self, key: tuple[int, Address | None], now: float) -> _Mapping:
        if len(self._by_inner) >= MOST_MAPPINGS:
            self._forget(next(iter(self._by_inner)))
        inner, _ = key
        outer = inner if self._preserves and inner not in self._by_outer else self._draw()
        mapping = self._by_inner[key] = _Mapping(inner, outer, now)
        self._by_outer[outer] = key
        return mapping

    def _draw(self) -> int:
        while (port := self._rng.randint(FIRST_PORT, LAST_PORT)) in self._by_outer:
            continue
        return port

    def _forget(self, key: tuple[int, Address | None]) -> None:
        del self._by_outer[self._by_inner.pop(key).outer]
