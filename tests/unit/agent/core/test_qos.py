"""What one end measures about its direction of a link: delay, jitter, loss and bandwidth."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.qos import FLOW_LOWEST_S, LOWEST_S, OWN_QUEUE_S, LinkQos, micros
from agent.core.sent import AckResult, SentRange, SentTrain
from common.limits import MAX_DELAY_S
from common.link_frames import Probe


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


def talk(a: LinkQos, b: LinkQos, begin: float, seconds: float, delay_s: float, *, every_s: float = 0.25) -> None:
    """Let both ends probe for some time, the second between the first one's probes."""
    for turn in range(round(seconds / every_s)):
        now = begin + turn * every_s
        exchange(a, b, now, delay_s)
        exchange(b, a, now + every_s / 2, delay_s)


def acked(rtt_s: float, now: float, size: int = 1_200) -> AckResult:
    """Return what an ACK of one packet changed."""
    train = SentTrain(1, 1, now - rtt_s, size, None, 0, 0.0, 0.0, False)
    return AckResult(acked=[SentRange(train, 1, 2)], newly_acked_bytes=size, rtt_sampled=True)


def test_round_trips_are_smoothed() -> None:
    a, b = LinkQos(), LinkQos()
    exchange(a, b, 1.0, 0.05)
    exchange(b, a, 2.0, 0.05)
    exchange(a, b, 3.0, 0.1)
    exchange(b, a, 4.0, 0.1)
    assert a.rtt_s == pytest.approx(0.1 + 0.1 / 8, abs=1e-5)


def test_the_delay_is_half_the_lowest_round_trip_of_the_last_seconds() -> None:
    a, b = LinkQos(), LinkQos()
    assert a.delay_s is None
    talk(a, b, 0.0, 5.0, 0.01)
    assert a.delay_s == pytest.approx(0.01, abs=1e-5)
    talk(a, b, 5.0, LOWEST_S - 0.5, 0.05)
    assert a.delay_s == pytest.approx(0.01, abs=1e-5)
    talk(a, b, 5.0 + LOWEST_S - 0.5, 1.0, 0.05)
    assert a.delay_s == pytest.approx(0.05, abs=1e-5)


def test_a_probe_a_second_makes_a_delay_of_the_last_few() -> None:
    a, b = LinkQos(), LinkQos()
    talk(a, b, 0.0, 10.0, 0.01, every_s=1.0)
    talk(a, b, 10.0, 3.0, 0.05, every_s=1.0)
    assert a.delay_s == pytest.approx(0.01, abs=1e-5)
    talk(a, b, 13.0, 2.0, 0.05, every_s=1.0)
    assert a.delay_s == pytest.approx(0.05, abs=1e-5)


def test_a_queue_of_a_flow_s_own_is_not_the_link_s_delay() -> None:
    qos = LinkQos()
    for turn in range(400):
        now = qos.flow_at = 0.02 * turn
        rtt_s = 0.02 + (0.0 if turn % 380 == 0 else OWN_QUEUE_S * 0.9)
        qos.on_ack(acked(rtt_s, now), 0.0, now, latest_s=rtt_s, limited=False)
    assert qos.delay_s == pytest.approx(0.01)
    for turn in range(round(FLOW_LOWEST_S / 0.02) + 20):
        now = qos.flow_at = 8.0 + 0.02 * turn
        qos.on_ack(acked(0.04, now), 0.0, now, latest_s=0.04, limited=False)
    assert qos.delay_s == pytest.approx(0.02)


def test_a_path_that_got_much_longer_under_a_flow_is_believed_after_seconds() -> None:
    qos = LinkQos()
    for turn in range(400):
        now = qos.flow_at = 0.02 * turn
        rtt_s = 0.02 if now < 4.5 else 0.1
        qos.on_ack(acked(rtt_s, now), 0.0, now, latest_s=rtt_s, limited=False)
    assert qos.delay_s == pytest.approx(0.05)


def test_the_time_for_which_an_ack_was_held_is_no_delay() -> None:
    qos = LinkQos()
    qos.on_ack(acked(0.024, 1.0), 0.004, 1.0, latest_s=0.024, limited=False)
    assert qos.delay_s == pytest.approx(0.01)
    qos.on_ack(AckResult(), 0.0, 1.1, latest_s=9.9, limited=False)
    assert qos.delay_s == pytest.approx(0.01)


def test_what_flows_measures_the_bandwidth_and_so_does_a_train() -> None:
    qos = LinkQos()
    for turn in range(400):
        now = 0.01 * turn
        qos.on_ack(acked(0.02, now, 12_500), 0.0, now, latest_s=0.02, limited=False)
    assert qos.bandwidth_bps == pytest.approx(10e6, rel=0.05)
    assert qos.bandwidth_at == pytest.approx(4.0, abs=0.3)
    qos.on_bandwidth(5e6, 60.0)
    assert (qos.bandwidth_bps, qos.bandwidth_at) == (5e6, 60.0)


