"""One stream on one hop: what is owed to that peer, what crossed, and what the peer said it holds."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from agent.core.rangeset import RangeSet
from common.datagrams import PacketType


class ChunkSource(Protocol):
    """Where a cursor's chunks come from: a stream."""

    short: int
    datagram_bytes: int
    """Bytes of its largest datagram."""
    urgent: bool
    """Whether its chunks go ahead of files."""
    active_at: float
    """When a chunk of it last moved here."""
    socket_channel: str | None
    """The channel whose own sockets carry it; None for the shared socket."""

    def sealed(self, start: int, stop: int) -> list[bytes]:
        """Return consecutive chunks as they travel (chunk header, ciphertext, tag).

        Returns:
            Those from ``start`` on, at most up to ``stop``; none if ``start`` itself cannot be sent.
        """


class Owed:
    """Numbers to be sent under one epoch and tree, as one packet type."""

    __slots__ = ("epoch", "kind", "numbers", "tree")

    def __init__(self, epoch: int, tree: int, kind: PacketType) -> None:
        self.epoch = epoch
        self.tree = tree
        self.kind = kind
        self.numbers = RangeSet()


class OwedRun(NamedTuple):
    """Consecutive numbers that may be sent now, all as one packet type.

    Attributes:
        start: the first.
        stop: one past the last.
        owed: of which they are.
        kind: as what they go.
    """

    start: int
    stop: int
    owed: Owed
    kind: PacketType


class Cursor:
    """The place of one peer in one stream.

    Attributes:
        stream: the stream.
        owed: what is to be sent, first things first.
        crossed: numbers that were ever sent to this peer on this session.
        flying: numbers under way to this peer: neither acknowledged nor lost.
        acked: numbers that the peer's transport acknowledged.
        reported: numbers that the peer itself said it holds (HAVE), or that it sent to us.
        lowest: the lowest number that the peer still retains, as it said.
        credit: numbers from this one on are not to be sent yet, as it said; 0 until it says anything.
        opening_sent: whether the stream's opening went out on this session.
        graphs_sent: epochs of embedded graphs that went out on this session.
        heard: whether the peer has said anything of this stream on this session.
        asked: whether something that was asked of the peer has not come yet.
    """

    __slots__ = (
        "acked",
        "asked",
        "credit",
        "crossed",
        "flying",
        "graphs_sent",
        "heard",
        "lowest",
        "opening_sent",
        "owed",
        "reported",
        "stream",
    )

    def __init__(self, stream: ChunkSource) -> None:
        self.stream = stream
        self.owed: list[Owed] = []
        self.crossed = RangeSet()
        self.acked = RangeSet()
        self.flying = RangeSet()
        self.reported = RangeSet()
        self.lowest = 0
        self.credit = 0
        self.opening_sent = False
        self.graphs_sent: dict[int, None] = {}
        self.heard = False
        self.asked = False

    def renewed(self) -> Cursor:
        """Return the same place with nothing owed and nothing under way: what was has come to nothing."""
        cursor = Cursor(self.stream)
        cursor.crossed, cursor.acked, cursor.reported = self.crossed, self.acked, self.reported
        cursor.lowest, cursor.credit, cursor.heard = self.lowest, self.credit, self.heard
        cursor.opening_sent, cursor.graphs_sent = self.opening_sent, self.graphs_sent
        self.flying = RangeSet()
        return cursor

    def owe(self, start: int, stop: int, epoch: int, tree: int, kind: PacketType) -> None:
        """Put consecutive chunks at the end of what is owed, unless the peer has reported them."""
        lacking = self.reported.missing(start, stop)
        if not lacking:
            return
        last = self.owed[-1] if self.owed else None
        if last is None or last.epoch != epoch or last.kind is not kind or last.tree != tree:
            last = Owed(epoch, tree, kind)
            self.owed.append(last)
        last.numbers.union_update(lacking)

    def owe_anew(self, start: int, stop: int, epoch: int, tree: int) -> bool:
        """Owe those consecutive chunks, as PULLED, that were never sent to the peer, nor reported, nor are owed.

        Returns:
            Whether there were any.
        """
        lacking = self.reported.missing(start, stop)
        lacking.difference_update(self.crossed)
        for owed in self.owed:
            lacking.difference_update(owed.numbers)
        for first, end in lacking:
            self.owe(first, end, epoch, tree, PacketType.PULLED)
        return bool(lacking)

    def owe_again(self, start: int, stop: int, epoch: int, tree: int, kind: PacketType) -> None:
        """Put chunks whose datagrams were lost in front of what is owed, unless they arrived after all."""
        lacking = self.acked.missing(start, stop)
        lacking.difference_update(self.reported)
        if not lacking:
            return
        first = self.owed[0] if self.owed else None
        if first is None or first.epoch != epoch or first.kind is not kind or first.tree != tree:
            first = Owed(epoch, tree, kind)
            self.owed.insert(0, first)
        first.numbers.union_update(lacking)

    def next_run(self, most: int) -> OwedRun | None:
        """Return the next chunks to send, at most ``most``, of what the peer has credit for and has not reported.

        They stay owed until `taken` is called for them.
        """
        self._tidy()
        for owed in self.owed:
            run = self._run_of(owed, most)
            if run is not None:
                return run
        return None

    def taken(self, run: OwedRun, stop: int) -> None:
        """Note that the chunks of a run up to ``stop`` are not owed any more: they were sent, or are lost here."""
        run.owed.numbers.remove_range(run.start, stop)

    def owed_count(self) -> int:
        """Return how many chunks wait to be sent."""
        return sum(len(owed.numbers) for owed in self.owed)

    def forget_owed(self) -> None:
        """Drop what is still owed: the peer gets it from elsewhere."""
        self.owed.clear()

    def _tidy(self) -> None:
        """Drop lines that are empty, and join those that have become neighbours of their like."""
        if len(self.owed) == 1 and self.owed[0].numbers:
            return
        kept: list[Owed] = []
        for owed in self.owed:
            last = kept[-1] if kept else None
            if last is not None and (last.epoch, last.tree, last.kind) == (owed.epoch, owed.tree, owed.kind):
                last.numbers.union_update(owed.numbers)
            elif owed.numbers:
                kept.append(owed)
        self.owed = kept

    def _run_of(self, owed: Owed, most: int) -> OwedRun | None:
        while (span := owed.numbers.first_span()) is not None:
            start, stop = span[0], min(span[1], span[0] + most)
            reported, stop = self.reported.until(start, stop)
            if reported:
                owed.numbers.remove_range(start, stop)
                continue
            if self.credit:
                if start >= self.credit:
                    return None
                stop = min(stop, self.credit)
            if owed.kind is not PacketType.DATA:
                return OwedRun(start, stop, owed, owed.kind)
            crossed, stop = self.crossed.until(start, stop)
            return OwedRun(start, stop, owed, PacketType.REPEAT if crossed else PacketType.DATA)
        return None
