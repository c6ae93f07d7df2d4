"""What one end of a link measures about its own direction: delay, jitter, loss and bandwidth, smoothed.

Theory of operation. A probe echoes the last one heard with the time for which it was held. So it gives a round trip,
and with it what the peer's clock showed when ours arrived: the difference of two such transit times, in which the
clocks' offset cancels out, is the jitter of the way there. It also counts the probes heard, so that the loss of the
way there is known too. Acknowledgements add round trips, losses and the rate of delivery while data flows; trains
measure the bandwidth while none does.

The delay is half the lowest round trip of the last seconds: what lies above it are queues, many of them our own, and
busy hosts. While data flows its own queue may stand for as long; so a longer time counts then, unless the lowest of the
last seconds is so high that no queue of our own explains it.

What the peer says are claims. One that cannot be true changes nothing and is counted.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from agent.core.acks import MAX_ACK_DELAY_S
from agent.core.delivery import DeliveryMeter
from agent.core.loss import LossMeter
from agent.core.sent import AckResult
from agent.core.shallow import Shallow
from common.limits import MAX_DELAY_S
from common.link_frames import Probe

_RTT_GAIN: Final = 1 / 8
_JITTER_GAIN: Final = 1 / 16
_MICRO: Final = 1e6
_BITS: Final = 8
PROBES_KEPT: Final = 256
"""Probes of our own that an echo may still be of: 12 s of those beside a stream."""
LOWEST_S: Final = 3.0
"""Seconds of which the lowest round trip counts: a change is believed after them."""
FLOW_LOWEST_S: Final = 12.0
"""The same while data flows: a controller lets its queue go every 10 s at least."""
OWN_QUEUE_S: Final = 0.025
"""Seconds of round trip that a flow's own queue may add meanwhile; what is more is the path."""
SLOT_S: Final = 0.25
"""Seconds of which the lowest one is kept."""
SLOTS_LEAST: Final = 4
"""Slots that count however old: a link at rest has a probe a second."""