def test_an_echo_that_cannot_be_ours_changes_nothing() -> None:
    qos = LinkQos()
    qos.next_probe(1.0, 0.25, 9)
    for echo_us in (micros(0.5), micros(1.2), micros(9.0)):
        assert not qos.on_probe(Probe(1, echo_us, 0, 1, 0, 250, 9), 2.0)
    assert not qos.on_probe(Probe(1, micros(1.0), 5_000_000, 1, 0, 250, 9), 2.0)
    assert not qos.on_probe(Probe(1, micros(1.0), 0, 1, 0, 250, 9), 2.0 + MAX_DELAY_S)
    assert not qos.on_probe(Probe(1, micros(1.0), 0, 1, 2, 250, 9), 2.0)
    assert (qos.rtt_s, qos.delay_s, qos.jitter_s, qos.loss.share) == (None, None, 0.0, 0.0)


def test_a_steady_delay_has_no_jitter_whatever_the_clocks_say() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(40):
        exchange(a, b, turn * 0.25, 0.02)
        probe = b.next_probe(turn * 0.25 + 0.12, 0.25, 9)
        shifted = Probe(probe.sent_us + 10**12, probe.echo_us, probe.held_us, probe.sent, probe.heard, 250, 9)
        a.on_probe(shifted, turn * 0.25 + 0.14)
    assert a.jitter_s < 1e-5


def test_jitter_is_that_of_the_way_there() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(200):
        exchange(a, b, turn * 0.25, 0.02 + 0.004 * (turn % 2))
        exchange(b, a, turn * 0.25 + 0.1, 0.02)
    assert a.jitter_s == pytest.approx(0.004, rel=0.01)
    assert b.jitter_s < 1e-5


def test_a_peer_s_clock_that_jumps_is_no_jitter() -> None:
    a, b = LinkQos(), LinkQos()
    exchange(a, b, 1.0, 0.01)
    exchange(b, a, 1.5, 0.01)
    exchange(a, b, 2.0, 0.01)
    probe = b.next_probe(2.5, 0.25, 9)
    jumped = Probe(probe.sent_us + 10**9, probe.echo_us, probe.held_us, probe.sent, probe.heard, 250, 9)
    assert not a.on_probe(jumped, 2.51)
    assert a.jitter_s == 0.0


def test_loss_is_that_of_the_way_there() -> None:
    a, b = LinkQos(), LinkQos()
    for turn in range(400):
        exchange(a, b, turn * 0.25, 0.01, lost=turn % 4 == 0)
        exchange(b, a, turn * 0.25 + 0.1, 0.01)
    assert a.loss.share == pytest.approx(0.25, abs=0.01)
    assert b.loss.share == 0.0


def test_probes_that_are_under_way_are_no_loss() -> None:
    a, b = LinkQos(), LinkQos()
    under_way: list[Probe] = []
    for turn in range(100):
        under_way.append(a.next_probe(turn * 0.05, 0.05, 9))
        if len(under_way) > 6:
            b.on_probe(under_way.pop(0), turn * 0.05 + 0.01)
        exchange(b, a, turn * 0.05 + 0.02, 0.3)
    assert a.loss.share == 0.0


def test_an_older_echo_that_comes_late_takes_nothing_back() -> None:
    a, b = LinkQos(), LinkQos()
    exchange(a, b, 1.0, 0.01)
    early = b.next_probe(1.1, 0.25, 9)
    exchange(a, b, 1.2, 0.01)
    exchange(b, a, 1.3, 0.01)
    assert a.on_probe(early, 1.4)
    exchange(a, b, 1.5, 0.01)
    exchange(b, a, 1.6, 0.01)
    assert a.loss.share == 0.0


@given(
    st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), *[st.integers(0, 0xFFFFFFFF)] * 3))
)
def test_no_claim_of_the_peer_leads_out_of_bounds(claims: list[tuple[int, int, int, int, int]]) -> None:
    qos = LinkQos()
    for turn, (sent_us, echo_us, held_us, sent, heard) in enumerate(claims):
        own = qos.next_probe(turn * 0.25, 0.25, 9)
        for echo in (echo_us, own.sent_us):
            qos.on_probe(Probe(sent_us, echo, held_us, sent, heard, 250, 9), turn * 0.25)
        assert 0.0 <= qos.loss.share <= 1.0
        assert qos.rtt_s is None or 0.0 <= qos.rtt_s <= MAX_DELAY_S
        assert 0.0 <= qos.jitter_s <= MAX_DELAY_S
        assert not math.isnan(qos.jitter_s)


def test_a_clock_reading_is_never_zero() -> None:
    assert micros(0.0) == 1
