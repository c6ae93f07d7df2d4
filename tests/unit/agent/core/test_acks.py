"""When an ACK is due and what is in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.acks import ACK_RANGES, MAX_ACK_DELAY_S, PACKETS_PER_ACK, TOLD_ACKS, TOLD_S, Ack, AckTracker
from agent.core.rangeset import RangeSet
from common.errors import LocalProtocolError
from common.limits import HOP_WINDOW, MAX_RANGES


def assert_ack(ack: Ack, expected: Ack) -> None:
    assert (ack.largest, ack.ranges) == (expected.largest, expected.ranges)
    assert ack.delay_s == pytest.approx(expected.delay_s)


def test_an_ack_is_due_after_enough_packets_or_enough_time() -> None:
    tracker = AckTracker()
    assert tracker.due_at() is None
    assert not tracker.ack_due(99.0)
    tracker.on_received(0, 1.0)
    assert tracker.due_at() == 1.0 + MAX_ACK_DELAY_S
    assert not tracker.ack_due(1.004)
    assert tracker.ack_due(1.0 + MAX_ACK_DELAY_S)
    for number in range(1, PACKETS_PER_ACK):
        assert not tracker.ack_due(1.001)
        tracker.on_received(number, 1.001)
    assert tracker.ack_due(1.001)
    assert_ack(tracker.take_ack(1.003), Ack(31, 0.002, [(0, 32)]))
    assert tracker.due_at() is None


def test_a_gap_and_what_fills_it_make_an_ack_due_at_once() -> None:
    tracker = AckTracker()
    tracker.on_received(0, 1.0)
    tracker.on_received(2, 1.001)
    assert tracker.ack_due(1.001)
    assert tracker.take_ack(1.001) == Ack(2, 0.0, [(2, 3), (0, 1)])
    tracker.on_received(1, 1.003)
    assert tracker.ack_due(1.003)
    assert_ack(tracker.take_ack(1.003), Ack(2, 0.002, [(0, 3)]))


def test_the_packets_of_a_run_count_each() -> None:
    tracker = AckTracker()
    assert tracker.on_received(0, 1.0, count=PACKETS_PER_ACK - 1)
    assert tracker.due_at() == 1.0 + MAX_ACK_DELAY_S
    assert not tracker.ack_due(1.001)
    assert tracker.on_received(PACKETS_PER_ACK - 1, 1.001)
    assert tracker.ack_due(1.001)
    assert_ack(tracker.take_ack(1.003), Ack(PACKETS_PER_ACK - 1, 0.002, [(0, PACKETS_PER_ACK)]))
    assert tracker.on_received(PACKETS_PER_ACK, 1.004, count=PACKETS_PER_ACK)
    assert tracker.ack_due(1.004)


def test_of_a_run_that_came_in_part_before_only_the_rest_is_new() -> None:
    tracker = AckTracker()
    tracker.on_received(0, 1.0, count=10)
    tracker.take_ack(1.0)
    assert tracker.on_received(5, 1.001, count=10)
    assert_ack(tracker.take_ack(1.002), Ack(14, 0.001, [(0, 15)]))
    assert not tracker.on_received(3, 1.003, count=12)
    assert tracker.due_at() is None
    # The five packets that are new do not make an ACK due as fifteen would.
    tracker.on_received(15, 2.0, count=PACKETS_PER_ACK - 6)
    assert tracker.on_received(10, 2.0, ack_eliciting=False, count=PACKETS_PER_ACK)
    assert not tracker.ack_due(2.0)


def test_a_run_behind_a_gap_and_one_that_fills_it_make_an_ack_due_at_once() -> None:
    tracker = AckTracker()
    tracker.on_received(0, 1.0, count=2)
    assert tracker.on_received(5, 1.001, count=3)
    assert tracker.ack_due(1.001)
    assert tracker.take_ack(1.001) == Ack(7, 0.0, [(5, 8), (0, 2)])
    assert tracker.on_received(1, 1.003, count=5)
    assert tracker.ack_due(1.003)
    assert_ack(tracker.take_ack(1.003), Ack(7, 0.002, [(0, 8)]))


def test_a_reordering_link_gets_at_most_one_immediate_ack_a_millisecond() -> None:
    tracker = AckTracker()
    acks = 0
    for step in range(1_000):
        now = 1 + step * 0.0001
        # Pairs that arrive the wrong way round.
        tracker.on_received(step ^ 1, now)
        if tracker.ack_due(now):
            tracker.take_ack(now)
            acks += 1
    assert 90 <= acks <= 101


def test_a_packet_that_only_acknowledges_is_recorded_but_makes_no_ack_due() -> None:
    tracker = AckTracker()
    assert tracker.on_received(0, 1.0, ack_eliciting=False)
    assert tracker.due_at() is None
    assert tracker.take_ack(1.0).ranges == [(0, 1)]


def test_a_number_outside_the_window_is_not_believed() -> None:
    tracker = AckTracker()
    assert not tracker.on_received(HOP_WINDOW, 1.0)
    assert tracker.on_received(HOP_WINDOW - 1, 1.0)
    assert tracker.on_received(2 * HOP_WINDOW - 1, 1.0)
    assert not tracker.on_received(3, 1.0)
    assert tracker.outside_window == 2


def test_a_run_that_reaches_outside_the_window_is_not_believed_at_all() -> None:
    tracker = AckTracker()
    assert not tracker.on_received(HOP_WINDOW - 9, 1.0, count=10)
    assert tracker.outside_window == 10
    assert tracker.on_received(HOP_WINDOW - 10, 1.0, count=10)
    assert tracker.take_ack(1.0).largest == HOP_WINDOW - 1
    assert not tracker.on_received(0, 1.0, count=10)
    assert tracker.outside_window == 20
    assert tracker.on_received(1, 1.0, count=10)


def test_nothing_can_be_acknowledged_before_the_first_packet() -> None:
    with pytest.raises(LocalProtocolError):
        AckTracker().take_ack(0.0)


@given(st.lists(st.integers(0, 400), min_size=1))
def test_an_ack_says_what_was_received_in_bounded_space(numbers: list[int]) -> None:
    tracker = AckTracker()
    held: set[int] = set()
    for number in numbers:
        fresh = tracker.on_received(number, 1.0)
        assert fresh or number in held
        held.add(number)
    largest, _, ranges = tracker.take_ack(1.0)
    assert largest == max(numbers)
    assert ranges == list(RangeSet((number, number + 1) for number in held))[::-1][:ACK_RANGES]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60), st.booleans()), min_size=1))
def test_a_run_is_taken_as_its_packets_one_after_the_other(runs: list[tuple[int, int, bool]]) -> None:
    together, apart = AckTracker(), AckTracker()
    for number, count, eliciting in runs:
        fresh = together.on_received(number, 1.0, eliciting, count)
        each = [apart.on_received(one, 1.0, eliciting) for one in range(number, number + count)]
        assert fresh == any(each)
    assert together.take_ack(1.0) == apart.take_ack(1.0)


def test_only_the_newest_ranges_are_kept() -> None:
    tracker = AckTracker()
    for number in range(0, 4 * MAX_RANGES, 2):
        tracker.on_received(number, 1.0)
    # The lowest were forgotten, so they pass as new; the highest were not.
    assert tracker.on_received(0, 1.0)
    assert not tracker.on_received(4 * MAX_RANGES - 2 * MAX_RANGES, 1.0)
    ranges = tracker.take_ack(1.0).ranges
    assert len(ranges) == ACK_RANGES
    assert ranges[0] == (4 * MAX_RANGES - 2, 4 * MAX_RANGES - 1)


def test_an_old_gap_is_told_of_in_many_acks_and_then_no_more() -> None:
    tracker = AckTracker()
    tracker.on_received(0, 0.0, count=10)
    acks = []
    for turn in range(2 * TOLD_ACKS):
        now = 0.01 * turn
        tracker.on_received(20 + turn, now)
        acks.append(tracker.take_ack(now))
    mentions = [(0, 10) in ack.ranges for ack in acks]
    assert mentions == [True] * TOLD_ACKS + [False] * TOLD_ACKS
    assert all(ack.ranges[0][0] == 20 for ack in acks)


def test_a_gap_is_told_of_for_a_while_however_many_acks_go() -> None:
    tracker = AckTracker()
    tracker.on_received(0, 0.0)
    for turn in range(10 * TOLD_ACKS):
        now = TOLD_S * turn / (10 * TOLD_ACKS)
        tracker.on_received(2 + turn, now)
        assert (0, 1) in tracker.take_ack(now).ranges


def test_what_comes_late_into_an_old_gap_is_told_of_anew() -> None:
    tracker = AckTracker()
    tracker.on_received(0, 0.0, count=10)
    for turn in range(2 * TOLD_ACKS):
        tracker.on_received(20 + turn, 0.01 * turn)
        tracker.take_ack(0.01 * turn)
    tracker.on_received(12, 1.0)
    assert tracker.take_ack(1.0).ranges == [(20, 20 + 2 * TOLD_ACKS), (12, 13)]
    # Taken early, an ACK without news repeats what is not old yet.
    assert tracker.take_ack(1.0).ranges == [(20, 20 + 2 * TOLD_ACKS), (12, 13)]
