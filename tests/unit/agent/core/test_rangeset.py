"""RangeSet against a plain set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.rangeset import RangeSet

# Few numbers, so that ranges meet, touch and swallow each other all the time.
numbers = st.integers(0, 40)
spans = st.tuples(numbers, numbers)
plain_sets = st.sets(numbers)


def ranges_of(plain: set[int]) -> list[tuple[int, int]]:
    """Give the ranges a set of numbers has to be held as."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(plain):
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return ranges


def build(plain: set[int]) -> RangeSet:
    return RangeSet((number, number + 1) for number in plain)


class RangeSetMachine(RuleBasedStateMachine):
    """Every change of a RangeSet, beside the same change of a set."""

    def __init__(self) -> None:
        super().__init__()
        self.tested = RangeSet()
        self.model: set[int] = set()

    @rule(number=numbers)
    def add(self, number: int) -> None:
        assert self.tested.add(number) == (number not in self.model)
        self.model.add(number)

    @rule(span=spans)
    def add_range(self, span: tuple[int, int]) -> None:
        new = set(range(*span)) - self.model
        assert self.tested.add_range(*span) == len(new)
        self.model |= new

    @rule(span=spans)
    def remove_range(self, span: tuple[int, int]) -> None:
        gone = set(range(*span)) & self.model
        assert self.tested.remove_range(*span) == len(gone)
        self.model -= gone

    @rule(number=numbers)
    def discard(self, number: int) -> None:
        assert self.tested.discard(number) == (number in self.model)
        self.model.discard(number)

    @rule(other=plain_sets)
    def union_update(self, other: set[int]) -> None:
        self.tested.union_update(build(other))
        self.model |= other

    @rule(other=plain_sets)
    def difference_update(self, other: set[int]) -> None:
        self.tested.difference_update(build(other))
        self.model -= other

    @rule()
    def pop_first(self) -> None:
        if self.model:
            lowest = min(self.model)
            assert self.tested.pop_first() == lowest
            self.model.remove(lowest)
        else:
            with pytest.raises(KeyError):
                self.tested.pop_first()

    @rule(count=st.integers(-1, 20))
    def take(self, count: int) -> None:
        lowest = set(sorted(self.model)[: max(count, 0)])
        assert self.tested.take(count) == ranges_of(lowest)
        self.model -= lowest

    @rule(count=st.integers(1, 4))
    def keep_last(self, count: int) -> None:
        self.tested.keep_last(count)
        kept = ranges_of(self.model)[-count:]
        self.model = {number for span in kept for number in range(*span)}

    @invariant()
    def holds_the_same(self) -> None:
        ranges = ranges_of(self.model)
        assert list(self.tested) == ranges
        assert len(self.tested) == len(self.model)
        assert bool(self.tested) == bool(self.model)
        assert self.tested.spans() == len(ranges)
        assert self.tested.first() == min(self.model, default=None)
        assert self.tested.last() == max(self.model, default=None)
        assert [number for number in range(-1, 43) if number in self.tested] == sorted(self.model)


TestRangeSetAgainstASet = RangeSetMachine.TestCase


@given(plain_sets, plain_sets)
def test_two_sets_combine_as_plain_sets_do(one: set[int], other: set[int]) -> None:
    mine, theirs = build(one), build(other)
    assert list(mine.intersection(theirs)) == ranges_of(one & other)
    assert list(mine.difference(theirs)) == ranges_of(one - other)
    assert len(mine.intersection(theirs)) == len(one & other)
    assert (mine == theirs) == (one == other)
    assert list(mine) == ranges_of(one)
    assert list(theirs) == ranges_of(other)


@given(plain_sets, spans)
def test_missing_gives_the_gaps_inside(plain: set[int], span: tuple[int, int]) -> None:
    gaps = build(plain).missing(*span)
    assert list(gaps) == ranges_of(set(range(*span)) - plain)
    assert len(gaps) == len(set(range(*span)) - plain)


@given(plain_sets, numbers, st.integers(1, 45))
def test_until_tells_what_a_number_is_and_up_to_where_that_stays_so(plain: set[int], number: int, length: int) -> None:
    stop = number + length
    expected = number
    while expected < stop and (expected in plain) == (number in plain):
        expected += 1
    assert build(plain).until(number, stop) == (number in plain, expected)


@given(plain_sets)
def test_the_runs_of_until_are_the_ranges_and_the_gaps_between_them(plain: set[int]) -> None:
    tested, at = build(plain), 0
    found: list[tuple[int, int]] = []
    while at < 42:
        held, stop = tested.until(at, 42)
        assert stop > at
        if held:
            found.append((at, stop))
        at = stop
    assert found == ranges_of(plain)


@given(plain_sets, numbers, st.integers(1, 40))
def test_past_missing_gives_how_far_so_many_missing_numbers_reach(plain: set[int], start: int, count: int) -> None:
    expected = start
    while len(set(range(start, expected)) - plain) < count:
        expected += 1
    assert build(plain).past_missing(start, count) == expected


@given(plain_sets)
def test_the_first_span_is_the_lowest_range(plain: set[int]) -> None:
    assert build(plain).first_span() == next(iter(ranges_of(plain)), None)


@given(plain_sets, st.integers(0, 5))
def test_newest_gives_the_highest_ranges_first(plain: set[int], count: int) -> None:
    assert build(plain).newest(count) == ranges_of(plain)[::-1][:count]


@given(plain_sets)
def test_a_set_may_be_combined_with_itself(plain: set[int]) -> None:
    tested = build(plain)
    tested.union_update(tested)
    assert list(tested) == ranges_of(plain)
    tested.difference_update(tested)
    assert not tested
    assert len(tested) == 0


def test_a_copy_lives_on_its_own() -> None:
    tested = RangeSet([(1, 4)])
    twin = tested.copy()
    assert twin == tested
    twin.add(9)
    twin.discard(2)
    assert list(tested) == [(1, 4)]
    assert list(twin) == [(1, 2), (3, 4), (9, 10)]
    assert len(twin) == 3


def test_an_emptied_difference_does_not_share_state_with_the_other() -> None:
    tested = RangeSet([(0, 10)])
    other = RangeSet([(3, 5)])
    tested.difference_update(other)
    tested.add_range(0, 20)
    assert list(other) == [(3, 5)]


def test_a_set_equals_only_another_set_and_shows_its_ranges() -> None:
    tested = RangeSet([(5, 7), (1, 2), (2, 2)])
    assert tested != [(1, 2), (5, 7)]
    assert repr(tested) == "RangeSet([(1, 2), (5, 7)])"
