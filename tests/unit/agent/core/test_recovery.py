"""Round-trip times and loss detection of one hop."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.acks import GRANULARITY_S, MAX_ACK_DELAY_S
from agent.core.rangeset import RangeSet
from agent.core.recovery import (
    INITIAL_RTT_S,
    LOST_KEPT,
    MAX_PACKET_THRESHOLD,
    MAX_PTO_S,
    MAX_REORDER_S,
    PACKET_THRESHOLD,
    AckResult,
    Recovery,
    RttEstimator,
    SentPacket,
)
from common.errors import LocalProtocolError

RTT = 0.04


def numbers_of(packets: list[SentPacket]) -> list[int]:
    return [packet.number for packet in packets]


def sent(count: int, now: float = 0.0, recovery: Recovery | None = None) -> Recovery:
    recovery = Recovery() if recovery is None else recovery
    first = recovery.packets_sent
    for number in range(first, first + count):
        recovery.on_sent(number, now, 1_000, content=f"chunk {number}")
    return recovery


def ack(recovery: Recovery, now: float, *ranges: tuple[int, int]) -> AckResult:
    """Acknowledge ranges that are given newest first."""
    return recovery.on_ack(ranges[0][1] - 1, 0.0, ranges, now)


# ------------------------------------------------------------------------------------------------ RttEstimator


def test_the_first_sample_replaces_what_was_assumed() -> None:
    rtt = RttEstimator()
    assert rtt.smoothed == INITIAL_RTT_S
    rtt.update(0.1)
    assert (rtt.latest, rtt.smoothed, rtt.variance, rtt.minimum) == (0.1, 0.1, 0.05, 0.1)


def test_later_samples_are_smoothed_as_rfc_9002_says() -> None:
    rtt = RttEstimator(0.05)
    rtt.update(0.1)
    rtt.update(0.2, ack_delay=0.004)
    assert rtt.latest == 0.2
    assert rtt.minimum == 0.1
    assert rtt.variance == pytest.approx(3 / 4 * 0.05 + 1 / 4 * 0.096)
    assert rtt.smoothed == pytest.approx(7 / 8 * 0.1 + 1 / 8 * 0.196)
    assert rtt.pto() == pytest.approx(rtt.smoothed + 4 * rtt.variance + MAX_ACK_DELAY_S)


def test_an_ack_delay_never_takes_a_sample_below_the_minimum_nor_counts_beyond_its_bound() -> None:
    rtt = RttEstimator()
    rtt.update(0.1)
    rtt.update(0.102, ack_delay=0.004)
    assert rtt.smoothed == pytest.approx(0.1 + 0.002 / 8)
    rtt = RttEstimator()
    rtt.update(0.1)
    rtt.update(0.2, ack_delay=9.0)
    assert rtt.smoothed == pytest.approx(0.1 + (0.1 - MAX_ACK_DELAY_S) / 8)


def test_a_steady_round_trip_leaves_at_least_the_granularity_in_the_probe_timeout() -> None:
    rtt = RttEstimator()
    for _ in range(100):
        rtt.update(RTT)
    assert rtt.pto() == pytest.approx(RTT + GRANULARITY_S + MAX_ACK_DELAY_S)


# ---------------------------------------------------------------------------------------------------- Recovery


def test_an_ack_takes_packets_out_of_the_flight_and_measures_the_round_trip() -> None:
    recovery = sent(10, now=1.0)
    assert (recovery.in_flight, recovery.in_flight_bytes) == (10, 10_000)
    result = recovery.on_ack(4, 0.001, [(3, 5), (0, 2)], 1.0 + RTT)
    assert numbers_of(result.acked) == [0, 1, 3, 4]
    assert [packet.content for packet in result.acked][:2] == ["chunk 0", "chunk 1"]
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
    assert [packet.content for packet in given_up] == ["chunk 0", "chunk 1"]
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


class RecoveryMachine(RuleBasedStateMachine):
    """Recovery beside plain sets: each packet leaves the flight exactly once, and only by the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.recovery = Recovery(RttEstimator(0.05))
        self.now = 1.0
        self.next = 0
        self.flight: dict[int, float] = {}
        self.lost: list[int] = []
        self.largest_acked = -1

    def _leave(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.flight[number]

    def _lose(self, packets: list[SentPacket]) -> None:
        numbers = numbers_of(packets)
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

    @rule(size=st.integers(1, 1_500), eliciting=st.sampled_from([True, True, True, False]), skip=st.integers(0, 2))
    def send(self, size: int, eliciting: bool, skip: int) -> None:
        self.next += skip
        self.recovery.on_sent(self.next, self.now, size, eliciting, content=self.next)
        if eliciting:
            self.flight[self.next] = self.now
        self.next += 1

    @rule(seconds=st.floats(0, 0.1))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def receive_ack(self, data: st.DataObject) -> None:
        if self.next == 0:
            return
        lowest = max(self.next - 12, 0)
        chosen = data.draw(st.sets(st.integers(lowest, self.next - 1), min_size=1))
        ranges = list(RangeSet((number, number + 1) for number in chosen))[::-1]
        acked = sorted(chosen.intersection(self.flight))
        late = sorted(chosen.intersection(self.lost))
        result = self.recovery.on_ack(max(chosen), 0.0, ranges, self.now)
        self.largest_acked = max(self.largest_acked, *chosen)
        assert numbers_of(result.acked) == acked
        assert numbers_of(result.late) == late
        assert result.newly_acked_bytes == sum(packet.size for packet in result.acked + result.late)
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
            given_up = numbers_of(self.recovery.on_pto(self.now))
            assert given_up == sorted(self.flight)[:2]
            self._leave(given_up)
            self.lost += given_up

    @invariant()
    def counts_agree(self) -> None:
        recovery = self.recovery
        assert recovery.in_flight == len(self.flight)
        assert bool(recovery.in_flight_bytes) == bool(self.flight)
        assert recovery.packets_lost - recovery.spurious == len(self.lost)
        if self.flight:
            assert recovery.loss_at() is not None or recovery.pto_at() is not None


TestRecoveryAgainstPlainSets = RecoveryMachine.TestCase
