"""How often something may happen: a burst, and so many a second after it."""

from __future__ import annotations


class Allowance:
    """A bucket of tokens, full at first.

    Args:
        burst: how many it holds.
        per_s: how many flow in each second.
        now: monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one; False if there is none."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = max(self._at, now)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
