"""What is missing of one stream: what has stalled, and what was asked of whom."""

from agent.core.gaps import Gaps
from agent.core.rangeset import RangeSet

PATIENCE_S = 0.25


def spans(*ranges: tuple[int, int]) -> RangeSet:
    return RangeSet(ranges)


def stalled(gaps: Gaps, missing: RangeSet, now: float, last: int | None = 50) -> list[tuple[int, int]]:
    return gaps.stalled(missing, last, now, PATIENCE_S).ranges()


def test_what_is_missing_at_two_looks_a_patience_apart_has_stalled() -> None:
    gaps, missing = Gaps(), spans((3, 5), (8, 9))
    assert stalled(gaps, missing, 10.0) == []
    assert stalled(gaps, missing, 10.1) == []
    assert stalled(gaps, missing, 10.25) == [(3, 5), (8, 9)]


def test_what_is_missing_at_the_second_look_alone_has_not() -> None:
    gaps = Gaps()
    stalled(gaps, spans((3, 5)), 10.0)
    assert stalled(gaps, spans((3, 5), (8, 9)), 10.25) == [(3, 5)]


def test_nothing_has_stalled_while_the_first_of_it_still_comes() -> None:
    gaps = Gaps()
    stalled(gaps, spans((3, 9)), 10.0)
    assert stalled(gaps, spans((5, 9)), 10.25) == []
    assert stalled(gaps, spans((5, 9)), 10.5) == [(5, 9)]


def test_what_lies_behind_the_last_that_came_of_itself_is_given_time_while_more_comes() -> None:
    gaps, missing = Gaps(), spans((3, 5), (60, 99))
    gaps.note_missing(spans((3, 5), (50, 99)), 10.0)
    stalled(gaps, missing, 10.0)
    gaps.note_missing(missing, 10.1)
    assert stalled(gaps, missing, 10.25, last=59) == [(3, 5)]
    assert stalled(gaps, missing, 10.25 + PATIENCE_S, last=59) == [(3, 5), (60, 99)]


def test_what_was_asked_for_or_is_pulled_does_not_stall() -> None:
    gaps = Gaps()
    gaps.ask("B", spans((3, 5)), 10.0)
    gaps.pulled = spans((8, 9))
    for now in (10.0, 10.25, 10.5):
        assert stalled(gaps, spans((3, 5), (8, 9)), now) == []


def test_a_look_anew_takes_nothing_for_stalled_that_was_missing_before() -> None:
    gaps, missing = Gaps(), spans((3, 5))
    stalled(gaps, missing, 10.0)
    gaps.look_anew()
    assert stalled(gaps, missing, 10.25) == []
    assert stalled(gaps, missing, 10.5) == [(3, 5)]


def test_what_comes_is_no_longer_outstanding_and_who_answered_all_is_told() -> None:
    gaps = Gaps()
    gaps.ask("B", spans((1, 3)), 10.0)
    gaps.ask("C", spans((3, 6)), 10.0)
    assert gaps.note_missing(spans((1, 9)), 10.0) == []
    assert gaps.note_missing(spans((1, 9)), 10.1) == []
    assert gaps.note_missing(spans((4, 9)), 10.2) == ["B"]
    assert gaps.outstanding().ranges() == [(4, 6)]
    assert gaps.asked["C"].moved_at == 10.2


def test_who_has_not_answered_since_is_silent_and_more_that_is_asked_is_a_new_beginning() -> None:
    gaps = Gaps()
    gaps.note_missing(spans((1, 9)), 10.0)
    gaps.ask("B", spans((1, 3)), 10.0)
    gaps.ask("C", spans((3, 5)), 10.0)
    gaps.note_missing(spans((1, 4), (5, 9)), 10.1)
    assert gaps.silent(10.0) == ["B"]
    assert gaps.silent(9.9) == []
    gaps.ask("B", spans((7, 8)), 10.2)
    assert gaps.silent(10.1) == ["C"]
    assert gaps.asked["B"].numbers.ranges() == [(1, 3), (7, 8)]


def test_what_another_is_asked_for_is_expected_of_nobody_else() -> None:
    gaps = Gaps()
    gaps.ask("B", spans((1, 3)), 10.0)
    gaps.ask("C", spans((3, 9)), 10.0)
    assert gaps.ask_elsewhere("D", spans((1, 5))) == ["B"]
    assert gaps.asked["C"].numbers.ranges() == [(5, 9)]
    assert gaps.ask_elsewhere("C", spans((5, 9))) == ["B"]
    assert gaps.asked["C"].numbers.ranges() == [(5, 9)]
