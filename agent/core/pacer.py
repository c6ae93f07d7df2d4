"""Pacing of one hop: bytes that may go now, from tokens that trickle in at the controller's rate.

Theory of operation. Tokens are bytes. They run up to a small burst while the sender is idle, and may be overdrawn by
the last packet of a train. A sender that was told when to come back (`next_at`) and comes late, because timers are, is
owed what it missed: then they run up to a deeper bound, so that a busy event loop does not lower the rate.

Source:
    RFC 9002 section 7.7.
"""

MAX_BURST_BYTES = 64 * 1024
"""Bytes of one burst at most: what one segmented send takes."""
BURST_S = 0.002
"""Seconds of the rate that may go in one burst."""
TRAIN_S = 0.001
"""Seconds of the rate that one train carries: timers are not set finer."""
GATHER_S = 0.004
"""Seconds for which a slow sender waits to gather packets to a train: each wake costs as much as several."""
GATHER_PACKETS = 4.0
"""Packets that it gathers at most."""
LATE_S = 0.010
"""Seconds of the rate that are owed to a sender whose timer fired late."""
LEAST_WAIT_S = 1e-6
"""Seconds of any wait at least: a shorter one may vanish when it is added to a clock that has run for weeks."""
MIN_RATE_BYTES_S = 100.0
"""Bytes per second below which a rate is not taken: it has to end some time."""


class Pacer:
    """A token bucket whose rate may change.

    After sending, call `spend`; when `budget` is below a packet, come back at `next_at`.

    Args:
        rate_bytes_s: Bytes per second.
        now: Monotonic seconds.
        packet_bytes: Bytes of a full datagram.
    """

    __slots__ = ("_at", "_burst", "_late", "_packet", "_rate", "_tokens", "_train", "_waiting")

    def __init__(self, rate_bytes_s: float, now: float, packet_bytes: int = 1_200) -> None:
        self._packet = packet_bytes
        self._at = now
        self._tokens = 0.0
        self._waiting = False
        self._rate = self._burst = self._late = self._train = 0.0
        self.set_rate(rate_bytes_s, now)
        self._tokens = self._burst

    @property
    def rate_bytes_s(self) -> float:
        """Bytes per second."""
        return self._rate

    @property
    def burst_bytes(self) -> int:
        """Bytes that may go at once after idling."""
        return int(self._burst)

    def set_rate(self, rate_bytes_s: float, now: float) -> None:
        """Change the rate; what was earned at the old one stays, up to the new burst."""
        rate = max(rate_bytes_s, MIN_RATE_BYTES_S)
        if rate == self._rate:
            return
        self._earn(now)
        self._rate = rate
        least = 2.0 * self._packet
        self._burst = min(max(least, BURST_S * self._rate), max(least, MAX_BURST_BYTES))
        self._late = max(self._burst, LATE_S * self._rate)
        gathered = min(GATHER_S * self._rate, GATHER_PACKETS * self._packet)
        self._train = min(max(float(self._packet), TRAIN_S * self._rate, gathered), self._burst)

    def budget(self, now: float) -> int:
        """Return the bytes that may go now, 0 or more."""
        self._earn(now)
        # To the nearest byte, as in next_at: a sum of floats may end a hair below the packet that was waited for.
        return int(self._tokens + 0.5) if self._tokens > 0 else 0

    def spend(self, size_bytes: int, now: float) -> None:
        """Take the bytes that were sent; more than the budget makes a debt that is paid off first."""
        self._earn(now)
        self._tokens -= size_bytes
        self._waiting = False

    def next_at(self, now: float) -> float:
        """Return when a train may go, in monotonic seconds, `now` if it may go at once."""
        self._earn(now)
        lacking = self._train - self._tokens
        if lacking <= 0.5:
            return now
        self._waiting = True
        return now + max(lacking / self._rate, LEAST_WAIT_S)

    def _earn(self, now: float) -> None:
        """Add the tokens since the last look."""
        if now > self._at:
            bound = self._late if self._waiting else self._burst
            self._tokens = min(self._tokens + (now - self._at) * self._rate, bound)
            self._at = now
