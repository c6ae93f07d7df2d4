"""The round-trip time of one hop, as its acknowledgements measure it."""

import pytest

from agent.core.acks import GRANULARITY_S, MAX_ACK_DELAY_S
from agent.core.rtt import BUSY_S, INITIAL_RTT_S, RttEstimator

RTT = 0.04


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
    assert rtt.pto() == pytest.approx(rtt.smoothed + 4 * rtt.variance + MAX_ACK_DELAY_S + BUSY_S)


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
    assert rtt.pto() == pytest.approx(RTT + GRANULARITY_S + MAX_ACK_DELAY_S + BUSY_S)
