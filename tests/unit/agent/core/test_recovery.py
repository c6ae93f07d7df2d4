"""Round-trip times and loss detection of one hop."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.rangeset import RangeSet
from agent.core.recovery import (
    LOST_KEPT,
    MAX_PACKET_THRESHOLD,
    MAX_PTO_S,
    MAX_REORDER_S,
    PACKET_THRESHOLD,
    Recovery,
)
from agent.core.rtt import RttEstimator
from agent.core.sent import AckResult, SentRange
from common.errors import LocalProtocolError

RTT = 0.04


def numbers_of(ranges: list[SentRange]) -> list[int]:
    return [number for each in ranges for number in range(each.start, each.stop)]


def spans_of(ranges: list[SentRange]) -> list[tuple[object, int, int]]:
    """Return of each range its train's content, and which of the train's packets it is, from and to."""
    return [(each.train.content, each.offset, each.offset + each.stop - each.start) for each in ranges]


def sent(count: int, now: float = 0.0, recovery: Recovery | None = None) -> Recovery:
    recovery = Recovery() if recovery is None else recovery
    first = recovery.packets_sent
    for number in range(first, first + count):
        recovery.on_sent(number, now, 1_000, content=f"chunk {number}")
    return recovery


def trains(now: float, *counts: int, recovery: Recovery | None = None) -> Recovery:
    """Send trains of so many packets each; the first is called "a"."""
    recovery = Recovery() if recovery is None else recovery
    for name, count in zip("abcdefgh", counts, strict=False):
        recovery.on_sent(recovery.packets_sent, now, 1_000, content=name, count=count)
    return recovery


def ack(recovery: Recovery, now: float, *ranges: tuple[int, int]) -> AckResult:
    """Acknowledge ranges that are given newest first."""
    return recovery.on_ack(ranges[0][1] - 1, 0.0, ranges, now)


def test_an_ack_takes_packets_out_of_the_flight_and_measures_the_round_trip() -> None:
    recovery = sent(10, now=1.0)
    assert (recovery.in_flight, recovery.in_flight_bytes) == (10, 10_000)
    result = recovery.on_ack(4, 0.001, [(3, 5), (0, 2)], 1.0 + RTT)
    assert numbers_of(result.acked) == [0, 1, 3, 4]
    assert spans_of(result.acked)[:2] == [("chunk 0", 0, 1), ("chunk 1", 0, 1)]
    assert result.newly_acked_bytes == recovery.delivered == 4_000
    assert result.rtt_sampled
    assert recovery.rtt.latest == pytest.approx(RTT)
    assert (recovery.in_flight, recovery.in_flight_bytes) == (6, 6_000)


def test_an_ack_without_news_changes_nothing() -> None:
    recovery = sent(4, now=1.0)
    ack(recovery, 1.1, (0, 2))
    result = ack(recovery, 1.2, (0, 2))
    assert result == AckResult(delivered=2_000)
    assert recovery.rtt.samples == 1
    assert recovery.on_ack(1, 0.0, [], 1.3) == AckResult(delivered=2_000)


def test_an_older_ack_takes_no_round_trip_sample() -> None:
    recovery = sent(4, now=1.0)
    result = recovery.on_ack(3, 0.0, [(0, 2)], 1.5)
    assert numbers_of(result.acked) == [0, 1]
    assert not result.rtt_sampled


@pytest.mark.parametrize(("largest", "ranges"), [(4, [(0, 5)]), (3, [(0, 5)]), (9, [(7, 10), (0, 4)])])
def test_an_ack_of_numbers_never_sent_is_counted_and_takes_effect_for_those_that_were(
    largest: int, ranges: list[tuple[int, int]]
) -> None:
    recovery = sent(4, now=1.0)
    result = recovery.on_ack(largest, 0.0, ranges, 1.1)
    assert numbers_of(result.acked) == [0, 1, 2, 3]
    assert result.rtt_sampled
    assert recovery.bogus_acks == 1
    assert recovery.in_flight == 0


def test_an_ack_of_nothing_but_numbers_never_sent_changes_nothing() -> None:
    recovery = sent(4, now=1.0)
    assert recovery.on_ack(9, 0.0, [(4, 10)], 1.1) == AckResult(delivered=0)
    assert recovery.on_ack(9, 0.0, [], 1.1) == AckResult(delivered=0)
    assert recovery.bogus_acks == 2
    assert recovery.in_flight == 4
    assert ack(recovery, 1.2, (0, 4)).rtt_sampled


def test_hop_numbers_only_grow() -> None:
    recovery = sent(4)
    with pytest.raises(LocalProtocolError, match="hop number 3"):
        recovery.on_sent(3, 0.0, 100)


def test_numbers_left_out_and_packets_that_only_acknowledge_are_never_lost() -> None:
    recovery = Recovery()
    recovery.on_sent(0, 1.0, 50, ack_eliciting=False)
    assert (recovery.in_flight, recovery.packets_sent, recovery.pto_at()) == (0, 0, None)
    recovery.on_sent(5, 1.0, 100)
    recovery.on_sent(6, 1.0, 50, ack_eliciting=False)
    recovery.on_sent(12, 1.0, 200)
    assert (recovery.in_flight, recovery.in_flight_bytes) == (2, 300)
    result = ack(recovery, 1.1, (0, 13))
    assert numbers_of(result.acked) == [5, 12]
    assert (recovery.in_flight, recovery.in_flight_bytes, recovery.packets_lost) == (0, 0, 0)


def test_a_packet_is_lost_when_the_third_after_it_arrived() -> None:
    recovery = sent(10, now=1.0)
    assert ack(recovery, 1.0 + RTT, (1, 3)).lost == []
    result = ack(recovery, 1.0 + RTT, (1, 4))
    assert numbers_of(result.lost) == [0]
    assert result.lost_bytes == 1_000
    assert (recovery.packets_lost, recovery.in_flight) == (1, 6)


def test_a_packet_is_lost_when_it_was_overtaken_and_nine_eighths_of_a_round_trip_passed() -> None:
    recovery = sent(2, now=1.0)
    ack(recovery, 1.0 + RTT, (1, 2))
    loss_at = recovery.loss_at()
    assert loss_at == pytest.approx(1.0 + 9 / 8 * RTT)
    assert loss_at is not None
    assert recovery.pto_at() is None
    assert recovery.detect_lost(loss_at - 0.0001) == []
    assert numbers_of(recovery.detect_lost(loss_at)) == [0]
    assert recovery.loss_at() is None
    assert recovery.in_flight == 0


def test_a_false_loss_is_counted_and_raises_both_thresholds() -> None:
    recovery = sent(20, now=1.0)
    assert numbers_of(ack(recovery, 1.0 + RTT, (10, 11)).lost) == list(range(8))
    late_at = 1.0 + 2 * RTT
    result = ack(recovery, late_at, (10, 11), (6, 7), (1, 2))
    assert numbers_of(result.late) == [1, 6]
    assert (result.acked, result.newly_acked_bytes, recovery.delivered) == ([], 2_000, 3_000)
    assert recovery.spurious == 2
    # Packet 1 came when 10 was the largest: one more would have been patient enough.
    assert recovery.packet_threshold == 10
    # And it came 2 round trips after it was sent, where 9/8 were allowed. Each calm ACK forgets a thousandth of that.
    sent(5, 2.0, recovery)
    ack(recovery, 2.0 + RTT, (21, 22))
    assert recovery.loss_at() == pytest.approx(2.0 + 2 * RTT, rel=1e-4)


def test_reordering_raises_the_thresholds_up_to_their_bounds() -> None:
    recovery = sent(3 * MAX_PACKET_THRESHOLD, now=1.0)
    last = 3 * MAX_PACKET_THRESHOLD - 1
    ack(recovery, 1.0 + RTT, (last, last + 1))
    ack(recovery, 3.0, (last, last + 1), (last - 1_026, last - 1_025))
    assert recovery.spurious == 1
    assert recovery.packet_threshold == MAX_PACKET_THRESHOLD
    sent(2, 4.0, recovery)
    ack(recovery, 4.0 + RTT, (last + 2, last + 3))
    assert recovery.loss_at() == pytest.approx(4.0 + 9 / 8 * RTT + MAX_REORDER_S, rel=1e-3)


def test_lost_packets_are_remembered_up_to_a_bound() -> None:
    recovery = sent(2 * LOST_KEPT, now=1.0)
    last = 2 * LOST_KEPT - 1
    ack(recovery, 1.0 + RTT, (last, last + 1))
    forgotten = last - LOST_KEPT - PACKET_THRESHOLD
    assert ack(recovery, 1.1, (last, last + 1), (0, forgotten)).late == []
    assert len(ack(recovery, 1.1, (0, last + 1)).late) == LOST_KEPT
    assert recovery.spurious == LOST_KEPT


def test_the_probe_timeout_gives_up_the_two_oldest_and_backs_off_to_a_bound() -> None:
    recovery = sent(3, now=1.0)
    pto = recovery.rtt.pto()
    assert recovery.pto_at() == pytest.approx(1.0 + pto)
    given_up = recovery.on_pto(1.0 + pto)
    assert spans_of(given_up) == [("chunk 0", 0, 1), ("chunk 1", 0, 1)]
    assert (recovery.in_flight, recovery.packets_lost) == (1, 2)
    assert recovery.pto_at() == pytest.approx(1.0 + pto + 2 * pto)
    waits = []
    now = 2.0
    for _ in range(6):
        sent(2, now, recovery)
        recovery.on_pto(now)
        pto_at = recovery.pto_at()
        assert pto_at is not None
        waits.append(pto_at - now)
    assert waits == [pytest.approx(MAX_PTO_S)] * 6


def test_the_backoff_ends_with_the_first_packet_acknowledged() -> None:
    recovery = sent(3, now=1.0)
    recovery.on_pto(2.0)
    recovery.on_pto(3.0)
    assert recovery.on_pto(4.0) == []
    sent(1, 5.0, recovery)
    ack(recovery, 5.0 + RTT, (3, 4))
    sent(1, 6.0, recovery)
    assert recovery.pto_at() == pytest.approx(6.0 + recovery.rtt.pto())


def test_a_probe_timeout_that_was_too_early_still_measures_the_round_trip() -> None:
    recovery = Recovery(RttEstimator(0.01))
    sent(2, 1.0, recovery)
    recovery.on_pto(1.1)
    result = ack(recovery, 1.5, (0, 2))
    assert numbers_of(result.late) == [0, 1]
    assert result.rtt_sampled
    assert recovery.rtt.smoothed == 0.5
    assert recovery.packet_threshold == PACKET_THRESHOLD


def test_the_delivery_rate_is_what_arrived_between_sending_a_packet_and_its_ack() -> None:
    recovery = Recovery()
    # One packet of 1,000 bytes every 10 ms, acknowledged 40 ms later: 100,000 bytes a second.
    for step in range(20):
        now = step * 0.01
        if step >= 4:
            result = ack(recovery, now, (0, step - 3))
            if step >= 12:
                assert result.delivery_rate == pytest.approx(100_000)
                assert not result.app_limited
                assert result.delivered - result.prior_delivered == 4_000
        recovery.on_sent(step, now, 1_000)


def test_the_delivery_rate_is_unknown_where_no_time_passed() -> None:
    recovery = sent(1, now=1.0)
    assert ack(recovery, 1.0, (0, 1)).delivery_rate == 0.0


def test_packets_sent_while_there_was_too_little_to_send_are_marked() -> None:
    recovery = Recovery()
    recovery.mark_app_limited()
    sent(2, 1.0, recovery)
    assert ack(recovery, 1.1, (0, 2)).app_limited
    sent(2, 1.2, recovery)
    recovery.mark_app_limited()
    sent(1, 1.2, recovery)
    assert not ack(recovery, 1.3, (2, 4)).app_limited
    sent(1, 1.3, recovery)
    assert ack(recovery, 1.4, (4, 5)).app_limited
    assert not ack(recovery, 1.4, (5, 6)).app_limited


# ------------------------------------------------------------------------------------------------------ trains


def test_a_train_is_in_flight_as_its_packets_are() -> None:
    recovery = trains(1.0, 10, 1)
    assert (recovery.in_flight, recovery.in_flight_bytes, recovery.packets_sent) == (11, 11_000, 11)
    with pytest.raises(LocalProtocolError, match="hop number 10"):
        recovery.on_sent(10, 1.0, 1_000)
    result = ack(recovery, 1.0 + RTT, (0, 11))
    assert spans_of(result.acked) == [("a", 0, 10), ("b", 0, 1)]
    assert [each.size_bytes for each in result.acked] == [10_000, 1_000]
    assert result.newly_acked_bytes == recovery.delivered == 11_000
    assert result.rtt_sampled
    assert (recovery.in_flight, recovery.in_flight_bytes) == (0, 0)


def test_a_train_is_acknowledged_in_parts_each_once() -> None:
    recovery = trains(1.0, 10)
    assert spans_of(ack(recovery, 1.1, (0, 3)).acked) == [("a", 0, 3)]
    assert spans_of(ack(recovery, 1.1, (0, 4)).acked) == [("a", 3, 4)]
    assert spans_of(ack(recovery, 1.1, (6, 7), (0, 4)).acked) == [("a", 6, 7)]
    assert spans_of(ack(recovery, 1.1, (3, 9)).acked) == [("a", 4, 6), ("a", 7, 9)]
    assert (recovery.in_flight, recovery.in_flight_bytes, recovery.delivered) == (1, 1_000, 9_000)
    assert spans_of(ack(recovery, 1.1, (0, 10)).acked) == [("a", 9, 10)]
    assert recovery.packets_lost == 0


def test_an_ack_across_trains_tells_the_packets_of_each() -> None:
    recovery = trains(1.0, 4, 4, 4)
    result = ack(recovery, 1.0, (10, 11), (2, 9))
    assert spans_of(result.acked) == [("a", 2, 4), ("b", 0, 4), ("c", 0, 1), ("c", 2, 3)]
    assert spans_of(result.lost) == [("a", 0, 2)]


def test_numbers_between_trains_that_were_left_out_or_only_acknowledged_belong_to_none() -> None:
    recovery = Recovery()
    recovery.on_sent(5, 1.0, 100, content="a", count=3)
    recovery.on_sent(8, 1.0, 50, ack_eliciting=False, count=2)
    recovery.on_sent(12, 1.0, 200, content="b", count=2)
    assert (recovery.in_flight, recovery.in_flight_bytes) == (5, 700)
    result = ack(recovery, 1.1, (0, 14))
    assert spans_of(result.acked) == [("a", 0, 3), ("b", 0, 2)]
    assert (result.newly_acked_bytes, recovery.in_flight, recovery.packets_lost) == (700, 0, 0)


def test_what_only_acknowledges_is_not_counted_by_the_train_either() -> None:
    recovery = Recovery()
    recovery.on_sent(0, 1.0, 50, ack_eliciting=False, count=3)
    recovery.on_sent(3, 1.0, 100, content="a", count=2)
    assert (recovery.in_flight, recovery.packets_sent) == (2, 2)
    assert spans_of(ack(recovery, 1.1, (0, 5)).acked) == [("a", 0, 2)]


def test_a_train_is_lost_in_part_and_each_gap_of_it_is_told() -> None:
    recovery = trains(1.0, 12)
    result = ack(recovery, 1.0 + RTT, (10, 12), (4, 6), (1, 2))
    assert spans_of(result.acked) == [("a", 1, 2), ("a", 4, 6), ("a", 10, 12)]
    # Packet 9 is two behind the last: it may still come.
    assert spans_of(result.lost) == [("a", 0, 1), ("a", 2, 4), ("a", 6, 9)]
    assert result.lost_bytes == 6_000
    assert (recovery.packets_lost, recovery.in_flight, recovery.in_flight_bytes) == (6, 1, 1_000)
    loss_at = recovery.loss_at()
    assert loss_at is not None
    assert spans_of(recovery.detect_lost(loss_at)) == [("a", 9, 10)]


def test_a_loss_across_trains_tells_the_packets_of_each() -> None:
    recovery = trains(1.0, 3, 3, 6)
    result = ack(recovery, 1.0 + RTT, (11, 12))
    assert spans_of(result.lost) == [("a", 0, 3), ("b", 0, 3), ("c", 0, 3)]
    assert (recovery.packets_lost, recovery.in_flight) == (9, 2)


def test_packets_of_a_train_that_come_after_all_are_late_one_by_one() -> None:
    recovery = trains(1.0, 12)
    ack(recovery, 1.0 + RTT, (11, 12))
    result = ack(recovery, 1.0 + 2 * RTT, (9, 12), (3, 6))
    assert numbers_of(result.late) == [3, 4, 5]
    assert [(each.offset, each.size_bytes) for each in result.late] == [(3, 1_000), (4, 1_000), (5, 1_000)]
    assert spans_of(result.acked) == [("a", 9, 11)]
    assert result.newly_acked_bytes == 5_000
    assert (recovery.spurious, recovery.packets_lost, recovery.in_flight) == (3, 9, 0)
    assert recovery.packet_threshold == 11 - 3 + 1
    again = ack(recovery, 1.0 + 2 * RTT, (9, 12), (3, 6))
    assert (again.late, again.acked, recovery.spurious) == ([], [], 3)


def test_the_probe_timeout_takes_the_oldest_two_of_a_train_and_leaves_its_rest_in_flight() -> None:
    recovery = trains(1.0, 5, 1)
    ack(recovery, 1.0 + RTT, (0, 1))
    assert spans_of(recovery.on_pto(2.0)) == [("a", 1, 3)]
    assert (recovery.in_flight, recovery.in_flight_bytes, recovery.packets_lost) == (3, 3_000, 2)
    assert spans_of(recovery.on_pto(3.0)) == [("a", 3, 5)]
    assert spans_of(recovery.on_pto(4.0)) == [("b", 0, 1)]
    assert recovery.on_pto(5.0) == []
    result = ack(recovery, 6.0, (0, 6))
    assert numbers_of(result.late) == [1, 2, 3, 4, 5]
    assert recovery.spurious == 5


def test_the_probe_timeout_may_take_one_packet_each_of_two_trains() -> None:
    recovery = trains(1.0, 3, 3)
    ack(recovery, 1.0, (0, 2))
    assert spans_of(recovery.on_pto(2.0)) == [("a", 2, 3), ("b", 0, 1)]
    assert recovery.in_flight == 2


def test_a_false_loss_inside_a_train_leaves_what_was_acknowledged_of_it_alone() -> None:
    recovery = trains(1.0, 8)
    ack(recovery, 1.0 + RTT, (6, 8), (1, 2))
    # All of it: what was given up is late, what was acknowledged is no news, what is left is acknowledged.
    result = ack(recovery, 1.0 + RTT, (0, 8))
    assert (numbers_of(result.late), numbers_of(result.acked)) == ([0, 2, 3, 4], [5])
    assert (recovery.delivered, recovery.in_flight) == (8_000, 0)


def test_lost_packets_of_trains_are_remembered_up_to_a_bound_too() -> None:
    recovery = trains(1.0, 2 * LOST_KEPT)
    last = 2 * LOST_KEPT - 1
    assert spans_of(ack(recovery, 1.0 + RTT, (last, last + 1)).lost) == [("a", 0, last - PACKET_THRESHOLD + 1)]
    late = ack(recovery, 1.1, (0, last + 1)).late
    assert len(late) == LOST_KEPT
    assert (late[0].start, late[-1].stop) == (last - PACKET_THRESHOLD + 1 - LOST_KEPT, last - PACKET_THRESHOLD + 1)


def test_the_delivery_rate_counts_a_train_from_when_it_was_sent() -> None:
    recovery = Recovery()
    # Ten packets of 1,000 bytes every 10 ms, acknowledged together 40 ms later: 1,000,000 bytes a second.
    for step in range(20):
        now = step * 0.01
        if step >= 4:
            result = ack(recovery, now, (0, 10 * (step - 3)))
            if step >= 12:
                assert result.delivery_rate == pytest.approx(1_000_000)
                assert result.delivered - result.prior_delivered == 40_000
        recovery.on_sent(10 * step, now, 1_000, count=10)


def test_a_train_has_one_round_trip_that_its_last_packet_measures() -> None:
    recovery = trains(1.0, 10)
    assert not recovery.on_ack(9, 0.0, [(0, 5)], 1.3).rtt_sampled
    assert ack(recovery, 1.0 + RTT, (0, 10)).rtt_sampled
    assert recovery.rtt.latest == pytest.approx(RTT)


# ----------------------------------------------------------------------------------------------- beside an oracle


class RecoveryMachine(RuleBasedStateMachine):
    """Recovery beside plain sets: each packet leaves the flight exactly once, and only by the rules.

    The oracle knows no trains: to it each packet has a number, a time, a size and a content of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recovery = Recovery(RttEstimator(0.05))
        self.now = 1.0
        self.next = 0
        self.sent: dict[int, tuple[float, int, str]] = {}
        self.flight: dict[int, float] = {}
        self.lost: list[int] = []
        self.sent_count = 0
        self.acked_bytes = 0
        self.largest_acked = -1

    def _leave(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.flight[number]

    def _check(self, ranges: list[SentRange]) -> list[int]:
        """Compare each packet of these ranges with what the oracle knows of it; return their numbers."""
        numbers = []
        for each in ranges:
            train = each.train
            assert train.number <= each.start < each.stop <= train.number + train.count
            assert each.size_bytes == train.size * (each.stop - each.start)
            for place, number in enumerate(range(each.start, each.stop), each.offset):
                assert self.sent[number] == (train.sent_at, train.size, f"{train.content} {place}")
                numbers.append(number)
        return numbers

    def _lose(self, ranges: list[SentRange]) -> None:
        numbers = self._check(ranges)
        assert numbers == sorted(numbers)
        for number in numbers:
            assert number < self.largest_acked
            by_number = number <= self.largest_acked - self.recovery.packet_threshold
            assert by_number or self.flight[number] + self.recovery.rtt.smoothed <= self.now
        self._leave(numbers)
        self.lost += numbers
        # Whatever stays may still come: it was not overtaken, or not for long enough.
        overtaken = [number for number in self.flight if number < self.largest_acked]
        assert (self.recovery.loss_at() is not None) == bool(overtaken)

    @rule(
        size=st.integers(1, 1_500),
        eliciting=st.sampled_from([True, True, True, False]),
        skip=st.integers(0, 2),
        count=st.one_of(st.just(1), st.integers(1, 9)),
    )
    def send(self, size: int, eliciting: bool, skip: int, count: int) -> None:
        self.next += skip
        self.recovery.on_sent(self.next, self.now, size, eliciting, content=f"train {self.next}", count=count)
        if eliciting:
            self.sent_count += count
            for place in range(count):
                self.flight[self.next + place] = self.now
                self.sent[self.next + place] = (self.now, size, f"train {self.next} {place}")
        self.next += count

    @rule(seconds=st.floats(0, 0.1))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def receive_ack(self, data: st.DataObject) -> None:
        if self.next == 0:
            return
        lowest = max(self.next - 24, 0)
        number = st.integers(lowest, self.next - 1)
        spans = data.draw(st.lists(st.tuples(number, st.integers(1, 8)), min_size=1, max_size=5))
        chosen = {each for start, count in spans for each in range(start, min(start + count, self.next))}
        ranges = list(RangeSet((number, number + 1) for number in chosen))[::-1]
        acked = sorted(chosen.intersection(self.flight))
        late = sorted(chosen.intersection(self.lost))
        result = self.recovery.on_ack(max(chosen), 0.0, ranges, self.now)
        self.largest_acked = max(self.largest_acked, *chosen)
        assert self._check(result.acked) == acked
        assert self._check(result.late) == late
        assert result.newly_acked_bytes == sum(self.sent[number][1] for number in acked + late)
        self.acked_bytes += result.newly_acked_bytes
        assert result.delivered == self.recovery.delivered == self.acked_bytes
        assert result.lost_bytes == sum(self.sent[number][1] for number in self._check(result.lost))
        assert result.rtt_sampled == (max(chosen) in (acked or late)[-1:])
        self._leave(acked)
        self.lost = [number for number in self.lost if number not in late]
        self._lose(result.lost)

    @rule()
    def look_for_losses(self) -> None:
        loss_at = self.recovery.loss_at()
        if loss_at is not None:
            self.now = max(self.now, loss_at)
            lost = self.recovery.detect_lost(self.now)
            assert lost
            self._lose(lost)

    @rule()
    def time_out(self) -> None:
        pto_at = self.recovery.pto_at()
        if pto_at is not None:
            self.now = max(self.now, pto_at)
            given_up = self._check(self.recovery.on_pto(self.now))
            assert given_up == sorted(self.flight)[:2]
            self._leave(given_up)
            self.lost += given_up

    @invariant()
    def counts_agree(self) -> None:
        recovery = self.recovery
        assert recovery.in_flight == len(self.flight)
        assert recovery.in_flight_bytes == sum(self.sent[number][1] for number in self.flight)
        assert recovery.packets_sent == self.sent_count
        assert recovery.packets_lost - recovery.spurious == len(self.lost)
        if self.flight:
            assert recovery.loss_at() is not None or recovery.pto_at() is not None


TestRecoveryAgainstPlainSets = RecoveryMachine.TestCase
