"""How fast one hop may send: congestion control by a model of the path.

Theory of operation. A path is two numbers: its bandwidth (the highest delivery rate of the last rounds) and its
round-trip time (the lowest of the last seconds). Their product is what the path holds. The controller paces at the
bandwidth, keeps about twice the product in flight, and moves off that point only to measure:

::

    STARTUP ── bandwidth stopped growing ──> DRAIN ── queue gone ──> CRUISE <──> PROBE_RTT
    rate × 2.77                              rate / 2.77             cycle of     window halved for 0.1 s,
                                                                     8 rounds     10 s after the last low sample

Packet loss as such is not a signal, so random loss costs only what was lost; but a path that loses more than a fifth
is being sent more than it carries, and its bandwidth is then taken from the latest round alone.

Source:
    draft-cardwell-iccrg-bbr-congestion-control-02.
"""

from collections import deque
from enum import Enum, auto
from typing import Protocol

from agent.core.recovery import AckResult, RttEstimator

STARTUP_GAIN = 2.77
"""Factor of the rate while searching: 4 ln 2, the least that doubles the delivery rate each round."""
CYCLE_GAINS = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Factor of the rate in each round of the cruise: try more, let the queue go that this made, then stay."""
CRUISE_MARGIN = 0.99
"""Factor of every rate after the start: what keeps an estimate that is a shade too high from building a queue."""
WINDOW_GAIN = 2.0
"""Window in units of the bandwidth-delay product: one for the path and one for ACKs that come late."""
BANDWIDTH_ROUNDS = 10
"""Rounds for which a bandwidth sample counts: more than a cycle, so that a probe's result outlives it."""
PLATEAU_GROWTH = 1.25
"""Growth of the bandwidth in a round below which the search counts as stalled."""
PLATEAU_ROUNDS = 3
"""Stalled rounds that end the search."""
MIN_RTT_WINDOW_S = 10.0
"""Seconds for which the lowest round-trip time counts."""
PROBE_RTT_S = 0.1
"""Seconds for which the window is halved to see the path without a queue."""
PROBE_RTT_GAIN = 0.5
"""Window in units of the bandwidth-delay product meanwhile."""
HEAVY_LOSS = 0.2
"""Share of lost bytes above which the path is being sent more than it carries."""
LOSS_SAMPLE_PACKETS = 50
"""Packets that a share of lost bytes is taken over: at 10 % random loss one sample in a hundred exceeds a fifth."""
HEAVY_SAMPLES = 2
"""Such shares in a row that lower the bandwidth: one may be chance."""
AGGREGATION_ROUNDS = 5
"""Rounds in each of the two halves of the aggregation filter."""
MAX_AGGREGATION_S = 0.1
"""Seconds of the bandwidth that bunched ACKs may add to the window."""
MAX_SPREAD_S = 0.02
"""Seconds of the bandwidth that jitter may add to the window: above the lowest round-trip time lie busy event loops and
radio links too, and a window that allows for none of it starves them; a queue of our own must not hide behind it."""
MIN_WINDOW_PACKETS = 4
"""Packets that are always allowed in flight: enough for a lost one to be noticed."""
MIN_RATE_PACKETS_S = 20.0
"""Packets per second that are always allowed: a few lost ones in a thin flow must not stop it."""
MAX_WINDOW_BYTES = 32 * 1024 * 1024
"""Bytes in flight at most: 1 Gbit/s over 100 ms, twice, and some."""
INITIAL_RATE_BYTES_S = 1_250_000.0
"""Bytes per second to start from when nothing is known: 10 Mbit/s."""
INITIAL_WINDOW_PACKETS = 32
"""Packets in flight at the start (RFC 9002 section 7.2 allows about 12; one train here)."""


class Controller(Protocol):
    """What decides how fast one hop sends.

    Attributes:
        rate_bytes_s: Bytes per second for the pacer; re-read after every `on_ack`.
        window_bytes: Bytes that may be in flight.
        bandwidth_bytes_s: Bytes per second that the path is taken to carry.
    """

    rate_bytes_s: float
    window_bytes: int
    bandwidth_bytes_s: float

    def on_sent(self, now: float, size_bytes: int, in_flight_bytes: int) -> None:
        """Note a packet or a train that was sent; `in_flight_bytes` includes it."""
        ...

    def on_ack(self, now: float, result: AckResult, rtt: RttEstimator, in_flight_bytes: int) -> None:
        """Take in what one ACK changed, its losses included; `in_flight_bytes` is what is left after it."""
        ...

    def on_loss(self, now: float, lost_bytes: int) -> None:
        """Take in losses that no ACK showed: from `Recovery.detect_lost` by the timer, and from `on_pto`."""
        ...


