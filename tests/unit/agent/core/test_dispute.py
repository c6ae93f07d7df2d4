"""Chunks in dispute: from whom they are taken, and who is asked next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.dispute import FIRST_PAUSE_S, LONGEST_PAUSE_S, Dispute
from agent.core.rangeset import RangeSet


def test_what_is_in_dispute_is_taken_of_nobody_until_somebody_is_asked() -> None:
    dispute = Dispute(4, 7)
    assert not dispute.admits("B", 4, 5)
    assert dispute.turn_to(["B", "C"], 10.0) == "B"
    assert dispute.admits("B", 4, 7)
    assert not dispute.admits("C", 4, 7)
    dispute.refuted()
    assert not dispute.admits("B", 4, 7)


@pytest.mark.parametrize(
    ("start", "stop", "admitted"),
    [
        (1, 4, True),
        (1, 5, False),
        (3, 9, False),
        (4, 7, False),
        (5, 6, False),
        (6, 9, False),
        (7, 9, True),
        (9, 12, True),
    ],
)
def test_a_run_that_has_nothing_of_it_is_taken_of_anybody(start: int, stop: int, admitted: bool) -> None:
    assert Dispute(4, 7).admits("C", start, stop) is admitted


def test_peers_are_asked_one_after_the_other_and_none_twice_in_a_round() -> None:
    dispute = Dispute(4, 7)
    asked = []
    for _ in range(3):
        asked.append(dispute.turn_to(["B", "C", "D"], 10.0))
        assert dispute.asked == asked[-1]
        dispute.refuted()
    assert asked == ["B", "C", "D"]


def test_who_is_best_now_is_asked_first_unless_it_failed() -> None:
    dispute = Dispute(4, 7)
    assert dispute.turn_to(["B", "C"], 10.0) == "B"
    assert dispute.turn_to(["D", "B", "C"], 10.0) == "D"
    assert dispute.turn_to(["D", "B", "C"], 10.0) == "C"


def test_a_peer_that_is_turned_to_begins_with_nothing_asked_of_it() -> None:
    dispute = Dispute(4, 7)
    assert (dispute.asked, dispute.moved_at) == (None, 0.0)
    dispute.turn_to(["B"], 10.0)
    assert (dispute.asked, dispute.moved_at) == ("B", 10.0)
    dispute.outstanding = RangeSet([(4, 7)])
    dispute.refuted()
    assert dispute.asked is None
    assert not dispute.outstanding


def test_when_all_have_failed_there_is_a_pause_and_then_they_are_asked_again() -> None:
    dispute = Dispute(4, 7)
    assert dispute.turn_to(["B"], 10.0) == "B"
    dispute.refuted()
    assert dispute.turn_to(["B"], 10.0) is None
    assert dispute.asked is None
    assert dispute.turn_to(["B", "C"], 10.0 + FIRST_PAUSE_S * 0.9) is None, "the pause is for all"
    assert dispute.turn_to(["B", "C"], 10.0 + FIRST_PAUSE_S) == "B"


@given(st.integers(0, 3), st.integers(1, 20))
def test_pauses_grow_up_to_the_longest(peers: int, rounds: int) -> None:
    dispute, names = Dispute(4, 7), ["B", "C", "D"][:peers]
    now, pause = 10.0, FIRST_PAUSE_S
    for _ in range(rounds):
        assert [dispute.turn_to(names, now) for _ in names] == names
        assert dispute.turn_to(names, now) is None
        assert dispute.turn_to(names, now + pause - 0.001) is None
        now, pause = now + pause, min(LONGEST_PAUSE_S, 2 * pause)
