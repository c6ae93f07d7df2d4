"""How fast one hop may send: congestion control by a model of the path.

Theory of operation. A path is two numbers: its bandwidth (the highest delivery rate of the last rounds) and its
round-trip time (the lowest of the last seconds). Their product is what the path holds. The controller paces at the
bandwidth, keeps somewhat more than the product in flight, and moves off that point only to measure:

::

    STARTUP ── bandwidth stopped growing, ──> DRAIN ── queue gone ──> CRUISE <──> PROBE_RTT
    rate × 2.77  or a queue grows             rate / 2.77             cycle of     window halved for 0.1 s,
       ^                                                              8 rounds     10 s after the last low sample
       └────────────────── two probes in a row found more ──────────────┘

How much may wait in front of the bottleneck depends on whose queue it is, which `QueueWatch` tells. While it is ours
alone, the window leaves it 20 ms. Where others keep one, such a window would starve us: there it is twice the product,
or what keeps the rate up in spite of their queue, and each time the queue is full it shrinks (`Ceiling`) and grows back
slowly, as theirs do. A path that got longer looks the same: if most of the rate goes, the path is measured anew.

What is measured while the sender did not try its best (`Pressure`) may raise the bandwidth and never lowers it. Packet
loss as such is not a signal, so random loss costs only what was lost; but a path that loses more than a fifth is being
sent more than it carries (`HeavyLoss`), and its bandwidth is then taken from the latest rounds alone.

Source:
    draft-cardwell-iccrg-bbr-congestion-control-02, whose bound on the data in flight after a loss this takes over, and
    RFC 9438 for its figures.
"""

from enum import Enum, auto
from math import inf
from typing import Protocol

from agent.core.bandwidth import BandwidthFilter
from agent.core.bunching import Bunching
from agent.core.ceiling import BACKOFF, Ceiling
from agent.core.heavy_loss import HeavyLoss
from agent.core.pressure import Pressure
from agent.core.queue_watch import CLEAR_S, QueueWatch
from agent.core.rtt import RttEstimator
from agent.core.sent import AckResult

