"""Trains of datagrams that measure an idle path: what one end sends, and what the other makes of it.

Theory of operation. A train is sent in portions of a millisecond at a rate of its own. If the path carries that rate,
its datagrams arrive as far apart as they were sent; if not, they arrive at the rate of the path. A token bucket lets
the first ones through at any rate, so only the second half counts, and `RateSearch` takes no result before the train
was sent at nearly twice the rate at which it arrived: then a bucket of 20 ms is empty before the second half begins.

The receiver hands over datagrams in batches, so that several have one time. It counts the bytes that came after the
first batch of the second half, and the time from that batch to the last one.

What the peer reports is a claim. It cannot say more than was sent, nor speak of more time than has passed.

Source:
    Dovrolis, Ramanathan and Moore, "Packet-dispersion techniques and a capacity-estimation methodology", IEEE/ACM
    Transactions on Networking 12(6), 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.errors import DecodeError
from common.limits import MAX_TRAIN_DATAGRAMS
from common.path_frames import Train, TrainReport

TRAIN_S: Final = 0.05
"""Seconds that a train takes: at 1.8 times the path's rate a bucket of 20 ms is empty after 25."""
LEAST_DATAGRAMS: Final = 24
"""Datagrams of a train at least: a slow path's second half needs some, too."""
PORTION_S: Final = 0.001
"""Seconds of a train that are sent at once: timers are not set finer."""
REPORT_WITHIN_S: Final = 5.0
"""Seconds after the last datagram in which a report has to come: what a path of 56 kbit/s takes to let one through."""
STRAGGLERS_S: Final = 0.02
"""Seconds for which a receiver waits for datagrams that the last one has overtaken."""
SILENT_S: Final = 0.5
"""Seconds without another datagram after which a train counts as over although its last one is missing."""
MARGIN: Final = 1.5
"""Factor of the sent rate that a reported one may reach by coarse timers; beyond it the report is no measurement."""

FIRST_BYTES_S: Final = 625e3
"""Bytes per second of a search's first train: 5 Mbit/s, which hurts hardly any path for 50 ms."""
MOST_BYTES_S: Final = 75e6
"""Bytes per second of the fastest train: 600 Mbit/s; what carries that is not measured any finer."""
TELLING: Final = 1.8
"""Factor by which a train has to be sent faster than it arrives until it says what the path carries."""
NEXT: Final = 2.5
"""Factor of the rate that arrived for the next train."""
NEXT_UNLIMITED: Final = 4.0
"""The same where nothing was slowed down."""
UNLIMITED: Final = 0.85
"""Share of the sent rate from which on nothing was slowed down."""
UNABLE: Final = 0.6
"""Share of the wanted rate below which this host cannot send any faster."""
SAME: Final = 0.2
"""Share of the known rate by which a result may differ and need no second one."""
MOST_FAILURES: Final = 4
"""Trains in a row without a usable report that end a search."""

