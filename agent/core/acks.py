"""What the receiving side of one hop has to acknowledge, and when.

Source:
    RFC 9000 section 13.2; docs/protocol.md.
"""

from collections import deque
from typing import NamedTuple

from agent.core.rangeset import RangeSet
from common.errors import LocalProtocolError
from common.limits import HOP_WINDOW, MAX_RANGES

GRANULARITY_S = 0.001
"""Seconds below which no timer is set (RFC 9002 section 6.1.2)."""
MAX_ACK_DELAY_S = 0.005
"""Seconds for which a receiver may hold an ACK back."""
PACKETS_PER_ACK = 32
"""Packets after which an ACK is due at once: about one train."""
ACK_RANGES = 32
"""Ranges in one ACK, newest first."""
TOLD_ACKS = 32
"""ACKs that say of a packet that it arrived, at least: some may be lost …"""
TOLD_S = 0.2
"""… and the seconds in which they go: many may be lost in a row. An old gap costs 12 bytes in each."""


class Ack(NamedTuple):
    """What one ACK says.

    Attributes:
        largest: The highest hop number received.
        delay_s: Seconds since it was received.
        ranges: Half-open ranges of hop numbers received, newest first, at most `ACK_RANGES`.
    """

    largest: int
    delay_s: float
    ranges: list[tuple[int, int]]


class AckTracker:
    """The receiving side of one hop: what was received, and when to say so.

    An ACK is due after `PACKETS_PER_ACK` packets, `MAX_ACK_DELAY_S` after the first packet not yet acknowledged, or at
    once when a packet arrives out of order; the last at most once a millisecond, so that a reordering link does not
    make an ACK of every packet. Hop numbers are claims, because the header that carries them is not authenticated: one
    that lies further than `HOP_WINDOW` from the largest seen is not recorded.

    Source:
        RFC 9000 section 13.2; docs/protocol.md.
    """

    __slots__ = (
        "_acks",
        "_due_at",
        "_immediate_at",
        "_largest",
        "_largest_at",
        "_lowest_news",
        "_received",
        "_told",
        "_waiting",
        "outside_window",
    )

    def __init__(self) -> None:
        self._received = RangeSet()
        self._largest = -1
        self._largest_at = 0.0
        self._waiting = 0
        self._due_at: float | None = None
        # When the next immediate ACK is allowed.
        self._immediate_at = 0.0
        # The lowest number that the next ACK is the first to tell of; and of the ACKs before it, as far as none after
        # them told of a lower one: when each went, the how-manieth it was, and that number.
        self._lowest_news: int | None = None
        self._acks = 0
        self._told: deque[tuple[float, int, int]] = deque()
        self.outside_window = 0

    def on_received(self, number: int, now: float, ack_eliciting: bool = True, count: int = 1) -> bool:
        """Record consecutive packets; afterwards ask `ack_due`, once a batch is enough.

        Args:
            number: The first one's hop number, at least 0.
            now: Monotonic seconds.
            ack_eliciting: False for a packet that only acknowledges; it is recorded, but makes no ACK due.
            count: How many packets, at least 1.

        Returns:
            True if any of the numbers is new and inside the window.
        """
        expected = self._largest + 1
        stop = number + count
        in_order = number == expected
        if not in_order and not -HOP_WINDOW < number - expected <= HOP_WINDOW - count:
            self.outside_window += count
            return False
        fresh = self._received.add_range(number, stop)
        if not fresh:
            return False
        if self._lowest_news is None or number < self._lowest_news:
            self._lowest_news = number
        if not in_order:
            # A later number leaves a gap, an earlier one is out of order: both are news to the sender.
            self._received.keep_last(MAX_RANGES)
        if stop > expected:
            self._largest = stop - 1
            self._largest_at = now
        if ack_eliciting:
            self._expect_ack(now, in_order, fresh)
        return True

    def ack_due(self, now: float) -> bool:
        """Tell whether an ACK is to be sent now; if so, call `take_ack`."""
        return self._due_at is not None and now >= self._due_at

    def due_at(self) -> float | None:
        """Return the monotonic seconds at which an ACK is due, None if all is acknowledged."""
        return self._due_at

    def take_ack(self, now: float) -> Ack:
        """Return what the ACK has to say and count it as sent; it may also be taken early, to ride along.

        Raises:
            LocalProtocolError: Nothing was received yet.
        """
        if self._largest < 0:
            raise LocalProtocolError("there is nothing to acknowledge yet")
        self._waiting = 0
        self._due_at = None
        floor = self._still_to_tell(now)
        ranges = [span for span in self._received.newest(ACK_RANGES) if span[1] > floor]
        return Ack(self._largest, max(now - self._largest_at, 0.0), ranges)

    def _still_to_tell(self, now: float) -> int:
        """Return the lowest number that has not been in enough ACKs, this one included.

        Source:
            RFC 9000 section 13.2.3, which leaves it to the receiver when to forget.
        """
        told = self._told
        lowest = self._lowest_news
        if lowest is not None:
            self._acks += 1
            while told and told[-1][2] >= lowest:
                told.pop()
            told.append((now, self._acks, lowest))
            self._lowest_news = None
        while self._acks - told[0][1] >= TOLD_ACKS and now - told[0][0] > TOLD_S:
            told.popleft()
        return told[0][2]

    def _expect_ack(self, now: float, in_order: bool, count: int) -> None:
        """Move the time at which an ACK is due."""
        self._waiting += count
        due_at = self._due_at
        if due_at is None:
            due_at = now + MAX_ACK_DELAY_S
        if self._waiting >= PACKETS_PER_ACK:
            due_at = min(due_at, now)
        elif not in_order:
            immediate_at = max(now, self._immediate_at)
            if immediate_at < due_at:
                due_at = immediate_at
                self._immediate_at = immediate_at + GRANULARITY_S
        self._due_at = due_at
