"""Consecutive pieces of a file that are written together: one call for a hundred, not one for each."""

from __future__ import annotations


class PieceRun:
    """Consecutive pieces that wait to be written together."""

    def __init__(self) -> None:
        self.start = 0
        self.pieces: list[bytes] = []
        self.tags: list[bytes] = []
        self.size_bytes = 0

    @property
    def stop(self) -> int:
        """One past the last piece's number."""
        return self.start + len(self.pieces)

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def __contains__(self, number: int) -> bool:
        return self.start <= number < self.start + len(self.pieces)

    def add(self, number: int, data: bytes, tag: bytes) -> None:
        """Add the piece that follows; the first may have any number."""
        if not self.pieces:
            self.start = number
        self.pieces.append(data)
        self.tags.append(tag)
        self.size_bytes += len(data)

    def piece(self, number: int) -> bytes:
        """Return a piece that waits."""
        return self.pieces[number - self.start]

    def tag(self, number: int) -> bytes:
        """Return the tag of a piece that waits."""
        return self.tags[number - self.start]

    def clear(self) -> None:
        """Forget all."""
        self.start = 0
        self.pieces.clear()
        self.tags.clear()
        self.size_bytes = 0