class Phase(Enum):
    """What a `ModelController` is doing."""

    STARTUP = auto()
    DRAIN = auto()
    CRUISE = auto()
    PROBE_RTT = auto()


class ModelController:
    """Congestion control by bandwidth and round-trip time, in the manner of BBR.

    A sender that has too little to send says so with `Recovery.mark_app_limited`; what is measured then may raise the
    bandwidth and never lowers it.

    Args:
        packet_bytes: Bytes of a full datagram.
        initial_rate_bytes_s: Bytes per second to start from: declared or remembered.
        initial_window_bytes: Bytes in flight at the start; `INITIAL_WINDOW_PACKETS` if None.
        max_rate_bytes_s: Bytes per second never to exceed; None for no cap.
    """

    __slots__ = (
        "_aggregated",
        "_aggregation_at",
        "_aggregation_bytes",
        "_best_rate",
        "_bunched",
        "_cycle",
        "_delivered_in_sample",
        "_heavy_samples",
        "_idle",
        "_limited_until",
        "_lost_in_sample",
        "_max_rate",
        "_min_rtt_at",
        "_min_window",
        "_packet_bytes",
        "_plateau_rate",
        "_plateau_rounds",
        "_probe_rtt_done_at",
        "_round",
        "_round_ends_at",
        "_sample_round",
        "_sampled_in_round",
        "_samples",
        "_spread",
        "_start_window",
        "bandwidth_bytes_s",
        "min_rtt",
        "phase",
        "rate_bytes_s",
        "window_bytes",
    )

    def __init__(
        self,
        *,
        packet_bytes: int = 1_200,
        initial_rate_bytes_s: float = INITIAL_RATE_BYTES_S,
        initial_window_bytes: int | None = None,
        max_rate_bytes_s: float | None = None,
    ) -> None:
        self.phase = Phase.STARTUP
        self._packet_bytes = packet_bytes
        self._max_rate = float("inf") if max_rate_bytes_s is None else max_rate_bytes_s
        self._min_window = MIN_WINDOW_PACKETS * packet_bytes
        if initial_window_bytes is None:
            initial_window_bytes = INITIAL_WINDOW_PACKETS * packet_bytes
        self._start_window = self.window_bytes = max(initial_window_bytes, self._min_window)
        self.bandwidth_bytes_s = initial_rate_bytes_s
        self.rate_bytes_s = min(STARTUP_GAIN * initial_rate_bytes_s, self._max_rate)
        self.min_rtt: float | None = None
        self._min_rtt_at = 0.0
        self._spread = 0.0
        self._probe_rtt_done_at: float | None = None
        self._idle = False
        # Rounds: one ends when a packet is acknowledged that was sent after it began.
        self._round = 0
        self._round_ends_at = 0
        # The highest samples, falling, each with the number of the sampling round it came from.
        self._samples: deque[tuple[int, float]] = deque()
        self._sample_round = 0
        self._sampled_in_round = -1
        self._limited_until = 0
        self._plateau_rate = 0.0
        self._plateau_rounds = 0
        self._cycle = 0
        self._delivered_in_sample = 0
        self._lost_in_sample = 0
        self._heavy_samples = 0
        self._best_rate = 0.0
        self._aggregation_at = 0.0
        self._aggregation_bytes = 0
        # Most bytes that came bunched, in this half of the filter and in the one before.
        self._bunched = 0.0
        self._aggregated = 0.0

    def on_sent(self, now: float, size_bytes: int, in_flight_bytes: int) -> None:
        """Note a packet or a train that was sent.

        Args:
            now: Monotonic seconds.
            size_bytes: Its bytes.
            in_flight_bytes: Bytes in flight, these included.
        """
        if in_flight_bytes <= size_bytes:
            self._idle = True
            self._aggregation_at = now
            self._aggregation_bytes = 0

    def on_ack(self, now: float, result: AckResult, rtt: RttEstimator, in_flight_bytes: int) -> None:
        """Take in what one ACK changed, its losses included.

        Args:
            now: Monotonic seconds.
            result: From `Recovery.on_ack`.
            rtt: The hop's round-trip time, which took its sample from the same ACK.
            in_flight_bytes: Bytes in flight after it.
        """
        self._lost_in_sample += result.lost_bytes
        if not result.newly_acked_bytes:
            return
        self._delivered_in_sample += result.newly_acked_bytes
        new_round = result.prior_delivered >= self._round_ends_at
        if new_round:
            self._round += 1
            self._round_ends_at = result.delivered
        self._take_rate(result)
        if new_round:
            self._check_loss()
            self._check_plateau(result)
        self._take_aggregation(now, result.newly_acked_bytes, new_round)
        # The low round-trip time is old news when nothing was sent for long: no reason to stop and look for it.
        expired = self._take_rtt(now, result, rtt) and not self._idle
        self._idle = False
        self._change_phase(now, expired, new_round, in_flight_bytes, result.delivered)
        self._set_rate_and_window()

    def on_loss(self, now: float, lost_bytes: int) -> None:
        """Take in losses that no ACK showed.

        Args:
            now: Monotonic seconds.
            lost_bytes: Bytes given up.
        """
        self._lost_in_sample += lost_bytes

    def _take_rate(self, result: AckResult) -> None:
        """Put a delivery rate into the filter, a windowed maximum."""
        rate = result.delivery_rate
        if rate <= 0:
            return
        limited = result.app_limited or result.prior_delivered < self._limited_until
        if limited or self.phase is Phase.PROBE_RTT:
            # A limited sample that is higher proves more; one that is lower proves nothing.
            if rate <= self.bandwidth_bytes_s:
                return
        elif self._sampled_in_round != self._round:
            # Only rounds that could have measured the path age the filter.
            self._sampled_in_round = self._round
            self._sample_round += 1
        self._best_rate = max(self._best_rate, rate)
        samples = self._samples
        while samples and samples[-1][1] <= rate:
            samples.pop()
        samples.append((self._sample_round, rate))
        while samples[0][0] <= self._sample_round - BANDWIDTH_ROUNDS:
            samples.popleft()
        self.bandwidth_bytes_s = samples[0][1]

    def _check_loss(self) -> None:
        """Lower the bandwidth to what the latest rounds delivered if they lost more than a fifth."""
        total = self._delivered_in_sample + self._lost_in_sample
        if total < LOSS_SAMPLE_PACKETS * self._packet_bytes:
            return
        heavy = self._lost_in_sample > HEAVY_LOSS * total
        self._delivered_in_sample = 0
        self._lost_in_sample = 0
        if heavy:
            self._heavy_samples += 1
            if self._heavy_samples < HEAVY_SAMPLES:
                return
            if 0 < self._best_rate < self.bandwidth_bytes_s:
                self.bandwidth_bytes_s = self._best_rate
                self._samples.clear()
                self._samples.append((self._sample_round, self._best_rate))
        self._heavy_samples = 0
        self._best_rate = 0.0

    def _check_plateau(self, result: AckResult) -> None:
        """End the search when the bandwidth has stopped growing."""
        if self.phase is not Phase.STARTUP or result.app_limited:
            return
        if self.bandwidth_bytes_s >= self._plateau_rate * PLATEAU_GROWTH:
            self._plateau_rate = self.bandwidth_bytes_s
            self._plateau_rounds = 0
            return
        self._plateau_rounds += 1
        if self._plateau_rounds >= PLATEAU_ROUNDS:
            self.phase = Phase.DRAIN

    def _take_aggregation(self, now: float, acked_bytes: int, new_round: bool) -> None:
        """Measure how many bytes are acknowledged in one bunch beyond what the bandwidth explains."""
        if new_round and self._round % AGGREGATION_ROUNDS == 0:
            self._aggregated = self._bunched
            self._bunched = 0.0
        expected = self.bandwidth_bytes_s * (now - self._aggregation_at)
        if self._aggregation_bytes <= expected:
            self._aggregation_at = now
            self._aggregation_bytes = 0
            expected = 0.0
        self._aggregation_bytes += acked_bytes
        bunched = min(self._aggregation_bytes - expected, self.window_bytes)
        self._bunched = max(self._bunched, bunched)

    def _take_rtt(self, now: float, result: AckResult, rtt: RttEstimator) -> bool:
        """Put a round-trip time into the filter, a windowed minimum; tell whether the old one had run out."""
        if self.min_rtt is None:
            if result.rtt_sampled:
                self.min_rtt = rtt.latest
                self._min_rtt_at = now
            return False
        expired = now > self._min_rtt_at + MIN_RTT_WINDOW_S
        if result.rtt_sampled and (expired or rtt.latest <= self.min_rtt):
            self.min_rtt = rtt.latest
            self._min_rtt_at = now
        self._spread = min(rtt.smoothed + 2 * rtt.variance - self.min_rtt, MAX_SPREAD_S)
        return expired

    def _change_phase(self, now: float, expired: bool, new_round: bool, in_flight: int, delivered: int) -> None:
        """Move on in the diagram above."""
        if self.phase is Phase.PROBE_RTT:
            self._probe_rtt(now, new_round, in_flight, delivered)
        elif expired:
            self.phase = Phase.PROBE_RTT
            self._probe_rtt_done_at = None
        elif self.phase is Phase.DRAIN:
            if in_flight <= self._product(1.0) + self._allowance():
                self._cruise()
        elif self.phase is Phase.CRUISE and new_round:
            self._cycle = (self._cycle + 1) % len(CYCLE_GAINS)

    def _probe_rtt(self, now: float, new_round: bool, in_flight: int, delivered: int) -> None:
        """Wait until the window has shrunk, then for `PROBE_RTT_S` and a whole round."""
        if self._probe_rtt_done_at is None:
            if in_flight <= self.window_bytes:
                self._probe_rtt_done_at = now + PROBE_RTT_S
        elif now >= self._probe_rtt_done_at and new_round:
            self._min_rtt_at = now
            # What is in flight was sent under the halved window and measures that, not the path.
            self._limited_until = delivered + in_flight
            self._cruise()

    def _cruise(self) -> None:
        """Begin the cycle after its probe, so that a queue just drained is not filled again at once."""
        self.phase = Phase.CRUISE if self._plateau_rounds >= PLATEAU_ROUNDS else Phase.STARTUP
        self._cycle = 2

    def _set_rate_and_window(self) -> None:
        """Work out rate and window from the model."""
        rate_gain, window_gain = CRUISE_MARGIN, WINDOW_GAIN
        if self.phase is Phase.STARTUP:
            rate_gain = window_gain = STARTUP_GAIN
        elif self.phase is Phase.DRAIN:
            rate_gain, window_gain = 1 / STARTUP_GAIN, STARTUP_GAIN
        elif self.phase is Phase.CRUISE:
            rate_gain = self._cycle_gain() * CRUISE_MARGIN
        else:
            window_gain = PROBE_RTT_GAIN
        rate = rate_gain * self.bandwidth_bytes_s
        if self.phase is Phase.STARTUP:
            # The first samples see only the first few packets; the window bounds what a rate too high can do.
            rate = max(rate, self.rate_bytes_s)
        self.rate_bytes_s = min(max(rate, MIN_RATE_PACKETS_S * self._packet_bytes), self._max_rate)
        window = self._product(window_gain) + self._allowance()
        floor = self._start_window if self.phase is Phase.STARTUP else self._min_window
        self.window_bytes = int(min(max(window, floor), MAX_WINDOW_BYTES))

    def _cycle_gain(self) -> float:
        """Return the factor of this round of the cruise."""
        gain = CYCLE_GAINS[self._cycle]
        # A probe that the cap cut short made no queue, so there is none to let go.
        if gain < 1 and CYCLE_GAINS[0] * self.bandwidth_bytes_s > self._max_rate:
            return 1.0
        return gain

    def _product(self, gain: float) -> float:
        """Return the bytes that the path holds, times `gain`."""
        if self.min_rtt is None:
            return float(self._start_window)
        return gain * self.bandwidth_bytes_s * self.min_rtt

    def _allowance(self) -> float:
        """Return the bytes that are in flight only because ACKs come bunched or scattered."""
        bunched = min(max(self._bunched, self._aggregated), MAX_AGGREGATION_S * self.bandwidth_bytes_s)
        if self.phase is Phase.STARTUP:
            return bunched
        return max(bunched, self._spread * self.bandwidth_bytes_s)
