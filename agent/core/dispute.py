"""Chunks in dispute: a peer passed on what their source never sent, and they are fetched again.

Which peer it was nobody can tell, for what one passes on another may have made. So the chunks are taken from one peer
at a time, and from nobody else meanwhile: what one peer alone has brought proves to be the source's own or not. A peer
that failed is tried again when all others have, after a pause.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.core.rangeset import RangeSet
from common.ids import DeviceId

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0


class Dispute:
    """One range of chunks in dispute.

    Args:
        start: the first number.
        stop: one past the last.

    Attributes:
        asked: from whom they are taken now; None while nobody is asked.
        outstanding: what that peer was asked for and has not brought.
        moved_at: when it was asked, or brought something.
    """

    __slots__ = ("_again_at", "_pause_s", "_tried", "asked", "moved_at", "outstanding", "start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.asked: DeviceId | None = None
        self.outstanding = RangeSet()
        self.moved_at = 0.0
        self._tried: dict[DeviceId, None] = {}
        self._again_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    def admits(self, peer: DeviceId, start: int, stop: int) -> bool:
        """Whether chunks from a peer may be taken: those in dispute are taken of the one that was asked for them."""
        return peer == self.asked or stop <= self.start or self.stop <= start

    def refuted(self) -> None:
        """Note that what was brought is not the source's own, or that the peer asked brings nothing."""
        self.asked = None
        self.outstanding = RangeSet()

    def turn_to(self, peers: Iterable[DeviceId], now: float) -> DeviceId | None:
        """Choose whom to take them from next.

        Args:
            peers: who may have them, the best first.
            now: monotonic seconds.

        Returns:
            The peer; None while all have failed and the pause is not over.
        """
        if now < self._again_at:
            return None
        for peer in peers:
            if peer not in self._tried:
                self._tried[peer] = None
                self.asked, self.moved_at = peer, now
                return peer
        self._tried.clear()
        self._again_at = now + self._pause_s
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        return None
