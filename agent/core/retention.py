"""How long a message stream's chunks are kept for late joiners: by bytes and by age, oldest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Retention:
    """Remembers what was stored when, and says which numbers may go.

    Args:
        most_bytes: plain bytes kept at most.
        most_s: seconds kept at most.
    """

    def __init__(self, most_bytes: int, most_s: float) -> None:
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._kept: deque[tuple[int, int, float]] = deque()
        self._kept_bytes = 0

    def on_kept(self, start: int, sizes_bytes: Iterable[int], now: float) -> None:
        """Note stored consecutive chunks, the first numbered ``start``, by the plain bytes of each."""
        for number, size_bytes in enumerate(sizes_bytes, start):
            self._kept.append((number, size_bytes, now))
            self._kept_bytes += size_bytes

    def expire(self, now: float) -> int:
        """Return one past the highest number that passed its retention; 0 if none did since the last call."""
        above = 0
        while self._kept:
            number, size_bytes, at = self._kept[0]
            if self._kept_bytes <= self._most_bytes and now - at <= self._most_s:
                break
            self._kept.popleft()
            self._kept_bytes -= size_bytes
            above = max(above, number + 1)
        return above