_MICRO: Final = 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one train.

    Attributes:
        sent: datagrams sent.
        arrived: datagrams that arrived.
        sent_bytes_s: at what rate they were sent.
        arrived_bytes_s: at what rate the second half arrived; None if it is not known.
    """

    sent: int
    arrived: int
    sent_bytes_s: float
    arrived_bytes_s: float | None


class Outgoing:
    """One train that is being sent.

    Args:
        number: names it to the peer.
        count: how many datagrams.
        size_bytes: of each; what is smaller than the frame alone is not padded.
        rate_bytes_s: bytes per second.
        now: monotonic seconds.
        portion_s: seconds of it that are sent at once.
    """

    def __init__(
        self,
        number: int,
        count: int,
        size_bytes: int,
        rate_bytes_s: float,
        now: float,
        portion_s: float = PORTION_S,
    ) -> None:
        self.number = number
        self.began = now
        self._count = count
        self._size = max(size_bytes, Train.OVERHEAD_BYTES)
        self._pause = self._size / rate_bytes_s
        self._portion_s = portion_s
        self._sent = 0
        self._first = 0
        self._last_at = now

    def poll(self, now: float) -> list[Train]:
        """Return the datagrams that are due."""
        # A sum of floats may end a hair before the time that was waited for.
        due = min(int((now - self.began) / self._pause + 1e-6) + 1, self._count)
        if due <= self._sent:
            return []
        padding = self._size - Train.OVERHEAD_BYTES
        portion = [Train(self.number, index, self._count, padding) for index in range(self._sent, due)]
        if not self._sent:
            self._first = due
        self._sent = due
        self._last_at = now
        return portion

    def poll_timeout(self) -> float:
        """Return when the next portion is due, or when it is no use to wait for the report any longer."""
        if self._sent < self._count:
            return self.began + max(self._sent * self._pause, self._last_at - self.began + self._portion_s)
        return self._last_at + REPORT_WITHIN_S

    def expired(self, now: float) -> bool:
        """Whether the report has stayed away for too long."""
        return self._sent == self._count and now >= self._last_at + REPORT_WITHIN_S

    def on_report(self, report: TrainReport, now: float) -> Measured:
        """Take the peer's report.

        Raises:
            DecodeError: it is of another train, or cannot be true.
        """
        if report.train != self.number or self._sent < self._count:
            raise DecodeError("a report of no train that was sent")
        later = self._count - self._count // 2
        span_s = report.span_us / _MICRO
        if report.arrived > self._count or report.later_bytes > later * self._size or span_s > now - self.began:
            raise DecodeError("a report of more than was sent")
        seconds = max(self._last_at - self.began, PORTION_S)
        sent_bytes_s = max(self._count - self._first, 1) * self._size / seconds
        arrived_bytes_s = None
        if report.later_bytes and report.span_us:
            arrived_bytes_s = report.later_bytes / span_s
            if arrived_bytes_s > MARGIN * sent_bytes_s:
                raise DecodeError("a report of a rate that was not sent")
            arrived_bytes_s = min(arrived_bytes_s, sent_bytes_s)
        return Measured(self._count, report.arrived, sent_bytes_s, arrived_bytes_s)


class TrainReceiver:
    """The trains of one peer, as they arrive: one at a time, and a report of each."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._reported = False
        self._count = 0
        self._arrived = 0
        self._first_at: float | None = None
        self._last_at = 0.0
        self._later_bytes = 0
        self._due: float | None = None

    def on_train(self, frame: Train, now: float) -> None:
        """Take one datagram of a train; another number begins another train."""
        if frame.train != self._number:
            self._number = frame.train
            self._reported = False
            self._count = frame.count
            self._arrived = self._later_bytes = 0
            self._first_at = None
        if self._reported:
            return
        self._arrived = min(self._arrived + 1, self._count)
        if frame.index >= self._count // 2:
            if self._first_at is None:
                self._first_at = now
            elif now > self._first_at:
                self._later_bytes += Train.OVERHEAD_BYTES + frame.padding
                self._last_at = now
        self._due = now + (STRAGGLERS_S if frame.index >= self._count - 1 else SILENT_S)

    def poll_timeout(self) -> float | None:
        """Return when ``poll_report`` has a report; None while there is none to come."""
        return self._due

    def poll_report(self, now: float) -> TrainReport | None:
        """Return the report that is due."""
        if self._due is None or now < self._due or self._number is None:
            return None
        self._due = None
        self._reported = True
        span_us = 0
        if self._first_at is not None and self._later_bytes:
            span_us = min(round((self._last_at - self._first_at) * _MICRO), 0xFFFFFFFF)
        return TrainReport(self._number, self._arrived, min(self._later_bytes, 0xFFFFFFFF), span_us)


class RateSearch:
    """At which rates to send trains until one has told what the path carries.

    Args:
        known_bytes_s: what it carried when it was measured last; None if nobody knows.
        most_bytes_s: no train is to be faster.

    Attributes:
        rate_bytes_s: the next train's rate, bytes per second.
        result_bytes_s: the result; None before there is one.
        over: whether the search has ended, with a result or without.
    """

    def __init__(self, known_bytes_s: float | None = None, most_bytes_s: float = MOST_BYTES_S) -> None:
        self._known = known_bytes_s
        self._most = most_bytes_s
        self._found: list[float] = []
        self._failures = 0
        self.rate_bytes_s = min(FIRST_BYTES_S if known_bytes_s is None else NEXT * known_bytes_s, most_bytes_s)
        self.result_bytes_s: float | None = None
        self.over = False

    def count(self, size_bytes: int) -> int:
        """Return how many datagrams of a size the next train has."""
        return min(max(round(self.rate_bytes_s * TRAIN_S / size_bytes), LEAST_DATAGRAMS), MAX_TRAIN_DATAGRAMS)

    def on_measured(self, measured: Measured) -> None:
        """Take what became of the train."""
        arrived = measured.arrived_bytes_s
        if arrived is None:
            self.on_failed()
            return
        self._failures = 0
        at_most = self.rate_bytes_s >= self._most or measured.sent_bytes_s < UNABLE * self.rate_bytes_s
        if not at_most and measured.sent_bytes_s < TELLING * arrived:
            factor = NEXT_UNLIMITED if arrived >= UNLIMITED * measured.sent_bytes_s else NEXT
            self._found.clear()
        else:
            factor = NEXT
            self._found.append(arrived)
            known = self._known is not None and abs(arrived - self._known) <= SAME * self._known
            if known or len(self._found) > 1:
                # A host that was busy for a moment lets a train arrive more slowly, never faster.
                self.result_bytes_s = max(self._found)
                self.over = True
        self.rate_bytes_s = min(factor * max(arrived, *self._found, 0.0), self._most)

    def on_failed(self) -> None:
        """Note that the train's report did not come, or said nothing."""
        self._failures += 1
        self.over = self._failures >= MOST_FAILURES
        self.rate_bytes_s = max(self.rate_bytes_s / 2, min(FIRST_BYTES_S / 2, self._most))
