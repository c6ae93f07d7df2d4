"""Counts what crosses each link, by looking at the datagrams themselves.

It shares nothing with the agents' own counters, so that a test can hold one against the other.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Final

from common.datagrams import BOTH_HEADERS, CHUNK_OVERHEAD_BYTES, NUMBER_MASK, PacketType
from common.ids import LinkKey

_DATA: Final = int(PacketType.DATA)
_REPEAT: Final = int(PacketType.REPEAT)
_PULLED: Final = int(PacketType.PULLED)
_MOST_TIMES: Final = 255
_MOST_NUMBER: Final = 1 << 26  # Beyond any simulated stream: only made-up datagrams say more.
_GROWTH: Final = 1024


@dataclass(slots=True)
class Crossings:
    """What crossed one link, both directions together, for one stream.

    Attributes:
        chunks: Different chunks that crossed as data.
        duplicates: Crossings as data of a chunk that had crossed this link before.
        repeats: Chunks sent again on this link because they, or their acknowledgement, were lost.
        pulled: Chunks sent as an answer to WANT.
        data_bytes: UDP payload bytes of the first crossings and the duplicates.
        repair_bytes: UDP payload bytes of the repeats and the pulled chunks.
        counts: How often each number crossed as data (index = number; stops at 255).
        epochs: Under which epoch (short form) each number first crossed as data (index = number).
    """

    chunks: int = 0
    duplicates: int = 0
    repeats: int = 0
    pulled: int = 0
    data_bytes: int = 0
    repair_bytes: int = 0
    counts: bytearray = field(default_factory=bytearray, repr=False)
    epochs: array[int] = field(default_factory=lambda: array("L"), repr=False)

    @property
    def repairs(self) -> int:
        """Chunks sent beyond the first crossing to make up for loss or for a tree that changed."""
        return self.repeats + self.pulled

    def times(self, number: int) -> int:
        """Return how often a chunk crossed as data."""
        return self.counts[number] if number < len(self.counts) else 0

    def numbers(self) -> list[int]:
        """Return the numbers that crossed as data, ascending."""
        return [number for number, times in enumerate(self.counts) if times]

    def note(self, number: int, epoch: int, size_bytes: int) -> None:
        """Count one crossing as data."""
        self.data_bytes += size_bytes
        counts = self.counts
        if number >= len(counts):
            more = number + _GROWTH - len(counts)
            counts.extend(bytes(more))
            self.epochs.extend([0] * more)
        times = counts[number]
        if times:
            self.duplicates += 1
        else:
            self.chunks += 1
            self.epochs[number] = epoch
        if times < _MOST_TIMES:
            counts[number] = times + 1


class Oracle:
    """The crossings of every link by stream."""

    def __init__(self) -> None:
        self._crossings: dict[tuple[LinkKey, int], Crossings] = {}

    def note(self, link: LinkKey, datagram: bytes) -> None:
        """Count one datagram that was handed to a link, whether or not it arrives.

        Args:
            link: The link.
            datagram: UDP payload.
        """
        if len(datagram) < CHUNK_OVERHEAD_BYTES:
            return
        first, _, _, epoch, _, stream, word = BOTH_HEADERS.unpack_from(datagram)
        kind = first >> 4
        number = word & NUMBER_MASK
        if not _DATA <= kind <= _PULLED or number > _MOST_NUMBER:
            return
        crossings = self._crossings.get((link, stream))
        if crossings is None:
            crossings = self._crossings[link, stream] = Crossings()
        if kind == _DATA:
            crossings.note(number, epoch, len(datagram))
            return
        crossings.repair_bytes += len(datagram)
        if kind == _REPEAT:
            crossings.repeats += 1
        else:
            crossings.pulled += 1

    def crossings(self, link: LinkKey, stream: int | None = None) -> Crossings:
        """Return what crossed a link.

        Args:
            link: The link.
            stream: A stream's short form; None adds all streams up (without counts by number).
        """
        if stream is not None:
            return self._crossings.get((link, stream), Crossings())
        total = Crossings()
        for (other, _), crossings in self._crossings.items():
            if other == link:
                total.chunks += crossings.chunks
                total.duplicates += crossings.duplicates
                total.repeats += crossings.repeats
                total.pulled += crossings.pulled
                total.data_bytes += crossings.data_bytes
                total.repair_bytes += crossings.repair_bytes
        return total
