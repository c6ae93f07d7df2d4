"""How much is acknowledged at once beyond what the bandwidth explains."""

import pytest

from agent.core.bunching import HALF_ROUNDS, MAX_BUNCH_S, Bunching

BANDWIDTH = 1e6
WINDOW = 100_000


def test_acks_at_the_bandwidth_are_bunched_by_no_more_than_one() -> None:
    bunching = Bunching()
    for step in range(1, 100):
        bunching.on_ack(step * 0.005, 5_000, BANDWIDTH, WINDOW)
    assert bunching.bytes(BANDWIDTH) <= 5_001


def test_a_bunch_counts_for_two_halves_of_the_filter() -> None:
    bunching = Bunching()
    for step in range(4):
        bunching.on_ack(1.0 + step * 0.001, 10_000, BANDWIDTH, WINDOW)
    assert bunching.bytes(BANDWIDTH) == pytest.approx(37_000)
    for _ in range(2 * HALF_ROUNDS - 1):
        bunching.end_round()
        assert bunching.bytes(BANDWIDTH) == pytest.approx(37_000)
    bunching.end_round()
    assert bunching.bytes(BANDWIDTH) == 0


def test_a_bunch_is_bounded_by_the_window_and_by_time() -> None:
    bunching = Bunching()
    bunching.on_ack(1.0, 500_000, BANDWIDTH, WINDOW)
    assert bunching.bytes(BANDWIDTH) == WINDOW
    assert bunching.bytes(1_000.0) == MAX_BUNCH_S * 1_000


def test_what_came_before_an_idle_time_is_no_part_of_a_bunch() -> None:
    bunching = Bunching()
    bunching.on_ack(1.0, 10_000, BANDWIDTH, WINDOW)
    bunching.restart(1.0)
    bunching.on_ack(1.0, 10_000, BANDWIDTH, WINDOW)
    assert bunching.bytes(BANDWIDTH) == 10_000
