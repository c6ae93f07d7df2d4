"""The three repeat tests, each against a plain set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.window import MIN_WINDOW, BitmapWindow, LastNumber, RepeatTest

# Steps forward from the highest number and looks back below it, some of them past the whole window.
steps = st.lists(
    st.one_of(
        st.integers(-40, 40),
        st.integers(-MIN_WINDOW - 20, -MIN_WINDOW + 20),
        st.integers(MIN_WINDOW - 20, 3 * MIN_WINDOW),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([MIN_WINDOW, MIN_WINDOW + 1, 5000]))
def test_a_window_knows_each_number_inside_it_and_repeats_all_below(moves: list[int], size: int) -> None:
    window = BitmapWindow(size)
    marked: set[int] = set()
    for move in moves:
        top = max(marked, default=-1)
        number = max(top + move, 0)
        for probe in (number, max(number - 1, 0), number + 1, max(top - size, 0), max(top - size + 1, 0)):
            assert window.seen(probe) == (probe in marked or probe <= top - size)
        window.mark(number)
        if number > top - size:
            marked.add(number)


def test_a_window_marks_each_number_of_a_long_run_once() -> None:
    window = BitmapWindow()
    for number in range(3 * MIN_WINDOW):
        assert not window.seen(number)
        window.mark(number)
        assert window.seen(number)


def test_a_number_below_the_window_is_not_marked_over_one_inside_it() -> None:
    window = BitmapWindow()
    window.mark(2 * MIN_WINDOW)
    window.mark(MIN_WINDOW)
    window.mark(3)
    assert [number for number in range(2 * MIN_WINDOW + 20) if number > MIN_WINDOW and window.seen(number)] == [
        2 * MIN_WINDOW
    ]


def test_a_window_below_the_least_size_is_refused() -> None:
    with pytest.raises(ValueError, match="4096"):
        BitmapWindow(MIN_WINDOW - 1)


def test_m7_reordered_first_copies_pass_the_window_but_not_the_literal_rule() -> None:
    tests: list[RepeatTest] = [BitmapWindow(), LastNumber()]
    passed: list[list[int]] = []
    for test in tests:
        fresh = []
        for number in (1, 3, 2, 3, 5, 4, 1):
            if not test.seen(number):
                fresh.append(number)
                test.mark(number)
        passed.append(fresh)
    assert passed == [[1, 3, 2, 5, 4], [1, 3, 5]]


def test_the_literal_rule_never_goes_back() -> None:
    test = LastNumber()
    assert not test.seen(0)
    test.mark(7)
    test.mark(3)
    assert test.last == 7
    assert test.seen(7)
    assert not test.seen(8)
