"""The bandwidth of a path: the highest delivery rate of the last rounds."""

from collections import deque

BANDWIDTH_ROUNDS = 10
"""Rounds for which a sample counts: more than a cycle of the controller, so that a probe's result outlives it."""


class BandwidthFilter:
    """A windowed maximum of delivery rates.

    Only rounds that could have measured the path age it: one in which the sender had too little to send proves nothing
    by a low rate.

    Args:
        initial_bytes_s: Bytes per second taken until there is a sample.

    Attributes:
        bytes_s: The bandwidth, bytes per second.
    """

    __slots__ = ("_counted", "_round", "_samples", "bytes_s")

    def __init__(self, initial_bytes_s: float) -> None:
        self.bytes_s = initial_bytes_s
        # The highest samples, falling, each with the number of the round that counted.
        self._samples: deque[tuple[int, float]] = deque()
        self._round = 0
        self._counted = -1

    def take(self, rate_bytes_s: float, round_number: int, *, limited: bool) -> bool:
        """Put in a sample.

        Args:
            rate_bytes_s: Bytes per second, above 0.
            round_number: The round that it comes from.
            limited: Whether it was not the path that limited it: then it counts only if it is higher.

        Returns:
            Whether it counts.
        """
        if limited:
            if rate_bytes_s <= self.bytes_s:
                return False
        elif self._counted != round_number:
            self._counted = round_number
            self._round += 1
        samples = self._samples
        while samples and samples[-1][1] <= rate_bytes_s:
            samples.pop()
        samples.append((self._round, rate_bytes_s))
        self.forget(BANDWIDTH_ROUNDS)
        return True

    def forget(self, rounds: int) -> None:
        """Let only so many rounds count, and the newest sample."""
        samples = self._samples
        while len(samples) > 1 and samples[0][0] <= self._round - rounds:
            samples.popleft()
        if samples:
            self.bytes_s = samples[0][1]

    def lower(self, rate_bytes_s: float) -> None:
        """Take a rate in place of all samples if it is lower than they say."""
        if 0 < rate_bytes_s < self.bytes_s:
            self.bytes_s = rate_bytes_s
            self._samples.clear()
            self._samples.append((self._round, rate_bytes_s))
