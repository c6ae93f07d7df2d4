"""Pacing of one hop: bytes that may go now, from tokens that trickle in at the controller's rate.

Theory of operation. Tokens are bytes. They run up to a small burst while the sender is idle, and may be overdrawn by
the last packet of a train. A sender that was told when to come back (`next_at`) and comes late, because timers are, is
owed what it missed: then they run up to a deeper bound, so that a busy event loop does not lower the rate.

Where all hops together must keep to a rate, their pacers draw on one `SharedRate` as well. What comes in there is
divided equally between those that lack something; what one cannot hold goes to the others, and what none can hold to
whoever comes next. So the rate is used as long as anyone wants it, and nobody takes more than the others that wait.

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


class Share:
    """What one pacer has of a `SharedRate`.

    Attributes:
        tokens: Bytes that it may send; below 0 what it sent beyond.
    """

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0.0


class SharedRate:
    """A token bucket that several pacers draw on, each by a `Share` of its own.

    Args:
        rate_bytes_s: Bytes per second of all of them together.
        now: Monotonic seconds.
        packet_bytes: Bytes of a full datagram.
    """

    __slots__ = ("_at", "_burst", "_lacking", "_late", "_least", "_packet", "_rate", "_spare")

    def __init__(self, rate_bytes_s: float, now: float, packet_bytes: int = 1_200) -> None:
        self._packet = packet_bytes
        self._rate = max(rate_bytes_s, MIN_RATE_BYTES_S)
        self._least = 2.0 * packet_bytes
        self._burst = max(self._least, BURST_S * self._rate)
        self._late = LATE_S * self._rate
        self._at = now
        # Tokens that were nobody's when they came.
        self._spare = self._burst
        # Shares that are not full. One whose pacer is gone fills up and leaves by itself.
        self._lacking: dict[Share, None] = {}

    def budget(self, share: Share, now: float) -> float:
        """Return the bytes that may go now by this share; below 0 what was sent beyond."""
        self._earn(now)
        return share.tokens + self._spare

    def spend(self, share: Share, size_bytes: int, now: float) -> None:
        """Take the bytes that were sent."""
        self._earn(now)
        share.tokens -= size_bytes
        if share.tokens < 0:
            spare = min(self._spare, -share.tokens)
            share.tokens += spare
            self._spare -= spare
        self._lacking[share] = None

    def next_at(self, share: Share, train_bytes: float, now: float) -> float:
        """Return when a train may go by this share, or as much of it as is worth waiting for."""
        self._earn(now)
        self._lacking[share] = None
        income = self._rate / len(self._lacking)
        lacking = min(train_bytes, max(float(self._packet), GATHER_S * income)) - share.tokens - self._spare
        return now + max(lacking / income, LEAST_WAIT_S) if lacking > 0.5 else now

    def _earn(self, now: float) -> None:
        """Divide the tokens since the last look."""
        if now <= self._at:
            return
        income = (now - self._at) * self._rate
        self._at = now
        lacking = self._lacking
        while lacking:
            full = max(self._least, self._late / len(lacking))
            part = income / len(lacking)
            filled = [share for share in lacking if share.tokens + part >= full]
            if not filled:
                for share in lacking:
                    share.tokens += part
                return
            for share in filled:
                taken = max(full - share.tokens, 0.0)
                share.tokens += taken
                income -= taken
                del lacking[share]
        self._spare = min(self._spare + income, self._burst)


class Pacer:
    """A token bucket whose rate may change.

    After sending, call `spend`; when `budget` is below a packet, come back at `next_at`.

    Args:
        rate_bytes_s: Bytes per second.
        now: Monotonic seconds.
        packet_bytes: Bytes of a full datagram.
        shared: The rate that all pacers of a device keep to together; None where there is no such.
    """

    __slots__ = ("_at", "_burst", "_late", "_packet", "_rate", "_share", "_shared", "_tokens", "_train", "_waiting")

    def __init__(
        self, rate_bytes_s: float, now: float, packet_bytes: int = 1_200, shared: SharedRate | None = None
    ) -> None:
        self._packet = packet_bytes
        self._shared = shared
        self._share = Share()
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
        tokens = self._tokens
        if self._shared is not None:
            tokens = min(tokens, self._shared.budget(self._share, now))
        # To the nearest byte, as in next_at: a sum of floats may end a hair below the packet that was waited for.
        return int(tokens + 0.5) if tokens > 0 else 0

    def spend(self, size_bytes: int, now: float) -> None:
        """Take the bytes that were sent; more than the budget makes a debt that is paid off first."""
        self._earn(now)
        self._tokens -= size_bytes
        self._waiting = False
        if self._shared is not None:
            self._shared.spend(self._share, size_bytes, now)

    def next_at(self, now: float) -> float:
        """Return when a train may go, in monotonic seconds, `now` if it may go at once."""
        self._earn(now)
        lacking = self._train - self._tokens
        at = now
        if lacking > 0.5:
            self._waiting = True
            at = now + max(lacking / self._rate, LEAST_WAIT_S)
        if self._shared is not None:
            at = max(at, self._shared.next_at(self._share, self._train, now))
        return at

    def _earn(self, now: float) -> None:
        """Add the tokens since the last look."""
        if now > self._at:
            bound = self._late if self._waiting else self._burst
            self._tokens = min(self._tokens + (now - self._at) * self._rate, bound)
            self._at = now
