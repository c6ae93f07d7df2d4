"""Which packets were sent while little of ours waited in front of the bottleneck, and how many of them were lost.

Theory of operation. A queue drops what is sent into it while it is full; a link loses whatever it carries. So what is
lost of the packets that found the queue shallow is lost by the link. How deep a queue a packet found follows from what
was in flight when it was sent: what is beyond the path itself (rate times lowest round trip) waits. Shallow is less
than three fifths of the most that waited lately.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from agent.core.sent import SentRange

SHALLOW: Final = 0.6
"""Share of the deepest queue below which one is shallow."""
WINDOWS: Final = 4
"""Windows whose deepest queue counts: two seconds, so that the start of a flow, which probes, is soon forgotten."""


class Shallow:
    """The packets of one hop.

    Attributes:
        sent: packets of a shallow queue whose fate is known.
        lost: how many of them were lost.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.lost = 0
        self._path_bytes = 0.0
        self._most = 0
        self._before: deque[int] = deque(maxlen=WINDOWS)

    def end_window(self, path_bytes: float) -> None:
        """Begin another window.

        Args:
            path_bytes: what the path itself holds.
        """
        self._path_bytes = path_bytes
        self._before.append(self._most)
        self._most = 0

    def on_acked(self, ranges: Iterable[SentRange]) -> None:
        """Take in packets that arrived."""
        for each in ranges:
            self.sent += self._count(each)

    def on_lost(self, ranges: Iterable[SentRange]) -> None:
        """Take in packets that count as lost."""
        for each in ranges:
            found = self._count(each)
            self.sent += found
            self.lost += found

    def on_late(self, ranges: Iterable[SentRange]) -> None:
        """Take in packets that had counted as lost and did arrive."""
        self.lost -= sum(self._count(each) for each in ranges)

    def _count(self, each: SentRange) -> int:
        """Return how many packets of a range found a shallow queue."""
        train = each.train
        last = train.flight_bytes + (each.stop - train.number) * train.size
        self._most = max(self._most, last)
        most = max(self._most, *self._before, 0)
        deepest = self._path_bytes + SHALLOW * max(most - self._path_bytes, 0.0)
        fitting = int((deepest - train.flight_bytes) // train.size) + train.number
        return min(max(fitting - each.start, 0), each.stop - each.start)
