from hypothesis import given
from hypothesis import strategies as st

from agent.core.allowance import Allowance


def test_a_burst_is_allowed_and_then_so_many_a_second() -> None:
    allowance = Allowance(3, 2.0, 10.0)
    assert [allowance.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.take(10.5) for _ in range(2)] == [True, False]
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    allowance = Allowance(1, 1.0, 10.0)
    assert allowance.take(9.0)
    assert not allowance.take(10.5)
    assert not allowance.take(9.0)
    assert allowance.take(11.0)


@given(st.lists(st.floats(0.0, 2.0), max_size=60))
def test_no_span_sees_more_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    allowance, now, taken = Allowance(4, 3.0, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += allowance.take(now)
    assert taken <= 4 + 3.0 * now + 1e-6
