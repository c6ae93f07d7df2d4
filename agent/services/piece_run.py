"""Consecutive pieces of a file that are written together: one call for hundreds, not one for each."""

from __future__ import annotations

from collections.abc import Sequence


class PieceRun:
    """Consecutive pieces.

    Args:
        start: the first piece's number.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.pieces: list[bytes] = []
        """Their bytes; empty where only the tags are kept."""
        self.tags: list[bytes] = []

    @property
    def stop(self) -> int:
        """One past the last piece's number."""
        return self.start + len(self.tags)

    def __contains__(self, number: int) -> bool:
        return self.start <= number < self.start + len(self.tags)


class Gathering:
    """Runs that wait to be written together, in the order in which they came."""

    def __init__(self) -> None:
        self.runs: list[PieceRun] = []
        self.size_bytes = 0
        self.began_at = 0.0
        """When the first of them came, in monotonic seconds."""

    def add(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes], now: float) -> None:
        """Add pieces with their tags; no pieces where only tags are kept."""
        runs = self.runs
        if not runs:
            self.began_at = now
        if not runs or runs[-1].stop != start:
            runs.append(PieceRun(start))
        run = runs[-1]
        run.pieces += pieces
        run.tags += tags
        self.size_bytes += sum(map(len, pieces))

    def clear(self) -> None:
        """Forget them; the list that was handed out stays as it is."""
        self.runs = []
        self.size_bytes = 0
