"""Counts what crosses each link, by looking at the datagrams themselves.

A datagram's own word that it is a repair is not believed: the network says which copies reach the other end, and a
repair of a chunk that reached it is counted as needless.

A chunk in fragments counts once, with the bytes of them all; it reaches the other end when every fragment does.

It shares nothing with the agents' own counters, so that a test can hold one against the other.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Final

from common.datagrams import (
    BOTH_HEADERS,
    CHUNK_HEADER,
    CHUNK_OVERHEAD_BYTES,
    FRAGMENT_HEADER,
    FRAGMENT_HEADERS_BYTES,
    HOP_HEADER,
    HOP_HEADER_BYTES,
    NUMBER_MASK,
    PacketType,
)
from common.ids import LinkKey

_DATA: Final = int(PacketType.DATA)
_REPEAT: Final = int(PacketType.REPEAT)
_PULLED: Final = int(PacketType.PULLED)
_FRAGMENT: Final = int(PacketType.FRAGMENT)
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


@dataclass(frozen=True, slots=True)
class _Fragment:
    """What a fragment says of itself: its chunk's stream (short form) and type, its place, and which set it is of."""

    stream: int
    kind: int
    epoch: int
    index: int
    count: int
    set: tuple[LinkKey, int, int]


@dataclass(slots=True)
class _Set:
    """The fragments of one chunk, sent once: the chunk's number, and how many of each reach the other end."""

    number: int
    arrivals: list[int]


class Oracle:
    """The crossings of every link by stream."""

    def __init__(self) -> None:
        self._crossings: dict[tuple[LinkKey, int], Crossings] = {}
        self._sets: dict[tuple[LinkKey, int, int], _Set] = {}

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
        if kind == _FRAGMENT:
            self._note_fragment(link, _fragment(link, datagram), datagram)
            return
        number = word & NUMBER_MASK
        if _DATA <= kind <= _PULLED and number <= _MOST_NUMBER:
            self._note_chunk(link, stream, kind, number, epoch, len(datagram))

    def _note_chunk(self, link: LinkKey, stream: int, kind: int, number: int, epoch: int, size_bytes: int) -> None:
        crossings = self._crossings.get((link, stream))
        if crossings is None:
            crossings = self._crossings[link, stream] = Crossings()
        if kind == _DATA:
            crossings.note(number, epoch, size_bytes)
            return
        crossings.repair_bytes += size_bytes
        if kind == _REPEAT:
            crossings.repeats += 1
        else:
            crossings.pulled += 1
        if crossings.arrived(number):
            crossings.needless += 1

    def _note_fragment(self, link: LinkKey, fragment: _Fragment | None, datagram: bytes) -> None:
        """Count the chunk with its first fragment, and the bytes of the others."""
        if fragment is None:
            return
        if not fragment.index:
            (_, word) = CHUNK_HEADER.unpack_from(datagram, FRAGMENT_HEADERS_BYTES)
            number = word & NUMBER_MASK
            if number <= _MOST_NUMBER:
                self._sets[fragment.set] = _Set(number, [0] * fragment.count)
                self._note_chunk(link, fragment.stream, fragment.kind, number, fragment.epoch, len(datagram))
            return
        crossings = self._crossings.get((link, fragment.stream))
        if crossings is not None and fragment.kind == _DATA:
            crossings.data_bytes += len(datagram)
        elif crossings is not None:
            crossings.repair_bytes += len(datagram)

    def _fragment_moves(self, link: LinkKey, datagram: bytes, by: int) -> None:
        """Take down that one fragment more, or one less, reaches the other end: the chunk does if all of them do."""
        fragment = _fragment(link, datagram)
        found = None if fragment is None else self._sets.get(fragment.set)
        if fragment is None or found is None or fragment.count != len(found.arrivals):
            return
        before = min(found.arrivals)
        found.arrivals[fragment.index] += by
        crossings = self._crossings[link, fragment.stream]
        if min(found.arrivals) > before:
            crossings.arrives(found.number)
        elif min(found.arrivals) < before:
            crossings.vanishes(found.number)

    def arrives(self, link: LinkKey, datagram: bytes) -> None:
        """Take down that a datagram which was noted will reach the other end."""
        if datagram and datagram[0] >> 4 == _FRAGMENT:
            self._fragment_moves(link, datagram, 1)
            return
        found = self._find(link, datagram)
        if found is not None:
            crossings, number = found
            crossings.arrives(number)

    def vanishes(self, link: LinkKey, datagram: bytes) -> None:
        """Take down that a datagram of which that was said does not reach the other end after all."""
        if datagram and datagram[0] >> 4 == _FRAGMENT:
            self._fragment_moves(link, datagram, -1)
            return
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


def _fragment(link: LinkKey, datagram: bytes) -> _Fragment | None:
    """Read a fragment's headers; None if what it says cannot be."""
    if len(datagram) < FRAGMENT_HEADERS_BYTES + CHUNK_HEADER.size:
        return None
    _, session, hop_number, epoch, _ = HOP_HEADER.unpack_from(datagram)
    stream, kind, place = FRAGMENT_HEADER.unpack_from(datagram, HOP_HEADER_BYTES)
    index, count = place >> 4, place & 15
    if not _DATA <= kind <= _PULLED or index >= count:
        return None
    return _Fragment(stream, kind, epoch, index, count, (link, session, hop_number - index))
