"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Waits that double up to a limit, each shortened by chance so that many agents do not come at once.

    Args:
        rng: what the chance is taken from.
        first: seconds of the first wait, at most.
        most: seconds of any wait, at most.
    """

    def __init__(self, rng: random.Random, *, first: float = 0.25, most: float = 15.0) -> None:
        self._rng = rng
        self._first = first
        self._most = most
        self._bound = first

    def next(self) -> float:
        """Return the seconds to wait now: between half the bound and the bound, which then doubles."""
        bound = self._bound
        self._bound = min(2 * bound, self._most)
        return self._rng.uniform(bound / 2, bound)

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._bound = self._first