class LinkQos:
    """Figures of one session, smoothed.

    Attributes:
        rtt_s: smoothed round-trip time, seconds; None before the first.
        jitter_s: of what is sent from here, seconds.
        loss: the meter of what is lost of that.
        shallow: which packets found a shallow queue of our own.
        delivery: the meter of its bandwidth; trains set its rate too.
        bandwidth_at: when that was measured last, monotonic seconds; None before.
        flow_at: when a chunk crossed last, either way, monotonic seconds.
        probes_sent: probes sent.
        probes_heard: probes of the peer heard.

    Source: RFC 6298 (smoothing), RFC 3550 section 6.4.1 (jitter).
    """

    def __init__(self) -> None:
        self.rtt_s: float | None = None
        self.jitter_s = 0.0
        self.loss = LossMeter()
        self.shallow = Shallow()
        self.delivery = DeliveryMeter()
        self.bandwidth_at: float | None = None
        self.flow_at = float("-inf")
        self.probes_sent = 0
        self.probes_heard = 0
        self._lowest: deque[tuple[float, float]] = deque()
        self._own: deque[tuple[int, int]] = deque(maxlen=PROBES_KEPT)
        self._echoed = 0
        self._transit_us: int | None = None
        self._last_probe_us = 0
        self._last_heard_at = 0.0
        self._counted_sent = 0
        self._counted_heard = 0

    @property
    def delay_s(self) -> float | None:
        """One way, seconds; None before the first round trip."""
        if not self._lowest:
            return None
        newest = self._lowest[-1][0]
        # From the newest back, so that the last few always count.
        recent = [
            rtt
            for place, (at, rtt) in enumerate(reversed(self._lowest))
            if place < SLOTS_LEAST or newest - at <= LOWEST_S
        ]
        lowest = min(recent)
        if newest - self.flow_at <= LOWEST_S:
            longer = min(rtt for _, rtt in self._lowest)
            if lowest <= longer + OWN_QUEUE_S:
                lowest = longer
        return lowest / 2

    @property
    def bandwidth_bps(self) -> float | None:
        """Bits per second of UDP payload; None before it was measured."""
        return self.delivery.rate_bps

    def next_probe(self, now: float, promise_s: float, epoch: int) -> Probe:
        """Return the probe to send now, promising the next one within ``promise_s`` seconds.

        Args:
            now: monotonic seconds.
            promise_s: when the next one comes at the latest.
            epoch: low 32 bits of the newest epoch known here; 0 if none is.
        """
        self.probes_sent += 1
        sent_us = micros(now)
        self._own.append((sent_us, self.probes_sent))
        held = now - self._last_heard_at if self._last_probe_us else 0.0
        return Probe(
            sent_us=sent_us,
            echo_us=self._last_probe_us,
            held_us=min(int(held * _MICRO), 0xFFFFFFFF),
            sent=self.probes_sent & 0xFFFFFFFF,
            heard=self.probes_heard & 0xFFFFFFFF,
            next_ms=min(round(promise_s * 1000), 0xFFFF),
            epoch=epoch,
        )

    def on_probe(self, probe: Probe, now: float) -> bool:
        """Take a probe of the peer; return whether what it claims can be true."""
        self.probes_heard += 1
        believed = not probe.echo_us or self._on_echo(probe, now)
        self._last_probe_us = probe.sent_us
        self._last_heard_at = now
        return believed

    def on_ack(self, result: AckResult, delay_s: float, now: float, *, latest_s: float, limited: bool) -> None:
        """Take in what one ACK changed.

        Args:
            result: of the hop's recovery.
            delay_s: seconds for which the peer says it held the ACK back.
            now: monotonic seconds.
            latest_s: the round trip that the ACK measured, if it did.
            limited: whether something else than the path limited what flows.
        """
        if result.rtt_sampled:
            self._note_lowest(max(latest_s - min(delay_s, MAX_ACK_DELAY_S), 0.0), now)
        if result.acked:
            newest = result.acked[-1].train
            if self.delivery.on_ack(result.newly_acked_bytes, newest.sent_at, now, limited=limited):
                self.bandwidth_at = now

    def on_fates(self, result: AckResult, known: tuple[int, int], now: float) -> None:
        """Take in which packets arrived or were lost by one ACK.

        Args:
            result: of the hop's recovery.
            known: packets of this session whose fate is known, and how many of them were lost.
            now: monotonic seconds.
        """
        shallow = self.shallow
        shallow.on_acked(result.acked)
        shallow.on_lost(result.lost)
        shallow.on_late(result.late)
        if self.loss.on_flow(known, (shallow.sent, shallow.lost), now):
            shallow.end_window(2 * (self.delay_s or 0.0) * (self.bandwidth_bps or 0.0) / _BITS)

    def on_bandwidth(self, rate_bps: float, now: float) -> None:
        """Take what a train measured, bits per second."""
        self.delivery.rate_bps = rate_bps
        self.bandwidth_at = now

    def _on_echo(self, probe: Probe, now: float) -> bool:
        place = self._place(probe.echo_us)
        round_trip_s = (micros(now) - probe.echo_us - probe.held_us) / _MICRO
        if place is None or not 0 <= round_trip_s <= MAX_DELAY_S or probe.heard > place:
            return False
        self.rtt_s = round_trip_s if self.rtt_s is None else self.rtt_s + (round_trip_s - self.rtt_s) * _RTT_GAIN
        self._note_lowest(round_trip_s, now)
        plausible = True
        if probe.echo_us != self._echoed:
            self._echoed = probe.echo_us
            plausible = self._on_transit(probe.sent_us - probe.held_us - probe.echo_us)
        sent, heard = place - self._counted_sent, probe.heard - self._counted_heard
        if sent > 0 and heard >= 0:
            self._counted_sent, self._counted_heard = place, probe.heard
            self.loss.on_probes(sent, max(sent - heard, 0), now)
        return plausible

    def _on_transit(self, transit_us: int) -> bool:
        """Take the time that a probe took by two clocks; return whether it fits the one before."""
        before, self._transit_us = self._transit_us, transit_us
        if before is None:
            return True
        difference_s = abs(transit_us - before) / _MICRO
        if difference_s > MAX_DELAY_S:
            return False
        self.jitter_s += (difference_s - self.jitter_s) * _JITTER_GAIN
        return True

    def _place(self, sent_us: int) -> int | None:
        """Return which of our probes was sent at a time; None if none of the last ones was."""
        for at, number in reversed(self._own):
            if at <= sent_us:
                return number if at == sent_us else None
        return None

    def _note_lowest(self, round_trip_s: float, now: float) -> None:
        lowest = self._lowest
        if lowest and now - lowest[-1][0] < SLOT_S:
            at, least = lowest[-1]
            lowest[-1] = (at, min(least, round_trip_s))
            return
        lowest.append((now, round_trip_s))
        while len(lowest) > SLOTS_LEAST and now - lowest[0][0] > FLOW_LOWEST_S:
            lowest.popleft()


def micros(now: float) -> int:
    """Return a monotonic clock reading as whole µs, never 0."""
    return int(now * _MICRO) + 1
