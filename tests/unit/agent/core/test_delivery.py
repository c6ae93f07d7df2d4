"""The bandwidth of a link while data flows."""

import pytest

from agent.core.delivery import PAUSE_S, WINDOWS, DeliveryMeter

RTT_S = 0.02


class Flow:
    """Acknowledgements of what flows, one every 5 ms."""

    def __init__(self) -> None:
        self.meter = DeliveryMeter()
        self.now = 100.0
        self.measured = 0

    def run(self, seconds: float, rate_bps: float, *, limited: float = 0.0, bunch: int = 1) -> None:
        """Let data flow; for a share of each second something else than the path is the limit."""
        for turn in range(round(seconds / 0.005)):
            self.now += 0.005
            if turn % bunch:
                continue
            size = round(bunch * 0.005 * rate_bps / 8)
            held = self.now % 1.0 < limited
            self.measured += self.meter.on_ack(size, self.now - RTT_S, self.now, limited=held)


def test_a_flow_that_the_path_limits_measures_it() -> None:
    flow = Flow()
    flow.run(2.0, 50e6)
    assert flow.meter.rate_bps == pytest.approx(50e6, rel=0.03)
    assert flow.measured


def test_acknowledgements_in_bunches_make_no_rate_that_never_was() -> None:
    flow = Flow()
    flow.run(6.0, 50e6, bunch=10)
    assert flow.meter.rate_bps == pytest.approx(50e6, rel=0.25)


def test_a_flow_that_something_else_limits_says_nothing_of_an_unknown_path() -> None:
    flow = Flow()
    flow.run(3.0, 1e6, limited=1.0)
    assert flow.meter.rate_bps is None


def test_a_flow_that_something_else_limits_raises_a_rate_and_never_lowers_it() -> None:
    flow = Flow()
    flow.run(2.0, 20e6)
    flow.run(3.0, 1e6, limited=1.0)
    assert flow.meter.rate_bps == pytest.approx(20e6, rel=0.03)
    flow.run(1.0, 40e6, limited=1.0)
    assert flow.meter.rate_bps == pytest.approx(40e6, rel=0.03)


def test_moments_in_which_something_else_limits_a_flow_do_not_spoil_a_window() -> None:
    flow = Flow()
    flow.run(3.0, 20e6, limited=0.03)
    assert flow.meter.rate_bps == pytest.approx(20e6, rel=0.03)


def test_a_rate_that_falls_is_believed_after_a_second_and_one_that_rises_at_once() -> None:
    flow = Flow()
    flow.run(3.0, 100e6)
    flow.run(0.25 * (WINDOWS - 1), 10e6)
    assert flow.meter.rate_bps == pytest.approx(100e6, rel=0.03)
    flow.run(0.7, 10e6)
    assert flow.meter.rate_bps == pytest.approx(10e6, rel=0.1)
    flow.run(0.6, 100e6)
    assert flow.meter.rate_bps == pytest.approx(100e6, rel=0.1)


def test_a_rate_that_a_train_measured_is_lowered_only_by_a_second_of_a_flow() -> None:
    flow = Flow()
    flow.meter.rate_bps = 50e6
    flow.run(0.8, 5e6)
    assert flow.meter.rate_bps == 50e6
    flow.run(0.8, 5e6)
    assert flow.meter.rate_bps == pytest.approx(5e6, rel=0.1)


def test_a_pause_is_no_part_of_a_rate() -> None:
    flow = Flow()
    flow.run(2.0, 20e6)
    flow.now += 10 * PAUSE_S
    flow.run(2.0, 20e6)
    assert flow.meter.rate_bps == pytest.approx(20e6, rel=0.05)
