"""The congestion controller: on its own, and with recovery and pacer over a little link."""

import random
from bisect import insort
from collections import deque
from dataclasses import dataclass

import pytest

from agent.core.acks import Ack, AckTracker
from agent.core.congestion import (
    CYCLE_GAINS,
    MAX_WINDOW_BYTES,
    MIN_RATE_PACKETS_S,
    STARTUP_GAIN,
    Controller,
    ModelController,
    Phase,
)
from agent.core.pacer import Pacer
from agent.core.recovery import AckResult, Recovery, RttEstimator

PACKET = 1_200
MBIT = 1e6 / 8


@dataclass
class Link:
    """One direction of a path: a rate, a drop-tail queue of one product (30 packets at least), a delay, random loss."""

    rate: float
    rtt: float
    loss: float
    rng: random.Random
    jitter: float = 0.0
    free_at: float = 0.0

    def __post_init__(self) -> None:
        self.queue_bytes = max(self.rate * self.rtt, 30 * PACKET)

    def carry(self, now: float) -> float | None:
        """Give the time at which a packet sent now arrives, None if it never does."""
        if (self.free_at - now) * self.rate > self.queue_bytes:
            return None
        self.free_at = max(self.free_at, now) + PACKET / self.rate
        if self.rng.random() < self.loss:
            return None
        return self.free_at + self.rtt / 2 + self.rng.random() * self.jitter


class Path:
    """A sender with recovery, controller and pacer, a receiver with an ACK tracker, and a link between them."""

    def __init__(self, rate: float, rtt: float, loss: float, seed: int, controller: ModelController) -> None:
        self.link = Link(rate, rtt, loss, random.Random(seed))
        self.now = 0.0
        self.controller: Controller = controller
        self.recovery = Recovery()
        self.pacer = Pacer(controller.rate_bytes_s, 0.0, PACKET)
        self.tracker = AckTracker()
        self.number = 0
        self.arrivals: deque[tuple[float, int]] = deque()
        self.acks: deque[tuple[float, Ack]] = deque()
        self.received = 0
        self.most_in_flight = 0
        # Packets that the application has to send; None for without end.
        self.backlog: int | None = None

    def run(self, until: float) -> float:
        """Let time pass and return the bytes per second that arrived meanwhile."""
        began, before = self.now, self.received
        while True:
            self.receive()
            self.send()
            self.now = max(self.now, self.next_at())
            if self.now > until:
                self.now = until
                return (self.received - before) * PACKET / (until - began)

    def next_at(self) -> float:
        recovery = self.recovery
        times = [self.tracker.due_at(), recovery.loss_at(), recovery.pto_at()]
        if self.arrivals:
            times.append(self.arrivals[0][0])
        if self.acks:
            times.append(self.acks[0][0])
        if self.window_open() and self.backlog != 0:
            times.append(self.pacer.next_at(self.now))
        return min((time for time in times if time is not None), default=float("inf"))

    def receive(self) -> None:
        now, recovery = self.now, self.recovery
        while self.arrivals and self.arrivals[0][0] <= now:
            self.tracker.on_received(self.arrivals.popleft()[1], now)
            self.received += 1
        if self.tracker.ack_due(now):
            self.acks.append((now + self.link.rtt / 2, self.tracker.take_ack(now)))
        while self.acks and self.acks[0][0] <= now:
            result = recovery.on_ack(*self.acks.popleft()[1], now)
            self.controller.on_ack(now, result, recovery.rtt, recovery.in_flight_bytes)
            self.pacer.set_rate(self.controller.rate_bytes_s, now)
        lost = []
        loss_at, pto_at = recovery.loss_at(), recovery.pto_at()
        if loss_at is not None and loss_at <= now:
            lost = recovery.detect_lost(now)
        elif pto_at is not None and pto_at <= now:
            lost = recovery.on_pto(now)
        if lost:
            self.controller.on_loss(now, sum(packet.size for packet in lost))

    def window_open(self) -> bool:
        return self.recovery.in_flight_bytes + PACKET <= self.controller.window_bytes

    def send(self) -> None:
        while self.window_open() and self.pacer.budget(self.now) >= PACKET:
            if self.backlog is not None:
                if self.backlog == 0:
                    self.recovery.mark_app_limited()
                    return
                self.backlog -= 1
            self.recovery.on_sent(self.number, self.now, PACKET)
            self.controller.on_sent(self.now, PACKET, self.recovery.in_flight_bytes)
            self.pacer.spend(PACKET, self.now)
            arrives_at = self.link.carry(self.now)
            if arrives_at is not None:
                insort(self.arrivals, (arrives_at, self.number))
            self.number += 1
        self.most_in_flight = max(self.most_in_flight, self.recovery.in_flight_bytes)


def path(rate_mbit: float, rtt: float, loss: float = 0.0, seed: int = 1, cap_mbit: float | None = None) -> Path:
    cap = None if cap_mbit is None else cap_mbit * MBIT
    return Path(rate_mbit * MBIT, rtt, loss, seed, ModelController(packet_bytes=PACKET, max_rate_bytes_s=cap))


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
    assert isinstance(controller, ModelController)
    phases: list[Phase] = []
    while tested.now < 17:
        tested.run(tested.now + 0.01)
        if not phases or phases[-1] is not controller.phase:
            phases.append(controller.phase)
    assert phases == [Phase.CRUISE, Phase.PROBE_RTT, Phase.CRUISE]
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
