"""The window after the bottleneck's queue was full: less than was in flight then, and slowly more again.

Source:
    RFC 9438 sections 4.3 and 4.6, for the figures; draft-cardwell-iccrg-bbr-congestion-control-02 (inflight_hi).
"""

from math import inf

BACKOFF = 0.7
"""Factor of what was in flight when the queue was full, for the window afterwards (RFC 9438 section 4.6)."""
GROWTH_PACKETS = 0.5
"""Packets by which that window grows in a round: what goes with the factor (RFC 9438 section 4.3)."""
GROWTH_ALONE = 1.01
"""Factor by which it grows where the queue is ours alone."""


class Ceiling:
    """A bound of the window that full queues lower.

    Args:
        packet_bytes: Bytes of a full datagram.

    Attributes:
        bytes: The bound; infinity for none.
    """

    __slots__ = ("_flight", "_packet", "_since_cut", "bytes")

    def __init__(self, packet_bytes: int) -> None:
        self.bytes = inf
        self._packet = packet_bytes
        self._flight = 0
        self._since_cut = 0

    def on_flight(self, in_flight_bytes: int) -> None:
        """Take in what was in flight."""
        self._flight = max(self._flight, in_flight_bytes)

    def end_round(self, *, full: bool, shared: bool, least_bytes: float) -> None:
        """Lower or raise the bound at the end of a round.

        What the round after a cut lost was sent before it, and says nothing.

        Args:
            full: Whether the round found the queue full.
            shared: Whether others keep a queue in the bottleneck.
            least_bytes: What no cut goes below.
        """
        self._since_cut += 1
        if full and self._since_cut > 1:
            self.bytes = min(max(BACKOFF * self._flight, least_bytes), self.bytes)
            self._since_cut = 0
        elif shared:
            self.bytes += GROWTH_PACKETS * self._packet
        else:
            self.bytes *= GROWTH_ALONE
        self._flight = 0

    def lift(self, window_bytes: float) -> None:
        """Drop the bound if it does not bind a window."""
        if self.bytes >= window_bytes:
            self.bytes = inf
