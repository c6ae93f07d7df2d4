"""The congestion controller: on its own, and with recovery and pacer over a little link."""

import pytest

from agent.core.congestion import (
    CYCLE_GAINS,
    MAX_INITIAL_WINDOW_BYTES,
    MAX_WINDOW_BYTES,
    MIN_RATE_PACKETS_S,
    STARTUP_GAIN,
    ModelController,
    Phase,
)
from agent.core.rtt import RttEstimator
from agent.core.sent import AckResult
from tests.unit.agent.core.shared_link import MBIT, PACKET, Bottleneck, CubicFlow, OurFlow, run


class Path(OurFlow):
    """A hop alone on its link."""

    def __init__(self, link: Bottleneck, controller: ModelController, *, stall_s: float = 0.0) -> None:
        super().__init__(link, controller, stall_s=stall_s, seed=link.seed)
        self.now = 0.0

    def run(self, until: float) -> float:
        """Let time pass and return the bytes per second that arrived meanwhile."""
        began, self.now = self.now, until
        return run([self], began, until)[0]


def path(
    rate_mbit: float,
    rtt: float,
    loss: float = 0.0,
    seed: int = 1,
    cap_mbit: float | None = None,
    *,
    buffer_s: float = 0.0,
    stall_s: float = 0.0,
) -> Path:
    link = Bottleneck(rate_mbit * MBIT, rtt, queue_bytes=buffer_s * rate_mbit * MBIT, loss=loss, seed=seed)
    cap = None if cap_mbit is None else cap_mbit * MBIT
    return Path(link, ModelController(packet_bytes=PACKET, max_rate_bytes_s=cap), stall_s=stall_s)


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("rtt", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("rate_mbit", [1.0, 10.0, 100.0])
def test_a_link_is_used_at_any_rate_delay_and_random_loss(rate_mbit: float, rtt: float, loss: float) -> None:
    tested = path(rate_mbit, rtt, loss)
    warm = 0.3 + 15 * rtt
    tested.run(warm)
    arrived = tested.run(warm + max(10 * rtt, 2_500 * PACKET / tested.link.rate))
    assert arrived >= (0.85 if loss < 0.05 else 0.7) * tested.link.rate
    # What the path holds with its queue full, twice, and the bunch that one ACK may cover.
    holds = tested.link.rate * tested.link.rtt + tested.link.queue_bytes
    assert tested.most_in_flight <= 2 * holds + 64 * PACKET


@pytest.mark.parametrize("seed", range(3))
def test_ten_percent_of_random_loss_does_not_collapse_the_rate(seed: int) -> None:
    tested = path(20, 0.02, loss=0.1, seed=seed)
    tested.run(1.0)
    assert tested.run(8.0) >= 0.7 * tested.link.rate


def test_a_path_that_shrinks_to_a_tenth_is_believed_and_one_that_grows_is_found() -> None:
    tested = path(50, 0.02)
    tested.run(1.5)
    tested.link.rate = 5 * MBIT
    tested.run(4.0)
    assert tested.controller.bandwidth_bytes_s == pytest.approx(5 * MBIT, rel=0.15)
    assert tested.recovery.rtt.smoothed < 0.08
    tested.link.rate = 50 * MBIT
    tested.run(7.5)
    assert tested.run(8.5) >= 0.85 * tested.link.rate


@pytest.mark.parametrize("cap_mbit", [3.0, 30.0])
def test_a_capped_rate_is_held_within_five_percent_and_never_exceeded(cap_mbit: float) -> None:
    tested = path(100, 0.02, cap_mbit=cap_mbit)
    tested.run(1.0)
    assert 0.95 * cap_mbit * MBIT <= tested.run(4.0) <= 1.001 * cap_mbit * MBIT
    assert tested.controller.rate_bytes_s <= cap_mbit * MBIT


def test_the_round_trip_is_looked_for_again_after_ten_seconds() -> None:
    tested = path(5, 0.02)
    tested.run(5.0)
    # The path gets longer: no sample is as low as the old one any more.
    tested.link.rtt = 0.06
    controller = tested.controller
    phases: list[Phase] = []
    while tested.now < 17:
        tested.run(tested.now + 0.01)
        if not phases or phases[-1] is not controller.phase:
            phases.append(controller.phase)
    # Where it had held the path for a shorter one, it may find more than it knew, and search.
    assert phases[:2] == [Phase.CRUISE, Phase.PROBE_RTT]
    assert phases.count(Phase.PROBE_RTT) == 1
    assert controller.min_rtt == pytest.approx(0.06, rel=0.1)
    assert tested.run(19.0) >= 0.85 * tested.link.rate


def test_a_trickle_never_lowers_what_was_measured() -> None:
    tested = path(20, 0.02)
    tested.run(2.0)
    measured = tested.controller.bandwidth_bytes_s
    assert measured == pytest.approx(20 * MBIT, rel=0.1)
    tested.backlog = 0
    for step in range(1_000):
        # One packet every 20 ms, for 20 s.
        tested.backlog += 1
        tested.run(2.0 + (step + 1) * 0.02)
    assert tested.controller.bandwidth_bytes_s >= 0.99 * measured


def test_a_limited_sample_may_raise_the_bandwidth() -> None:
    controller = ModelController(initial_rate_bytes_s=1_000.0)
    rtt = RttEstimator()
    rtt.update(0.01)
    low = AckResult(newly_acked_bytes=1, rtt_sampled=True, delivered=1, delivery_rate=500.0, app_limited=True)
    controller.on_ack(1.0, low, rtt, 0)
    assert controller.bandwidth_bytes_s == 1_000.0
    high = AckResult(newly_acked_bytes=1, delivered=2, prior_delivered=1, delivery_rate=9_000.0, app_limited=True)
    controller.on_ack(1.1, high, rtt, 0)
    assert controller.bandwidth_bytes_s == 9_000.0


def test_reordering_makes_few_packets_pass_for_lost() -> None:
    tested = path(20, 0.02)
    tested.link.jitter = 0.005
    tested.run(0.5)
    recovery = tested.recovery
    sent, spurious = recovery.packets_sent, recovery.spurious
    assert tested.run(3.0) >= 0.85 * tested.link.rate
    assert recovery.spurious - spurious <= 0.01 * (recovery.packets_sent - sent)
    assert recovery.packet_threshold > 3


def test_a_link_that_comes_back_is_used_again() -> None:
    tested = path(10, 0.02)
    tested.run(1.0)
    tested.link.loss = 1.0
    assert tested.run(2.5) <= 0.05 * tested.link.rate
    tested.link.loss = 0.0
    tested.run(6.0)
    assert tested.run(8.0) >= 0.85 * tested.link.rate


def test_a_controller_starts_from_what_it_is_given() -> None:
    controller = ModelController(initial_rate_bytes_s=1e6, initial_window_bytes=100)
    assert controller.rate_bytes_s == pytest.approx(STARTUP_GAIN * 1e6)
    assert controller.window_bytes == 4 * 1_200
    assert ModelController(max_rate_bytes_s=1e6).rate_bytes_s == 1e6


def test_the_window_is_bounded_whatever_is_measured() -> None:
    controller = ModelController()
    rtt = RttEstimator()
    rtt.update(10.0)
    result = AckResult(newly_acked_bytes=1_200, rtt_sampled=True, delivered=1_200, delivery_rate=1e12)
    controller.on_ack(10.0, result, rtt, 0)
    assert controller.window_bytes == MAX_WINDOW_BYTES


@pytest.mark.parametrize("loss", [0.3, 0.6])
def test_a_thin_flow_that_loses_most_never_stops(loss: float) -> None:
    tested = path(1.0, 0.1, loss=loss)
    for _ in range(60):
        tested.backlog = 2
        tested.run(tested.now + 0.5)
        assert tested.controller.rate_bytes_s >= MIN_RATE_PACKETS_S * PACKET


def test_the_least_rate_gives_way_to_the_cap() -> None:
    controller = ModelController(packet_bytes=PACKET, max_rate_bytes_s=PACKET)
    rtt = RttEstimator()
    rtt.update(0.1)
    controller.on_ack(
        1.0, AckResult(newly_acked_bytes=PACKET, rtt_sampled=True, delivered=PACKET, delivery_rate=1.0), rtt, 0
    )
    assert controller.rate_bytes_s == PACKET


def test_an_ack_without_a_measurement_changes_neither_rate_nor_bandwidth() -> None:
    controller = ModelController(initial_rate_bytes_s=1e6)
    before = controller.rate_bytes_s, controller.bandwidth_bytes_s
    controller.on_ack(1.0, AckResult(), RttEstimator(), 0)
    controller.on_ack(1.0, AckResult(newly_acked_bytes=1_200, delivered=1_200), RttEstimator(), 0)
    assert (controller.rate_bytes_s, controller.bandwidth_bytes_s) == before


def test_the_cycle_takes_out_what_it_puts_in() -> None:
    assert sum(CYCLE_GAINS) == len(CYCLE_GAINS)


@pytest.mark.parametrize(
    ("rate_mbit", "rtt"),
    [
        *[(rate_mbit, rtt) for rate_mbit in (5.0, 20.0, 100.0) for rtt in (0.001, 0.02, 0.1, 0.3)],
        *[(1_000.0, rtt) for rtt in (0.001, 0.02)],
        # A hundred thousand packets a second for some seconds.
        *[pytest.param(1_000.0, rtt, marks=pytest.mark.soak) for rtt in (0.1, 0.3)],
    ],
)
def test_alone_on_a_deep_buffer_a_hop_adds_no_more_than_30_ms(rate_mbit: float, rtt: float) -> None:
    tested = path(rate_mbit, rtt, buffer_s=1.0)
    started = 1.0 + 12 * rtt if rate_mbit < 1_000 else 0.5 + 12 * rtt
    tested.run(started)
    # The search ends in a queue: one round trip of the rate at most, and what the first packets make of a thin link.
    assert tested.link.delays(0.0)[-1] <= 1.1 * rtt + 0.06
    arrived = tested.run(started + (max(1.0, 10 * rtt) if rate_mbit < 1_000 else max(0.1, 2 * rtt)))
    assert arrived >= 0.9 * min(tested.link.rate, MAX_WINDOW_BYTES / rtt)
    delays = tested.link.delays(started)
    assert delays[-1] <= 0.03
    assert delays[int(0.95 * len(delays))] <= 0.025


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stall_s", [0.0, 0.015], ids=["quiet host", "busy host"])
def test_one_percent_of_random_loss_costs_what_was_lost_and_little_more(stall_s: float, seed: int) -> None:
    tested = path(50, 0.04, loss=0.01, seed=seed, stall_s=stall_s)
    tested.run(1.0)
    assert tested.run(6.0) >= 0.9 * 0.99 * tested.link.rate


@pytest.mark.parametrize(
    ("first", "gap", "stall_s"),
    [("ours", 0.5, 0.0), ("ours", 0.93, 0.0), ("theirs", 0.5, 0.0), ("ours", 0.5, 0.005), ("theirs", 0.5, 0.015)],
)
def test_a_link_is_shared_with_a_tcp_flow(first: str, gap: float, stall_s: float) -> None:
    link = Bottleneck(50 * MBIT, 0.02)
    ours = OurFlow(link, ModelController(packet_bytes=PACKET), stall_s=stall_s)
    theirs = CubicFlow(link)
    run([ours if first == "ours" else theirs], 0.0, gap)
    run([ours, theirs], gap, 5.0)
    shares = run([ours, theirs], 5.0, 20.0)
    assert sum(shares) >= 0.95 * link.rate
    assert 0.25 <= shares[0] / sum(shares) <= 0.8


def test_two_hops_share_a_link() -> None:
    link = Bottleneck(50 * MBIT, 0.02)
    one, other = (OurFlow(link, ModelController(packet_bytes=PACKET)) for _ in range(2))
    run([one], 0.0, 1.0)
    run([one, other], 1.0, 12.0)
    shares = run([one, other], 12.0, 20.0)
    assert sum(shares) >= 0.95 * link.rate
    assert 0.25 <= shares[0] / sum(shares) <= 0.75


@pytest.mark.parametrize(
    ("rate_mbit", "rtt", "lost_s"), [(100.0, 0.002, 0.06), (50.0, 0.04, 0.2), (1_000.0, 0.001, 0.06)]
)
def test_the_start_costs_little(rate_mbit: float, rtt: float, lost_s: float) -> None:
    tested = path(rate_mbit, rtt, buffer_s=0.05)
    until = 0.5 if rate_mbit > 100 else 1.5
    arrived = tested.run(until) * until
    assert (until - rtt / 2) * tested.link.rate - arrived <= lost_s * tested.link.rate


def test_a_long_path_that_grows_tenfold_is_searched_anew() -> None:
    tested = path(5, 0.1)
    tested.run(4.0)
    tested.link.rate, tested.link.queue_bytes = 50 * MBIT, 5 * MBIT
    tested.run(12.0)
    assert tested.run(13.0) >= 0.85 * tested.link.rate


def test_a_queue_without_a_delivery_rate_leaves_the_bandwidth() -> None:
    controller = ModelController(initial_rate_bytes_s=1e6)
    rtt = RttEstimator()
    for number, sample in enumerate((0.01, 0.2, 0.2), 1):
        rtt.update(sample)
        size = number * PACKET
        result = AckResult(newly_acked_bytes=PACKET, rtt_sampled=True, delivered=size, prior_delivered=size)
        controller.on_ack(float(number), result, rtt, 0)
    assert controller.bandwidth_bytes_s == 1e6


def in_bursts(tested: Path, *, packets: int, every_s: float, bursts: int) -> None:
    """Send few packets at a time, each burst after the one before has been acknowledged."""
    tested.backlog = 0
    for _ in range(bursts):
        tested.backlog += packets
        tested.run(tested.now + every_s)


def test_a_sender_that_fills_neither_window_nor_rate_never_lowers_what_was_measured() -> None:
    tested = path(100, 0.005)
    tested.run(1.0)
    measured = tested.controller.bandwidth_bytes_s
    in_bursts(tested, packets=5, every_s=0.02, bursts=250)
    assert tested.controller.bandwidth_bytes_s >= 0.99 * measured


def test_a_sender_short_of_time_never_lowers_what_was_measured() -> None:
    tested = path(100, 0.005)
    tested.run(1.0)
    controller = tested.controller
    measured = controller.bandwidth_bytes_s
    rtt = RttEstimator()
    rtt.update(0.005)
    now, delivered = tested.now, tested.recovery.delivered
    for number in range(200):
        # A train that is nothing to the window, and nothing more until it has arrived; though more waits.
        at, size = now + 0.02 * number, 5 * PACKET
        controller.on_sent(at, size, size)
        result = AckResult(
            newly_acked_bytes=size,
            rtt_sampled=True,
            delivered=delivered + size,
            prior_delivered=delivered,
            delivery_rate=size / 0.005,
        )
        controller.on_ack(at + 0.005, result, rtt, 0)
        delivered += size
    assert controller.bandwidth_bytes_s >= 0.99 * measured


def test_a_packet_lost_by_a_sender_with_little_to_send_leaves_the_window() -> None:
    tested = path(100, 0.005)
    tested.run(1.0)
    # A busy host looks like a queue.
    tested.link.rtt += 0.006
    in_bursts(tested, packets=5, every_s=0.02, bursts=5)
    tested.link.loss = 1.0
    in_bursts(tested, packets=1, every_s=0.0001, bursts=1)
    tested.link.loss = 0.0
    in_bursts(tested, packets=5, every_s=0.02, bursts=5)
    assert tested.recovery.packets_lost > 0
    tested.backlog = None
    assert tested.run(tested.now + 1.0) >= 0.85 * tested.link.rate


@pytest.mark.parametrize("longer_s", [0.006, 0.012, 0.018])
def test_a_host_that_gets_busy_is_no_reason_to_give_way(longer_s: float) -> None:
    tested = path(100, 0.0005, buffer_s=0.1)
    tested.run(1.0)
    tested.link.rtt += longer_s
    tested.run(3.0)
    assert tested.run(5.0) >= 0.85 * tested.link.rate


@pytest.mark.parametrize("longer_s", [0.05, 0.1])
def test_a_path_that_gets_much_longer_is_measured_anew_before_long(longer_s: float) -> None:
    tested = path(100, 0.001, buffer_s=0.1)
    tested.run(1.0)
    tested.link.rtt += longer_s
    tested.run(6.0)
    assert tested.run(7.0) >= 0.85 * tested.link.rate
    assert tested.controller.min_rtt == pytest.approx(tested.link.rtt, rel=0.1)


def test_a_tcp_flow_that_keeps_a_deep_queue_does_not_starve_a_hop() -> None:
    link = Bottleneck(20 * MBIT, 0.02, queue_bytes=0.1 * 20 * MBIT)
    ours, theirs = OurFlow(link, ModelController(packet_bytes=PACKET)), CubicFlow(link)
    run([theirs], 0.0, 1.0)
    run([ours, theirs], 1.0, 5.0)
    shares = run([ours, theirs], 5.0, 20.0)
    assert 0.2 <= shares[0] / sum(shares) <= 0.8


def test_two_hops_on_a_deep_buffer_keep_little_of_it() -> None:
    link = Bottleneck(20 * MBIT, 0.002, queue_bytes=0.5 * 20 * MBIT)
    flows = [OurFlow(link, ModelController(packet_bytes=PACKET)) for _ in range(2)]
    run(flows[:1], 0.0, 1.0)
    run(flows, 1.0, 12.0)
    assert link.delays(5.0)[-1] <= 0.06


@pytest.mark.parametrize("seed", range(3))
def test_random_loss_on_a_short_path_between_busy_hosts_does_not_collapse_the_rate(seed: int) -> None:
    tested = path(20, 0.002, loss=0.01, seed=seed, buffer_s=0.05, stall_s=0.015)
    tested.run(1.0)
    assert tested.run(6.0) >= 0.85 * 0.99 * tested.link.rate


@pytest.mark.parametrize(
    ("rate_bytes_s", "window_bytes"),
    [(1_000.0, 10 * PACKET), (625_000.0, 18_750), (1_250_000.0, 37_500), (125_000_000.0, MAX_INITIAL_WINDOW_BYTES)],
)
def test_the_first_window_is_a_short_while_of_the_rate_to_start_from(rate_bytes_s: float, window_bytes: int) -> None:
    assert ModelController(packet_bytes=PACKET, initial_rate_bytes_s=rate_bytes_s).window_bytes == window_bytes
