"""The sealed chunks of one stream that are kept in memory, for the slower next hops and for repairs.

Theory of operation. A chunk's place is its number modulo the size of the ring, so a run of consecutive chunks goes in
and comes out as one slice or two. A chunk gives way to the next one of its place: what is in order replaces what is
oldest. A second list says whose chunk is in each place.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.datagrams import CHUNK_OVERHEAD_BYTES

LEAST_PLACES = 64


class SealedRing:
    """Sealed chunks (chunk header, ciphertext, tag) by number.

    Args:
        limit_bytes: what the ring may hold.
        piece_bytes: plain bytes of the largest chunk.
    """

    __slots__ = ("_chunks", "_numbers", "_places")

    def __init__(self, limit_bytes: int, piece_bytes: int) -> None:
        self._places = max(limit_bytes // (piece_bytes + CHUNK_OVERHEAD_BYTES), LEAST_PLACES)
        self._chunks: list[bytes] = []
        self._numbers: list[int] = []

    def put(self, start: int, chunks: Sequence[bytes]) -> None:
        """Keep consecutive chunks, the first numbered ``start``; at most as many as there are places."""
        places = self._places
        if not self._chunks:
            self._chunks = [b""] * places
            self._numbers = [-1] * places
        at = start % places
        first = chunks[: places - at]
        rest = chunks[places - at : places]
        self._chunks[at : at + len(first)] = first
        self._numbers[at : at + len(first)] = range(start, start + len(first))
        if rest:
            self._chunks[: len(rest)] = rest
            self._numbers[: len(rest)] = range(start + len(first), start + len(first) + len(rest))

    def run(self, start: int, stop: int) -> list[bytes]:
        """Return the chunks from ``start`` on, up to ``stop`` or the first that is not here."""
        at = start % self._places
        end = at + min(stop - start, self._places)
        chunks, numbers = self._chunks[at:end], self._numbers[at:end]
        if end > self._places:
            chunks += self._chunks[: end - self._places]
            numbers += self._numbers[: end - self._places]
        here = 0
        if numbers == list(range(start, start + len(numbers))):
            here = len(numbers)
        else:
            while numbers[here] == start + here:
                here += 1
        return chunks[:here]

    def clear(self) -> None:
        """Give the memory back."""
        self._chunks = []
        self._numbers = []
