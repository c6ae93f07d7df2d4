import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.limits import MAX_DELAY_S, MAX_RATE_BPS
from server.core.planner import RELATIVE_MARGIN
from server.core.weight import worth_bps

RATE = 100e6


def test_a_clean_short_link_is_worth_its_rate() -> None:
    assert worth_bps(RATE, 0.0, None) == RATE
    assert worth_bps(RATE, 0.0, 0.0) == RATE
    assert worth_bps(RATE, 0.0, 0.001) == RATE


@pytest.mark.parametrize(("loss", "left"), [(0.001, 0.99), (0.01, 0.95), (0.05, 0.475), (0.1, 0.18), (1.0, 0.0)])
def test_loss_costs_a_link_more_than_what_is_lost(loss: float, left: float) -> None:
    assert worth_bps(RATE, loss, None) == pytest.approx(left * RATE, rel=0.01, abs=1.0)


@pytest.mark.parametrize("delay_s", [0.001, 0.005, 0.01, 0.02, 0.05, 0.1])
def test_five_times_the_delay_is_just_beyond_the_margin_and_never_outweighs_much_rate(delay_s: float) -> None:
    ratio = worth_bps(RATE, 0.0, delay_s) / worth_bps(RATE, 0.0, 5 * delay_s)
    assert 1 + RELATIVE_MARGIN < ratio < 1.35
    assert worth_bps(2.5 * RATE, 0.0, 100 * delay_s) > worth_bps(RATE, 0.0, delay_s)


@given(st.floats(0, MAX_RATE_BPS), st.floats(0, 1), st.none() | st.floats(0, 2 * MAX_DELAY_S))
def test_nothing_makes_a_link_worth_more_than_its_rate(rate_bps: float, loss: float, delay_s: float | None) -> None:
    assert 0 <= worth_bps(rate_bps, loss, delay_s) <= rate_bps


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_more_loss_and_more_delay_never_help(loss: float, other: float, delay_s: float, longer: float) -> None:
    better = worth_bps(RATE, min(loss, other), min(delay_s, longer))
    assert worth_bps(RATE, max(loss, other), max(delay_s, longer)) <= better
