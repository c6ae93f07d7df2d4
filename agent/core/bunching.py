"""How many bytes are acknowledged in one bunch: a window needs room for them beyond what the path holds.

Source:
    draft-cardwell-iccrg-bbr-congestion-control-02 section 4.5.5 ("extra acked").
"""

HALF_ROUNDS = 5
"""Rounds in each of the two halves of the filter."""
MAX_BUNCH_S = 0.1
"""Seconds of the bandwidth that a bunch may count at most."""


class Bunching:
    """A windowed maximum of what is acknowledged beyond what the bandwidth explains."""

    __slots__ = ("_before", "_bytes", "_most", "_rounds", "_since")

    def __init__(self) -> None:
        self._since = 0.0
        self._bytes = 0
        # Most bytes that came bunched, in this half of the filter and in the one before.
        self._most = 0.0
        self._before = 0.0
        self._rounds = 0

    def restart(self, now: float) -> None:
        """Begin to count anew, as a sender does that was idle."""
        self._since = now
        self._bytes = 0

    def end_round(self) -> None:
        """Note that a round is over."""
        self._rounds += 1
        if self._rounds % HALF_ROUNDS == 0:
            self._before = self._most
            self._most = 0.0

    def on_ack(self, now: float, acked_bytes: int, bandwidth_bytes_s: float, window_bytes: int) -> None:
        """Take in an ACK.

        Args:
            now: Monotonic seconds.
            acked_bytes: What it covers.
            bandwidth_bytes_s: Bytes per second that the path is taken to carry.
            window_bytes: What may be in flight: no bunch is larger.
        """
        expected = bandwidth_bytes_s * (now - self._since)
        if self._bytes <= expected:
            self.restart(now)
            expected = 0.0
        self._bytes += acked_bytes
        self._most = max(self._most, min(self._bytes - expected, window_bytes))

    def bytes(self, bandwidth_bytes_s: float) -> float:
        """Return the bytes that are in flight only because ACKs come bunched."""
        return min(max(self._most, self._before), MAX_BUNCH_S * bandwidth_bytes_s)
