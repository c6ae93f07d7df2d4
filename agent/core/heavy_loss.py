"""Whether a path loses so much that it is being sent more than it carries, and what it does carry then."""

HEAVY_LOSS = 0.2
"""Share of lost bytes above which the path is being sent more than it carries."""
LOSS_SAMPLE_PACKETS = 50
"""Packets that a share of lost bytes is taken over: at 10 % random loss one sample in a hundred exceeds a fifth."""
HEAVY_SAMPLES = 2
"""Such shares in a row that it takes: one may be chance."""


class HeavyLoss:
    """Watches the share of bytes that a path loses, round by round.

    Args:
        packet_bytes: Bytes of a full datagram.
    """

    __slots__ = ("_arrived", "_best_rate", "_heavy", "_least_bytes", "_lost")

    def __init__(self, packet_bytes: int) -> None:
        self._least_bytes = LOSS_SAMPLE_PACKETS * packet_bytes
        # This sample so far.
        self._arrived = 0
        self._lost = 0
        self._heavy = 0
        self._best_rate = 0.0

    def on_bytes(self, arrived_bytes: int, lost_bytes: int) -> None:
        """Take in what arrived, and what was lost."""
        self._arrived += arrived_bytes
        self._lost += lost_bytes

    def on_rate(self, rate_bytes_s: float) -> None:
        """Take in a delivery rate."""
        self._best_rate = max(self._best_rate, rate_bytes_s)

    def end_round(self) -> float | None:
        """Return the highest rate of these rounds, bytes per second, if they lost too much; None if not."""
        total = self._arrived + self._lost
        if total < self._least_bytes:
            return None
        heavy = self._lost > HEAVY_LOSS * total
        self._arrived = self._lost = 0
        self._heavy = self._heavy + 1 if heavy else 0
        if heavy and self._heavy < HEAVY_SAMPLES:
            return None
        best, self._best_rate, self._heavy = self._best_rate, 0.0, 0
        return best if heavy else None
