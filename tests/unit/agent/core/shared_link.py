"""A little model of one bottleneck that flows share: our hop's sending side, and a textbook TCP CUBIC beside it.

Theory of operation. The bottleneck is a rate, a drop-tail queue, a propagation delay, random loss and jitter. A flow
says when it has something to do next; time jumps from one such moment to the next. ACKs come back undisturbed.
"""

from __future__ import annotations

import math
import random
from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.core.acks import Ack, AckTracker
from agent.core.congestion import ModelController
from agent.core.pacer import Pacer
from agent.core.recovery import Recovery

PACKET = 1_200
MBIT = 1e6 / 8


@dataclass
class Bottleneck:
    """One direction of a path.

    Attributes:
        rate: bytes per second.
        rtt: seconds of the round trip when nothing waits.
        queue_bytes: what may wait; a product of the two, and 30 packets at least, if 0.
        loss: share of packets that vanish by chance.
        jitter: seconds at most by which each packet is held up; packets may overtake each other.
    """

    rate: float
    rtt: float
    queue_bytes: float = 0.0
    loss: float = 0.0
    jitter: float = 0.0
    seed: int = 1
    free_at: float = 0.0
    dropped: int = 0
    waits: list[tuple[float, float]] = field(default_factory=list)
    """When a packet came and how long it waited for those before it, seconds."""

    def __post_init__(self) -> None:
        self.queue_bytes = self.queue_bytes or max(self.rate * self.rtt, 30.0 * PACKET)
        self._rng = random.Random(self.seed)

    def carry(self, now: float) -> float | None:
        """Give the time at which a packet sent now arrives, None if it never does."""
        wait = max(self.free_at - now, 0.0)
        if wait * self.rate > self.queue_bytes:
            self.dropped += 1
            return None
        self.waits.append((now, wait))
        self.free_at = now + wait + PACKET / self.rate
        if self.loss and self._rng.random() < self.loss:
            return None
        jitter = self._rng.random() * self.jitter if self.jitter else 0.0
        return self.free_at + self.rtt / 2 + jitter

    def delays(self, since: float, until: float = math.inf) -> list[float]:
        """Return what packets waited in a stretch of time, seconds, sorted."""
        return sorted(wait for at, wait in self.waits if since <= at < until)


class Flow(Protocol):
    """A sender and its receiver."""

    received: int

    def step(self, now: float) -> None:
        """Do what is due."""
        ...

    def next_at(self, now: float) -> float:
        """Return when there is something to do next."""
        ...


