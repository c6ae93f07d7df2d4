"""Small messages carry the last ones that nobody has acknowledged yet, so that a loss costs no round trip.

A message that is lost would be noticed a round trip later, and all that its source published meanwhile would wait for
it. So when the next small message leaves, what left before it and is still unacknowledged goes once more beside it, as
a repeat. On a path whose round trip is shorter than the pause between two messages nothing is ever carried.

Source: design section 9; the idea is that of RTP redundancy (RFC 2198).
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from agent.core.pacer import Pacer

SMALL_BYTES: Final = 600
"""Bytes of the largest datagram that is carried."""
SHARE: Final = 0.1
"""Part of the hop's rate that copies may take."""
MOST_CARRIED: Final = 32
"""Trains that are remembered, the newest."""

Train = TypeVar("Train")


class Carrier(Generic[Train]):
    """Remembers the small trains that left lately.

    Args:
        rate_bytes_s: of the hop.
        now: monotonic seconds.
    """

    def __init__(self, rate_bytes_s: float, now: float) -> None:
        self._pacer = Pacer(SHARE * rate_bytes_s, now, SMALL_BYTES)
        self._sent: deque[tuple[Train, int, int]] = deque(maxlen=MOST_CARRIED)
        self._leaving: list[tuple[Train, int, int]] = []

    def on_sent(self, train: Train, datagram_bytes: int, count: int) -> None:
        """Note a train that leaves now."""
        if datagram_bytes <= SMALL_BYTES:
            self._leaving.append((train, count, datagram_bytes * count))

    def take(self, rate_bytes_s: float, now: float) -> list[tuple[Train, int]]:
        """Return the trains that may be sent once more beside what leaves now, each with how many datagrams it has.

        There are none if no small train leaves now.

        Args:
            rate_bytes_s: of the hop, as it is now.
            now: monotonic seconds.
        """
        if not self._leaving:
            return []
        self._pacer.set_rate(SHARE * rate_bytes_s, now)
        budget = self._pacer.budget(now)
        out = []
        spent = 0
        while self._sent and spent < budget:
            train, count, size_bytes = self._sent.popleft()
            spent += size_bytes
            out.append((train, count))
        self._pacer.spend(spent, now)
        self._sent.extend(self._leaving)
        self._leaving = []
        return out