STARTUP_GAIN = 2.77
"""Factor of the rate while searching: 4 ln 2, the least that doubles the delivery rate each round."""
CYCLE_GAINS = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Factor of the rate in each round of the cruise: try more, let the queue go that this made, then stay."""
CRUISE_MARGIN = 0.99
"""Factor of every rate after the start: what keeps an estimate that is a shade too high from building a queue."""
WINDOW_GAIN = 2.0
"""Window in units of the bandwidth-delay product: one for the path, one for ACKs that come late or others' queue."""
AFTER_PROBE = 2
"""The round of the cycle that follows the probe and what lets its queue go."""
PROBE_KNOWN = 3
"""The round of the cycle at whose beginning the probe's result is known."""
BURST_ROUNDS = 2
"""Rounds at the start in which a queue may be that of the first packets alone, which went as a burst."""
PLATEAU_GROWTH = 1.25
"""Growth of the bandwidth in a round below which the search counts as stalled."""
PLATEAU_ROUNDS = 3
"""Stalled rounds that end the search."""
STANDING_S = 0.02
"""Seconds of the bandwidth that may wait in front of the bottleneck while the queue is ours alone."""
LEAST_WINDOW_S = 0.008
"""Seconds of the bandwidth that the window holds at least: busy hosts take that long to answer on the shortest path."""
TELLING_QUEUE_S = 2 * STANDING_S
"""Seconds of a queue that is ours alone from which on the bandwidth is taken to have shrunk."""
TELLING_ROUNDS = 4
"""Rounds for which it is: a queue that stays although less is sent is none of ours."""
FRESH_ROUNDS = 2
"""Rounds for which a bandwidth sample counts then."""
MOST_QUEUE_S = 0.06
"""Seconds of others' queue that the window makes up for: more is a buffer that nobody should fill."""
PROBE_WINS = 2
"""Probes in a row that have to find more before the search begins anew."""
STARTUP_SPREAD = 1.5
"""Factor of the rate that spreads the window over a round trip: a burst makes a queue that says nothing."""
MIN_RTT_WINDOW_S = 10.0
"""Seconds for which the lowest round-trip time counts."""
COLLAPSED = 0.25
"""Share of the bandwidth before a queue below which that has collapsed: the path itself may have become longer."""
COLLAPSED_S = 1.0
"""Seconds for which the lowest round-trip time counts then."""
PROBE_RTT_S = 0.1
"""Seconds for which the window is halved to see the path without a queue."""
PROBE_RTT_GAIN = 0.5
"""Window in units of the bandwidth-delay product meanwhile."""
MAX_SPREAD_S = 0.02
"""Seconds of the bandwidth that jitter may add to the window: above the lowest round-trip time lie busy event loops and
radio links too, and a window that allows for none of it starves them; a queue of our own must not hide behind it."""
CAPPED = 0.9
"""Share of the cap from which on the cap is the limit, and not the path."""
MIN_WINDOW_PACKETS = 4
"""Packets that are always allowed in flight: enough for a lost one to be noticed."""
MIN_RATE_PACKETS_S = 20.0
"""Packets per second that are always allowed: a few lost ones in a thin flow must not stop it."""
MAX_WINDOW_BYTES = 32 * 1024 * 1024
"""Bytes in flight at most: 1 Gbit/s over 100 ms, twice, and some."""
INITIAL_RATE_BYTES_S = 1_250_000.0
"""Bytes per second to start from when nothing is known: 10 Mbit/s."""
MAX_INITIAL_WINDOW_BYTES = 256 * 1024
"""Bytes in flight at the start at most: a rate that was declared may be wrong."""
MIN_INITIAL_WINDOW_PACKETS = 10
"""Packets in flight at the start at least."""
INITIAL_WINDOW_S = 0.03
"""Seconds of the rate to start from that may be in flight at the start: what waits if the path is no faster."""


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

    @property
    def path_limited(self) -> bool:
        """Whether it is the path that limits what is delivered, so that a low rate says something about it."""
        ...

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
        initial_window_bytes: Bytes in flight at the start; taken from the rate if None.
        max_rate_bytes_s: Bytes per second never to exceed; None for no cap.
    """

    __slots__ = (
        "_bandwidth",
        "_bunching",
        "_ceiling",
        "_clear_rate",
        "_cycle",
        "_heavy_loss",
        "_idle",
        "_limited_until",
        "_max_rate",
        "_min_rtt_at",
        "_min_window",
        "_packet_bytes",
        "_plateau_rate",
        "_plateau_rounds",
        "_pressure",
        "_probe_from",
        "_probe_rtt_done_at",
        "_round",
        "_round_ends_at",
        "_spread",
        "_start_window",
        "_watch",
        "_wins",
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
            window = max(INITIAL_WINDOW_S * initial_rate_bytes_s, MIN_INITIAL_WINDOW_PACKETS * packet_bytes)
            initial_window_bytes = int(min(window, MAX_INITIAL_WINDOW_BYTES))
        self._start_window = self.window_bytes = max(initial_window_bytes, self._min_window)
        self._bandwidth = BandwidthFilter(initial_rate_bytes_s)
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
        self._limited_until = 0
        self._plateau_rate = 0.0
        self._plateau_rounds = 0
        self._cycle = 0
        self._heavy_loss = HeavyLoss(packet_bytes)
        self._watch = QueueWatch()
        self._ceiling = Ceiling(packet_bytes)
        # The bandwidth when there was no queue last.
        self._clear_rate = 0.0
        self._probe_from = inf
        self._wins = 0
        self._bunching = Bunching()
        self._pressure = Pressure()

    @property
    def path_limited(self) -> bool:
        """Whether it is the path that limits what is delivered: not the search, a pause for measuring, or a cap."""
        if self.phase in (Phase.STARTUP, Phase.PROBE_RTT) or self.bandwidth_bytes_s > CAPPED * self._max_rate:
            return False
        return self._pressure.limited_by_path

    def on_sent(self, now: float, size_bytes: int, in_flight_bytes: int) -> None:
        """Note a packet or a train that was sent.

        Args:
            now: Monotonic seconds.
            size_bytes: Its bytes.
            in_flight_bytes: Bytes in flight, these included.
        """
        if in_flight_bytes <= size_bytes:
            self._idle = True
            self._bunching.restart(now)
        self._pressure.on_sent(size_bytes)
        self._pressure.on_flight(in_flight_bytes, self.window_bytes, self._packet_bytes)

    def on_ack(self, now: float, result: AckResult, rtt: RttEstimator, in_flight_bytes: int) -> None:
        """Take in what one ACK changed, its losses included.

        Args:
            now: Monotonic seconds.
            result: From `Recovery.on_ack`.
            rtt: The hop's round-trip time, which took its sample from the same ACK.
            in_flight_bytes: Bytes in flight after it.
        """
        self._heavy_loss.on_bytes(result.newly_acked_bytes, result.lost_bytes)
        self._watch.on_bytes(result.newly_acked_bytes, result.lost_bytes)
        if not result.newly_acked_bytes:
            return
        self._ceiling.on_flight(in_flight_bytes + result.newly_acked_bytes + result.lost_bytes)
        self._pressure.on_time(now, self.rate_bytes_s)
        self._pressure.on_flight(in_flight_bytes, self.window_bytes, self._packet_bytes)
        new_round = result.prior_delivered >= self._round_ends_at
        if new_round:
            self._round += 1
            self._round_ends_at = result.delivered
            self._pressure.end_round()
        self._take_rate(result)
        if new_round:
            self._check_loss()
            self._check_queue()
            self._check_plateau(result)
            self._bunching.end_round()
        self._bunching.on_ack(now, result.newly_acked_bytes, self.bandwidth_bytes_s, self.window_bytes)
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
        self._heavy_loss.on_bytes(0, lost_bytes)
        self._watch.on_bytes(0, lost_bytes)

    def _take_rate(self, result: AckResult) -> None:
        """Put a delivery rate into the filter, a windowed maximum."""
        rate = result.delivery_rate
        if rate <= 0:
            return
        limited = result.app_limited or result.prior_delivered < self._limited_until or self.phase is Phase.PROBE_RTT
        counts = self._bandwidth.take(rate, self._round, limited=limited or not self._pressure.limited_by_path)
        if counts or not limited:
            self._heavy_loss.on_rate(rate)
        if counts:
            self.bandwidth_bytes_s = self._bandwidth.bytes_s

    def _check_loss(self) -> None:
        """Lower the bandwidth to what the latest rounds delivered if they lost too much."""
        rate = self._heavy_loss.end_round()
        if rate is not None:
            self._bandwidth.lower(rate)
            self.bandwidth_bytes_s = self._bandwidth.bytes_s

    def _check_queue(self) -> None:
        """Draw the conclusions from the queue in the round that is over."""
        watch = self._watch
        if self.min_rtt is not None:
            watch.end_round(self.min_rtt)
        # With little in flight a loss says nothing of how much fits.
        full = watch.full and self._pressure.limited_by_path
        # What the rate has in flight on the path as long as it is now: less was in flight only because of cuts before.
        product = self._product(1.0)
        holds = product + max(watch.queue_s, 0.0) * self.bandwidth_bytes_s
        self._ceiling.end_round(full=full, shared=watch.shared, least_bytes=max(product, BACKOFF * holds))
        if watch.queue_s > TELLING_QUEUE_S and watch.standing_rounds <= TELLING_ROUNDS:
            self._bandwidth.forget(FRESH_ROUNDS)
            self.bandwidth_bytes_s = self._bandwidth.bytes_s
        if not watch.standing_rounds:
            self._clear_rate = self.bandwidth_bytes_s

    def _check_plateau(self, result: AckResult) -> None:
        """End the search when the bandwidth has stopped growing."""
        if self.phase is not Phase.STARTUP or result.app_limited or not self._pressure.limited_by_path:
            return
        if self.bandwidth_bytes_s >= self._plateau_rate * PLATEAU_GROWTH:
            self._plateau_rate = self.bandwidth_bytes_s
            self._plateau_rounds = 0
            return
        self._plateau_rounds += 1
        if self._plateau_rounds >= PLATEAU_ROUNDS:
            self.phase = Phase.DRAIN

    def _take_rtt(self, now: float, result: AckResult, rtt: RttEstimator) -> bool:
        """Put a round-trip time into the filter, a windowed minimum; tell whether the old one had run out."""
        if self.min_rtt is None:
            if result.rtt_sampled:
                self.min_rtt = rtt.latest
                self._min_rtt_at = now
            return False
        expired = now > self._min_rtt_at + (COLLAPSED_S if self._collapsed() else MIN_RTT_WINDOW_S)
        if result.rtt_sampled and (expired or rtt.latest <= self.min_rtt):
            self.min_rtt = rtt.latest
            self._min_rtt_at = now
        if result.rtt_sampled:
            self._watch.on_sample(now, rtt.latest, self.min_rtt)
        self._spread = min(rtt.smoothed + 2 * rtt.variance - self.min_rtt, MAX_SPREAD_S)
        return expired

    def _collapsed(self) -> bool:
        """Tell whether a queue that stays has taken most of the bandwidth, as it does if the path got longer."""
        return self._watch.shared and self.bandwidth_bytes_s < COLLAPSED * self._clear_rate

    def _change_phase(self, now: float, expired: bool, new_round: bool, in_flight: int, delivered: int) -> None:
        """Move on in the diagram above."""
        if self.phase is Phase.PROBE_RTT:
            self._probe_rtt(now, new_round, in_flight, delivered)
        elif expired:
            self.phase = Phase.PROBE_RTT
            self._probe_rtt_done_at = None
        elif self.phase is Phase.STARTUP:
            if self._round > BURST_ROUNDS and self._watch.grows(now):
                self._plateau_rounds = PLATEAU_ROUNDS
                self.phase = Phase.DRAIN
        elif self.phase is Phase.DRAIN:
            if in_flight <= self._product(1.0) or not self._watch.risen:
                self._cruise()
        else:
            drained = CYCLE_GAINS[self._cycle] < 1 and in_flight <= self._product(1.0)
            if new_round or drained:
                self._next_in_cycle()

    def _next_in_cycle(self) -> None:
        """Go on in the cycle; a probe that found more is repeated at once, and after `PROBE_WINS` the search begins."""
        self._cycle = (self._cycle + 1) % len(CYCLE_GAINS)
        if self._cycle == PROBE_KNOWN and self._probe_won():
            self._cycle = 0
            self._wins += 1
            if self._wins == PROBE_WINS:
                self._wins = 0
                self._plateau_rate = 0.0
                self._plateau_rounds = 0
                self.phase = Phase.STARTUP
        elif self._cycle == PROBE_KNOWN:
            self._wins = 0
        if self._cycle == 0:
            self._probe_from = self.bandwidth_bytes_s

    def _probe_won(self) -> bool:
        """Tell whether the bandwidth grew by half of what the probe tried, and no queue did."""
        if not self.min_rtt or self._watch.risen or self._ceiling.bytes < inf:
            return False
        tried = min(CYCLE_GAINS[0] - 1, STANDING_S / self.min_rtt)
        return self.bandwidth_bytes_s >= (1 + tried / 2) * self._probe_from

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
        self._cycle = AFTER_PROBE
        self._probe_from = inf

    def _set_rate_and_window(self) -> None:
        """Work out rate and window from the model."""
        rate_gain = CRUISE_MARGIN
        if self.phase is Phase.STARTUP:
            rate_gain = STARTUP_GAIN
        elif self.phase is Phase.DRAIN:
            rate_gain = 1 / STARTUP_GAIN
        elif self.phase is Phase.CRUISE:
            rate_gain = self._cycle_gain() * CRUISE_MARGIN
        rate = rate_gain * self.bandwidth_bytes_s
        if self.phase is Phase.STARTUP:
            # The first samples see only the first few packets; the window bounds what a rate too high can do.
            spread = STARTUP_SPREAD * self.window_bytes / self.min_rtt if self.min_rtt else inf
            rate = max(rate, min(self.rate_bytes_s, spread))
        self.rate_bytes_s = min(max(rate, MIN_RATE_PACKETS_S * self._packet_bytes), self._max_rate)
        window = self._window()
        floor = self._start_window if self.phase is Phase.STARTUP else self._min_window
        self.window_bytes = int(min(max(window, floor), MAX_WINDOW_BYTES))

    def _window(self) -> float:
        """Return the bytes that the model has in flight."""
        product = self._product(1.0)
        if self.phase is Phase.PROBE_RTT:
            return PROBE_RTT_GAIN * product + self._allowance()
        if self.phase is not Phase.CRUISE:
            return WINDOW_GAIN * product + self._allowance()
        rate = self.bandwidth_bytes_s
        if self._watch.shared:
            # Others' queue lengthens the path: a window that ignored it would lower the rate, and the rate the window.
            queue_s = min(self._watch.queue_s, MOST_QUEUE_S) + CLEAR_S
            window = max(WINDOW_GAIN * product + self._bunch(), product + queue_s * rate, STANDING_S * rate)
        else:
            standing = min((WINDOW_GAIN - 1) * product + self._allowance(), STANDING_S * rate)
            window = product + max(standing, self._bunch())
        self._ceiling.lift(window)
        return max(min(window, self._ceiling.bytes), product, LEAST_WINDOW_S * rate)

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

    def _bunch(self) -> float:
        """Return the bytes that are in flight only because ACKs come bunched."""
        return self._bunching.bytes(self.bandwidth_bytes_s)

    def _allowance(self) -> float:
        """Return the bytes that are in flight only because ACKs come bunched or scattered."""
        bunched = self._bunch()
        if self.phase is Phase.STARTUP:
            return bunched
        return max(bunched, self._spread * self.bandwidth_bytes_s)
