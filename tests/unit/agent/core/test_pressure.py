"""Whether window, pacer, or the sender itself was the limit."""

import pytest

from agent.core.pressure import PACED_SHARE, Pressure

PACKET = 1_200
WINDOW = 10 * PACKET
RATE = 1_000_000.0


def round_of(pressure: Pressure, *, sent: float, in_flight: int) -> bool:
    """Let a round of a tenth of a second pass; return whether the path was its limit."""
    pressure.on_time(1.0, RATE)
    pressure.end_round()
    pressure.on_sent(int(sent))
    pressure.on_flight(in_flight, WINDOW, PACKET)
    pressure.on_time(1.1, RATE)
    pressure.end_round()
    return pressure.limited_by_path


def test_a_first_round_counts_as_limited_by_the_path() -> None:
    assert Pressure().limited_by_path


@pytest.mark.parametrize(("in_flight", "limited"), [(WINDOW - PACKET, False), (WINDOW - PACKET + 1, True)])
def test_a_full_window_is_a_limit_of_the_path(in_flight: int, limited: bool) -> None:
    assert round_of(Pressure(), sent=0, in_flight=in_flight) is limited


@pytest.mark.parametrize(("share", "limited"), [(PACED_SHARE - 0.01, False), (PACED_SHARE + 0.01, True)])
def test_a_rate_used_up_is_a_limit_of_the_path(share: float, limited: bool) -> None:
    assert round_of(Pressure(), sent=share * 0.1 * RATE, in_flight=0) is limited


def test_every_round_is_judged_by_itself() -> None:
    pressure = Pressure()
    assert round_of(pressure, sent=RATE, in_flight=WINDOW)
    pressure.on_time(1.2, RATE)
    pressure.end_round()
    assert not pressure.limited_by_path
