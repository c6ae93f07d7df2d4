"""Whether a sender tried as hard as it might: only then does a low delivery rate say something about the path.

Theory of operation. What stops a sender is its window, its pacer, or itself: it has nothing to send, or no time. In
each round trip the window was the limit if it was ever full, and the pacer if about as much was sent as it let go.

Source:
    RFC 9002 section 7.8 (underutilizing the congestion window).
"""

PACED_SHARE = 0.9
"""Share of what the pacer lets go from which on it was the limit: trains are not cut to the byte."""


class Pressure:
    """Watches what limits a sender, round by round.

    Attributes:
        limited_by_path: Whether window or pacer was the limit in the round that ended last; so it is at the start.
    """

    __slots__ = ("_allowed", "_at", "_filled", "_sent", "limited_by_path")

    def __init__(self) -> None:
        self.limited_by_path = True
        self._at: float | None = None
        # This round so far: bytes sent, bytes that the pacer let go, whether the window was full.
        self._sent = 0
        self._allowed = 0.0
        self._filled = False

    def on_sent(self, size_bytes: int) -> None:
        """Take in bytes that were sent."""
        self._sent += size_bytes

    def on_flight(self, in_flight_bytes: int, window_bytes: int, packet_bytes: int) -> None:
        """Take in what is in flight; the window is full if it has no room for another packet."""
        if in_flight_bytes + packet_bytes > window_bytes:
            self._filled = True

    def on_time(self, now: float, rate_bytes_s: float) -> None:
        """Let the pacer's rate count up to now."""
        if self._at is not None:
            self._allowed += rate_bytes_s * (now - self._at)
        self._at = now

    def end_round(self) -> None:
        """Draw the conclusion from a round that is over, and begin the next."""
        self.limited_by_path = self._filled or self._sent >= PACED_SHARE * self._allowed
        self._sent = 0
        self._allowed = 0.0
        self._filled = False
