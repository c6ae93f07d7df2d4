"""What a link's probes measure: round trips, jitter and loss."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.qos import LinkQos, micros
from common.frames import Probe


def exchange(one: LinkQos, other: LinkQos, now: float, delay_s: float, *, lost: bool = False) -> None:
    """Send a probe from one end to the other."""
    probe = one.next_probe(now, 0.25, 9)
    if not lost:
        other.on_probe(probe, now + delay_s)


def test_a_probe_echoes_the_last_one_heard_and_says_how_long_that_is_ago() -> None:
    qos = LinkQos()
    first = qos.next_probe(1.0, 0.25, 9)
    assert (first.echo_us, first.held_us, first.sent, first.heard, first.next_ms, first.epoch) == (0, 0, 1, 0, 250, 9)
    qos.on_probe(Probe(77, 0, 0, 1, 0, 250, 9), 2.0)
    second = qos.next_probe(2.5, 1.0, 9)
    assert (second.echo_us, second.held_us, second.sent, second.heard, second.next_ms) == (77, 500_000, 2, 1, 1_000)


def test_figures_that_pass_their_fields_are_written_as_the_most_that_fits() -> None:
    qos = LinkQos()
    qos.on_probe(Probe(77, 0, 0, 1, 0, 250, 9), 0.0)
    probe = qos.next_probe(10_000.0, 1e6, 9)
    assert probe.held_us == 0xFFFFFFFF
    assert probe.next_ms == 0xFFFF


def test_the_round_trip_leaves_out_the_time_for_which_the_probe_was_held() -> None:
    a, b = LinkQos(), LinkQos()
    exchange(a, b, 100.0, 0.02)
    exchange(b, a, 100.5, 0.03)
    assert a.rtt_s == pytest.approx(0.05, abs=1e-5)
    assert b.rtt_s is None


def test_round_trips_are_smoothed() -> None:
    qos = LinkQos()
    qos.on_probe(Probe(1, micros(0.9), 0, 1, 0, 250, 9), 1.0)
    qos.on_probe(Probe(1, micros(1.8), 0, 2, 0, 250, 9), 2.0)
    assert qos.rtt_s == pytest.approx(0.1 + 0.1 / 8, abs=1e-5)


def test_an_echo_from_the_future_is_no_round_trip() -> None:
    qos = LinkQos()
    qos.on_probe(Probe(1, micros(5.0), 0, 1, 0, 250, 9), 1.0)
    assert qos.rtt_s is None


def test_a_steady_delay_has_no_jitter_whatever_the_clocks_say() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(20):
        exchange(a, b, 5_000.0 + turn * 0.25, 0.02)
    assert b.jitter_s < 1e-5


def test_jitter_is_the_smoothed_difference_of_transit_times() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(200):
        exchange(a, b, turn * 0.25, 0.02 + 0.004 * (turn % 2))
    assert b.jitter_s == pytest.approx(0.004, rel=0.01)


def test_loss_is_told_once_enough_probes_were_sent() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(400):
        exchange(a, b, turn * 0.25, 0.01, lost=turn % 4 == 0)
        exchange(b, a, turn * 0.25 + 0.1, 0.01)
    assert a.loss == pytest.approx(0.25, abs=0.05)
    assert b.loss == 0.0


def test_a_probe_that_is_under_way_is_not_a_loss() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(50):
        probe = a.next_probe(turn * 0.25, 0.25, 9)
        exchange(b, a, turn * 0.25 + 0.001, 0.01)
        b.on_probe(probe, turn * 0.25 + 0.2)
    assert a.loss == 0.0


@given(
    st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), *[st.integers(0, 0xFFFFFFFF)] * 3))
)
def test_no_claim_of_the_peer_leads_out_of_bounds(claims: list[tuple[int, int, int, int, int]]) -> None:
    qos = LinkQos()
    for turn, (sent_us, echo_us, held_us, sent, heard) in enumerate(claims):
        qos.on_probe(Probe(sent_us, echo_us, held_us, sent, heard, 250, 9), turn * 0.25)
        for _ in range(5):
            qos.next_probe(turn * 0.25, 0.25, 9)
        assert 0.0 <= qos.loss <= 1.0
        assert qos.rtt_s is None or 0.0 <= qos.rtt_s < math.inf
        assert 0.0 <= qos.jitter_s < math.inf


def test_a_clock_reading_is_never_zero() -> None:
    assert micros(0.0) == 1