class OurFlow:
    """A hop's sending side with recovery, controller and pacer, and a receiver with an ACK tracker.

    Args:
        link: What it sends over.
        controller: How fast.
        stall_s: Seconds for which either side is held up now and then, every 50 ms or so, by a busy processor.
    """

    def __init__(self, link: Bottleneck, controller: ModelController, *, stall_s: float = 0.0, seed: int = 1) -> None:
        self.link = link
        self.controller = controller
        self.recovery = Recovery()
        self.pacer = Pacer(controller.rate_bytes_s, 0.0, PACKET)
        self.tracker = AckTracker()
        self.received = 0
        self.most_in_flight = 0
        # Packets that the application has to send; None for without end.
        self.backlog: int | None = None
        self._number = 0
        self._arrivals: deque[tuple[float, int]] = deque()
        self._acks: deque[tuple[float, Ack]] = deque()
        self._stall_s = stall_s
        self._rng = random.Random(seed)
        self._stalls_at = self._rng.expovariate(20.0) if stall_s else math.inf
        self._busy_until = 0.0

    def next_at(self, now: float) -> float:
        recovery = self.recovery
        due = math.inf
        for at in (self.tracker.due_at(), recovery.loss_at(), recovery.pto_at()):
            if at is not None and at < due:
                due = at
        if self._arrivals:
            due = min(due, self._arrivals[0][0])
        if self._acks:
            due = min(due, self._acks[0][0])
        if self.backlog != 0 and self._window_open():
            due = min(due, self.pacer.next_at(now))
        return max(due, self._busy_until)

    def step(self, now: float) -> None:
        if now < self._busy_until:
            return
        self._receive(now)
        self._take_acks(now)
        self._repair(now)
        self._send(now)
        if now >= self._stalls_at:
            self._busy_until = now + self._rng.random() * self._stall_s
            self._stalls_at = self._busy_until + self._rng.expovariate(20.0)

    def _receive(self, now: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= now:
            self.tracker.on_received(self._arrivals.popleft()[1], now)
            self.received += 1
        if self.tracker.ack_due(now):
            self._acks.append((now + self.link.rtt / 2, self.tracker.take_ack(now)))

    def _take_acks(self, now: float) -> None:
        recovery = self.recovery
        while self._acks and self._acks[0][0] <= now:
            result = recovery.on_ack(*self._acks.popleft()[1], now)
            self.controller.on_ack(now, result, recovery.rtt, recovery.in_flight_bytes)
            self.pacer.set_rate(self.controller.rate_bytes_s, now)

    def _repair(self, now: float) -> None:
        recovery = self.recovery
        before = recovery.packets_lost
        loss_at, pto_at = recovery.loss_at(), recovery.pto_at()
        if loss_at is not None and loss_at <= now:
            recovery.detect_lost(now)
        elif pto_at is not None and pto_at <= now:
            recovery.on_pto(now)
        if recovery.packets_lost > before:
            self.controller.on_loss(now, (recovery.packets_lost - before) * PACKET)

    def _window_open(self) -> bool:
        return self.recovery.in_flight_bytes + PACKET <= self.controller.window_bytes

    def _send(self, now: float) -> None:
        recovery = self.recovery
        while self._window_open() and self.pacer.budget(now) >= PACKET:
            if self.backlog is not None:
                if self.backlog == 0:
                    recovery.mark_app_limited()
                    return
                self.backlog -= 1
            recovery.on_sent(self._number, now, PACKET)
            self.controller.on_sent(now, PACKET, recovery.in_flight_bytes)
            self.pacer.spend(PACKET, now)
            arrives_at = self.link.carry(now)
            if arrives_at is not None:
                insort(self._arrivals, (arrives_at, self._number))
            self._number += 1
        self.most_in_flight = max(self.most_in_flight, recovery.in_flight_bytes)


class CubicFlow:
    """TCP CUBIC with slow start, selective acknowledgement and one reduction a round trip; without limit of its own.

    Source:
        RFC 9438 sections 4.1 to 4.6 and 4.10 (without fast convergence); RFC 9406 for the end of slow start.
    """

    BETA = 0.7
    C = 0.4

    def __init__(self, link: Bottleneck) -> None:
        self.link = link
        self.received = 0
        self.window = 10.0
        self.slow_start = True
        self._most = 0.0
        self._epoch_at: float | None = None
        self._until_most = 0.0
        self._reno = 0.0
        self._number = 0
        self._in_flight: deque[tuple[int, float]] = deque()
        self._acks: deque[tuple[float, int]] = deque()
        self._recovery_until = -1
        self._rtt = link.rtt
        self._least_rtt = math.inf
        self._retry_at = math.inf

    def next_at(self, now: float) -> float:
        if len(self._in_flight) < int(self.window):
            return now
        return min(self._acks[0][0] if self._acks else math.inf, self._retry_at)

    def step(self, now: float) -> None:
        if now >= self._retry_at:
            self._in_flight.clear()
            self.window, self.slow_start = 2.0, True
        while self._acks and self._acks[0][0] <= now:
            self._take_ack(self._acks.popleft()[1], now)
            self._retry_at = now + max(4 * self._rtt, 0.2)
        while len(self._in_flight) < int(self.window):
            arrives_at = self.link.carry(now)
            self._in_flight.append((self._number, now))
            if len(self._in_flight) == 1:
                self._retry_at = now + max(4 * self._rtt, 0.2)
            if arrives_at is not None:
                self._acks.append((arrives_at + self.link.rtt / 2, self._number))
            self._number += 1

    def _take_ack(self, number: int, now: float) -> None:
        self.received += 1
        lost = False
        while self._in_flight and self._in_flight[0][0] <= number:
            sent, at = self._in_flight.popleft()
            if sent == number:
                self._rtt += (now - at - self._rtt) / 8
                self._least_rtt = min(self._least_rtt, now - at)
                if self.slow_start and now - at > self._least_rtt + max(0.004, self._least_rtt / 8):
                    self.slow_start = False
            else:
                lost |= sent > self._recovery_until
        if lost:
            self._most = self.window
            self.window = max(self.window * self.BETA, 2.0)
            self.slow_start, self._epoch_at = False, None
            self._recovery_until = self._number
        elif number > self._recovery_until:
            self._grow(now)

    def _grow(self, now: float) -> None:
        if self.slow_start:
            self.window += 1
            return
        if self._epoch_at is None:
            self._epoch_at, self._reno = now, self.window
            self._most = max(self._most, self.window)
            self._until_most = ((self._most - self.window) / self.C) ** (1 / 3)
        self._reno += 3 * (1 - self.BETA) / (1 + self.BETA) / self.window
        target = self.C * (now + self._rtt - self._epoch_at - self._until_most) ** 3 + self._most
        if target < self._reno:
            self.window = max(self.window, self._reno)
        else:
            self.window += max(min(target, 1.5 * self.window) - self.window, 0.0) / self.window


def run(flows: Sequence[Flow], now: float, until: float) -> list[float]:
    """Let time pass from ``now`` and return the bytes per second that arrived of each flow meanwhile."""
    before = [flow.received for flow in flows]
    at = now
    while at <= until:
        due = math.inf
        for flow in flows:
            flow.step(at)
            due = min(due, flow.next_at(at))
        at = max(due, at + 1e-9)
    return [(flow.received - was) * PACKET / (until - now) for flow, was in zip(flows, before, strict=True)]
