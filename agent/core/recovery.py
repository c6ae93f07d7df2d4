"""Round-trip times and loss detection of one hop, from the ACKs that come back.

Theory of operation. Every datagram of a hop has a number of its own that is never used twice, so an ACK is unambiguous
and every newly acknowledged packet is a valid measurement. The peer's `AckTracker` says what arrived. `Recovery` keeps
the packets in flight in a list indexed by number (``packet = _packets[number - _base]``, None where a packet has left),
so the acknowledgement of a range is one slice. A packet leaves the list exactly once: it is acknowledged, or declared
lost, or given up by the probe timeout; its content then lives nowhere else, so whoever gets it back may send it again
under a new number without asking whether someone else did.

Source:
    RFC 9002 sections 5 and 6; RFC 8985 (adapting to reordering); draft-cheng-iccrg-delivery-rate-estimation-02; design
    section 5.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice

from agent.core.acks import GRANULARITY_S
from agent.core.rangeset import RangeSet
from agent.core.rtt import RttEstimator
from agent.core.sent import AckResult, SentRange, SentTrain
from common.errors import LocalProtocolError

PACKET_THRESHOLD = 3
"""Packets by which a later one must be ahead before the earlier counts as lost (RFC 9002 section 6.1.1)."""
MAX_PACKET_THRESHOLD = 1_024
"""What reordering may raise the packet threshold to: 20 ms of jitter at 100 Mbit/s puts a packet 200 places back."""
TIME_THRESHOLD = 9 / 8
"""Round trips after which a packet that a later one overtook counts as lost (RFC 9002 section 6.1.2)."""
MAX_REORDER_S = 0.1
"""Seconds that reordering may add to the time threshold; what comes later than that is as good as lost."""
REORDER_DECAY = 0.999
"""Factor of those seconds at each ACK that finds nothing late: they halve in some 700 ACKs, a second or three."""
LOST_KEPT = 1_024
"""Lost packets that are remembered, to notice when the loss was none."""
MAX_PTO_S = 3.0
"""Seconds that the probe timeout's backoff stops at: a link is given up long before RFC 9002's minutes."""
PTO_PACKETS = 2
"""Packets given up at each probe timeout (RFC 9002 section 6.2.4)."""


class Recovery:
    """The sending side of one hop: what is in flight, what arrived, what was lost.

    After every call, re-read `loss_at` and `pto_at` for the timer; when the first is reached call `detect_lost`, when
    the second is reached call `on_pto`.

    Args:
        rtt: The estimator to feed; a new one if None.

    Attributes:
        rtt: The round-trip time.
        in_flight: Packets sent and neither acknowledged nor given up.
        in_flight_bytes: Their bytes.
        delivered: Bytes acknowledged so far.
        packets_sent: Ack-eliciting packets sent so far.
        packets_lost: Packets given up so far; those of `spurious` did arrive.
        spurious: Packets given up that were acknowledged later.
        bogus_acks: ACKs that named a number never sent, and were ignored.
        packet_threshold: How far a later packet must be ahead before an earlier one counts as lost.
    """

    __slots__ = (
        "_acked",
        "_app_limited_until",
        "_backoff",
        "_base",
        "_delivered_at",
        "_first_sent_at",
        "_largest_acked",
        "_last_sent_at",
        "_loss_at",
        "_lost",
        "_lost_numbers",
        "_next",
        "_packets",
        "_reorder_s",
        "bogus_acks",
        "delivered",
        "in_flight",
        "in_flight_bytes",
        "packet_threshold",
        "packets_lost",
        "packets_sent",
        "rtt",
        "spurious",
    )

    def __init__(self, rtt: RttEstimator | None = None) -> None:
        self.rtt = RttEstimator() if rtt is None else rtt
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.delivered = 0
        self.packets_sent = 0
        self.packets_lost = 0
        self.spurious = 0
        self.bogus_acks = 0
        self.packet_threshold = PACKET_THRESHOLD
        self._packets: list[SentTrain | None] = []
        # What was acknowledged at or above _base: an ACK repeats what earlier ones said.
        self._acked = RangeSet()
        self._base = 0
        self._next = 0
        self._largest_acked = -1
        # Numbers only ever grow, and the oldest are given up first: both lists are in order by themselves.
        self._lost: list[SentTrain] = []
        self._lost_numbers: list[int] = []
        self._loss_at: float | None = None
        self._reorder_s = 0.0
        self._last_sent_at = 0.0
        self._backoff = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._app_limited_until = 0

    def forget_path(self) -> None:
        """Measure the round trip anew: what comes goes another way.

        Source:
            RFC 9000 section 9.4.
        """
        self.rtt = RttEstimator()
        self.packet_threshold = PACKET_THRESHOLD
        self._reorder_s = 0.0
        self._backoff = 0

    def on_sent(
        self, number: int, now: float, size: int, ack_eliciting: bool = True, content: object = None, count: int = 1
    ) -> None:
        """Record consecutive packets of one size as sent.

        Args:
            number: The first one's hop number, above every one before it; a list entry is spent on each left out.
            now: Monotonic seconds.
            size: Bytes of each datagram.
            ack_eliciting: False for a packet that only acknowledges: it is not in flight and never lost.
            content: Whatever is wanted back when packets are acknowledged or lost.
            count: How many packets, at least 1.

        Raises:
            LocalProtocolError: The number is not above the last one.
        """
        packets = self._packets
        if number != self._next:
            if number < self._next:
                raise LocalProtocolError(f"hop number {number} was sent or passed over before")
            if packets:
                packets.extend([None] * (number - self._next))
        if not packets:
            self._base = number
        self._next = number + count
        if not ack_eliciting:
            if packets:
                packets.extend([None] * count)
            return
        if not self.in_flight:
            self._delivered_at = self._first_sent_at = now
        train = SentTrain(
            number,
            count,
            now,
            size,
            content,
            self.delivered,
            self._delivered_at,
            self._first_sent_at,
            self.delivered < self._app_limited_until,
            self.in_flight_bytes,
        )
        packets.extend([train] * count)
        self.in_flight += count
        self.in_flight_bytes += size * count
        self.packets_sent += count
        self._last_sent_at = now

    def seed_rtt(self, sample: float) -> None:
        """Take a round trip that the link's probes measured, seconds, until a packet has measured one."""
        if not self.rtt.samples:
            self.rtt.update(sample)

    def mark_app_limited(self) -> None:
        """Say that there is nothing more to send although the window would take it.

        Until what is in flight now has arrived, packets sent are marked `app_limited`: the rate at which they are
        delivered is the application's, not the link's.
        """
        # At least 1, so that a hop that has not yet sent anything is marked too.
        self._app_limited_until = max(self.delivered + self.in_flight_bytes, 1)

    def on_ack(self, largest: int, delay_s: float, ranges: Sequence[tuple[int, int]], now: float) -> AckResult:
        """Take in one ACK.

        Args:
            largest: The highest hop number that the peer received.
            delay_s: Seconds for which it held the ACK back.
            ranges: Half-open ranges of hop numbers received, newest first, disjoint.
            now: Monotonic seconds.

        Returns:
            What it changed. Numbers that were never sent change nothing (and are counted in `bogus_acks`).

        Source:
            RFC 9002 sections 5.1, 6.1 and A.7.
        """
        result = AckResult(delivered=self.delivered)
        if largest >= self._next or any(stop > self._next for _, stop in ranges):
            # The claimed part is ignored; what was really sent counts, or one forged header would silence a hop.
            self.bogus_acks += 1
            ranges = [(start, min(stop, self._next)) for start, stop in ranges if start < self._next]
            if not ranges:
                return result
            largest = min(largest, max(stop for _, stop in ranges) - 1)
        prior_largest = self._largest_acked
        self._take_acked(ranges, result)
        if self._lost_numbers:
            self._take_late(ranges, result)
        if largest > prior_largest:
            self._largest_acked = largest
        if result.acked or result.late:
            self._backoff = 0
            self._measure(largest, delay_s, now, result)
        if result.late:
            self._learn_reordering(prior_largest, now, result.late)
        else:
            self._reorder_s *= REORDER_DECAY
        result.lost = self.detect_lost(now)
        result.lost_bytes = sum([each.size_bytes for each in result.lost])
        return result

    def detect_lost(self, now: float) -> list[SentRange]:
        """Give up the packets that later ones have overtaken by too much, in numbers or in time.

        Returns:
            Those packets, lowest number first; their content is to be sent again.

        Source:
            RFC 9002 section 6.1.
        """
        self._loss_at = None
        delay = self._round_trips() + self._reorder_s
        largest = self._largest_acked
        lost_below = largest - self.packet_threshold
        found: list[tuple[int, SentTrain]] = []
        for number, train in enumerate(self._packets, self._base):
            if train is None:
                continue
            if number > largest:
                break
            if number > lost_below and train.sent_at + delay > now:
                self._loss_at = train.sent_at + delay
                break
            found.append((number, train))
        return self._give_up(found) if found else []

    def loss_at(self) -> float | None:
        """Return the monotonic seconds at which `detect_lost` will find something, None if nothing is overtaken."""
        return self._loss_at

    def pto_at(self) -> float | None:
        """Return the monotonic seconds at which `on_pto` is due, None if it is not armed.

        Source:
            RFC 9002 section 6.2.1.
        """
        if not self.in_flight or self._loss_at is not None:
            return None
        return self._last_sent_at + min(self.rtt.pto() * (1 << self._backoff), MAX_PTO_S)

    def on_pto(self, now: float) -> list[SentRange]:
        """Give up the oldest packets in flight, so that their content is sent again and draws an ACK.

        Unlike RFC 9002's, these packets leave the flight and are counted as lost, so that a content is never in flight
        twice; an ACK that still comes for one of them is taken as `late`, and its round trip is measured.

        Args:
            now: Monotonic seconds; the next timeout is counted from here.

        Returns:
            Up to `PTO_PACKETS` packets, lowest number first.

        Source:
            RFC 9002 section 6.2.4.
        """
        present = enumerate(self._packets, self._base)
        oldest = list(islice(((number, train) for number, train in present if train is not None), PTO_PACKETS))
        if not oldest:
            return []
        self._last_sent_at = now
        if self.rtt.pto() * (1 << self._backoff) < MAX_PTO_S:
            self._backoff += 1
        return self._give_up(oldest)

    def _take_acked(self, ranges: Sequence[tuple[int, int]], result: AckResult) -> None:
        """Take the packets of these ranges out of the flight."""
        packets, base, known = self._packets, self._base, self._acked
        acked = result.acked
        for start, stop in reversed(ranges):
            if stop <= base or not packets:
                continue
            for low, high in known.missing(max(start, base), stop):
                live = _in_trains(packets[low - base : high - base], low)
                if live:
                    acked += live
                    packets[low - base : high - base] = [None] * (high - low)
                known.add_range(low, high)
        if acked:
            size = sum([each.size_bytes for each in acked])
            result.newly_acked_bytes = size
            self.in_flight -= sum([each.stop - each.start for each in acked])
            self.in_flight_bytes -= size
            self._trim()

    def _take_late(self, ranges: Sequence[tuple[int, int]], result: AckResult) -> None:
        """Find the packets that were given up too early."""
        numbers = self._lost_numbers
        for start, stop in ranges:
            if stop <= numbers[0]:
                break
            low = bisect_left(numbers, start)
            high = bisect_left(numbers, stop, low)
            if low < high:
                found = zip(self._lost[low:high], numbers[low:high], strict=True)
                result.late += [SentRange(train, number, number + 1) for train, number in found]
                del self._lost[low:high]
                del numbers[low:high]
                if not numbers:
                    break
        if result.late:
            result.late.sort(key=_start_of)
            self.spurious += len(result.late)
            result.newly_acked_bytes += sum([each.size_bytes for each in result.late])

    def _learn_reordering(self, prior_largest: int, now: float, late: list[SentRange]) -> None:
        """Raise both thresholds to where the oldest of the late packets would not have been given up.

        Source:
            RFC 8985 sections 4.3 and 6.2, which widens its window step by step; here the lateness is known, so one step
            does.
        """
        oldest = late[0]
        needed = min(prior_largest - oldest.start + 1, MAX_PACKET_THRESHOLD)
        self.packet_threshold = max(self.packet_threshold, needed)
        lateness = now - oldest.train.sent_at - self._round_trips()
        self._reorder_s = min(max(self._reorder_s, lateness), MAX_REORDER_S)

    def _round_trips(self) -> float:
        """Return the time threshold without what reordering adds, in seconds."""
        return max(TIME_THRESHOLD * max(self.rtt.smoothed, self.rtt.latest), GRANULARITY_S)

    def _measure(self, largest: int, delay_s: float, now: float, result: AckResult) -> None:
        """Take the round-trip time and the delivery rate from what was newly acknowledged."""
        self.delivered += result.newly_acked_bytes
        self._delivered_at = now
        result.delivered = self.delivered
        # What was given up is older than all that stayed in flight.
        newest, _, stop = (result.acked or result.late)[-1]
        if stop - 1 == largest:
            self.rtt.update(now - newest.sent_at, delay_s)
            result.rtt_sampled = True
        self._first_sent_at = max(self._first_sent_at, newest.sent_at)
        result.prior_delivered = newest.delivered
        result.app_limited = newest.app_limited
        interval = max(newest.sent_at - newest.first_sent_at, now - newest.delivered_at)
        if interval > 0:
            result.delivery_rate = (self.delivered - newest.delivered) / interval

    def _give_up(self, packets_lost: list[tuple[int, SentTrain]]) -> list[SentRange]:
        """Move packets out of the flight and remember them for a while; return them as ranges."""
        packets = self._packets
        base = self._base
        lost: list[SentRange] = []
        for number, train in packets_lost:
            packets[number - base] = None
            self._lost.append(train)
            self._lost_numbers.append(number)
            self.in_flight -= 1
            self.in_flight_bytes -= train.size
            if lost and lost[-1].train is train and lost[-1].stop == number:
                lost[-1] = SentRange(train, lost[-1].start, number + 1)
            else:
                lost.append(SentRange(train, number, number + 1))
        self.packets_lost += len(packets_lost)
        excess = len(self._lost) - LOST_KEPT
        if excess > 0:
            del self._lost[:excess]
            del self._lost_numbers[:excess]
        self._trim()
        return lost

    def _trim(self) -> None:
        """Let the list begin with a packet that is in flight."""
        packets = self._packets
        if not self.in_flight:
            packets.clear()
            self._acked = RangeSet()
            return
        gone = 0
        while packets[gone] is None:
            gone += 1
        if gone:
            del packets[:gone]
            self._base += gone
            self._acked.remove_range(0, self._base)


def _in_trains(part: list[SentTrain | None], start: int) -> list[SentRange]:
    """Return the packets that are in a part of the list, which begins at hop number ``start``, by train.

    Those that were given up are the oldest, so that behind a packet that is there all of its train is.
    """
    found: list[SentRange] = []
    at, length = 0, len(part)
    while at < length:
        train = part[at]
        if train is None:
            at += 1
            continue
        end = min(train.number + train.count - start, length)
        found.append(SentRange(train, start + at, start + end))
        at = end
    return found


def _start_of(each: SentRange) -> int:
    """Return the first hop number, to sort by."""
    return each.start
