"""Counts what crosses each link, by looking at the datagrams themselves.

A datagram's own word that it is a repair is not believed: the network says which copies reach the other end, and a
repair of a chunk that reached it is counted as needless.

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
        needless: Repeats and pulled chunks of which an earlier copy on this link reached the other end.
        data_bytes: UDP payload bytes of the first crossings and the duplicates.
        repair_bytes: UDP payload bytes of the repeats and the pulled chunks.
        counts: How often each number crossed as data (index = number; stops at 255).
        epochs: Under which epoch (short form) each number first crossed as data (index = number).
        arrivals: How many copies of each number reach the other end, of whatever kind (index = number; stops at 255).
    """

    chunks: int = 0
    duplicates: int = 0
    repeats: int = 0
    pulled: int = 0
    needless: int = 0
    data_bytes: int = 0
    repair_bytes: int = 0
    counts: bytearray = field(default_factory=bytearray, repr=False)
    epochs: array[int] = field(default_factory=lambda: array("L"), repr=False)
    arrivals: bytearray = field(default_factory=bytearray, repr=False)

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

    def arrives(self, number: int) -> None:
        """Count a copy that reaches the other end."""
        arrivals = self.arrivals
        if number >= len(arrivals):
            arrivals.extend(bytes(number + _GROWTH - len(arrivals)))
        if arrivals[number] < _MOST_TIMES:
            arrivals[number] += 1

    def vanishes(self, number: int) -> None:
        """Take back that a copy reaches the other end."""
        if self.arrived(number):
            self.arrivals[number] -= 1

    def arrived(self, number: int) -> bool:
        """Tell whether a copy reached the other end, or will."""
        return number < len(self.arrivals) and self.arrivals[number] > 0


class Oracle:
    """The crossings of every link by stream."""

    def __init__(self) -> None:
        self._crossings: dict[tuple[LinkKey, int], Crossings] = {}

    def note(self, link: LinkKey, datagram: bytes) -> None:
        """Count one datagram that is handed to a link, whether or not it arrives.

        A datagram that arrives is told of next, by `arrives`, before another one is noted.

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
        if crossings.arrived(number):
            crossings.needless += 1

    def arrives(self, link: LinkKey, datagram: bytes) -> None:
        """Take down that a datagram which was noted will reach the other end."""
        found = self._find(link, datagram)
        if found is not None:
            crossings, number = found
            crossings.arrives(number)

    def vanishes(self, link: LinkKey, datagram: bytes) -> None:
        """Take down that a datagram of which that was said does not reach the other end after all."""
        found = self._find(link, datagram)
        if found is not None:
            crossings, number = found
            crossings.vanishes(number)

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
                total.needless += crossings.needless
                total.data_bytes += crossings.data_bytes
                total.repair_bytes += crossings.repair_bytes
        return total

    def _find(self, link: LinkKey, datagram: bytes) -> tuple[Crossings, int] | None:
        """Return where the chunk in a datagram is counted, and its number; None if it was not counted."""
        if len(datagram) < CHUNK_OVERHEAD_BYTES:
            return None
        first, _, _, _, _, stream, word = BOTH_HEADERS.unpack_from(datagram)
        number = word & NUMBER_MASK
        if not _DATA <= first >> 4 <= _PULLED or number > _MOST_NUMBER:
            return None
        crossings = self._crossings.get((link, stream))
        return None if crossings is None else (crossings, number)
