"""One stream on one hop: what is owed to that peer, what crossed, and what the peer said it holds."""

from __future__ import annotations

from typing import Protocol

from agent.core.rangeset import RangeSet
from common.datagrams import PacketType


class ChunkSource(Protocol):
    """Where a cursor's chunks come from: a stream."""

    short: int
    urgent: bool
    """Whether its chunks go ahead of files."""
    active_at: float
    """When a chunk of it last moved here."""
    socket_channel: str | None
    """The channel whose own sockets carry it; None for the shared socket."""

    def sealed(self, number: int) -> bytes | None:
        """Return a chunk as it travels (chunk header, ciphertext, tag), or None if it cannot be sent."""


class Owed:
    """Numbers to be sent under one epoch and tree, as one packet type."""

    __slots__ = ("epoch", "kind", "numbers", "tree")

    def __init__(self, epoch: int, tree: int, kind: PacketType) -> None:
        self.epoch = epoch
        self.tree = tree
        self.kind = kind
        self.numbers = RangeSet()


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
        opening_sent: whether the stream's opening went out on this session.
        graphs_sent: epochs of embedded graphs that went out on this session.
        heard: whether the peer has said anything of this stream on this session.
    """

    __slots__ = (
        "acked",
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
        self.opening_sent = False
        self.graphs_sent: dict[int, None] = {}
        self.heard = False

    def owe(self, number: int, epoch: int, tree: int, kind: PacketType) -> None:
        """Put a chunk at the end of what is owed."""
        if number in self.reported:
            return
        last = self.owed[-1] if self.owed else None
        if last is None or last.epoch != epoch or last.kind is not kind or last.tree != tree:
            last = Owed(epoch, tree, kind)
            self.owed.append(last)
        last.numbers.add(number)

    def owe_again(self, number: int, epoch: int, tree: int, kind: PacketType) -> None:
        """Put a chunk whose datagram was lost in front of what is owed, unless it arrived after all."""
        if number in self.acked or number in self.reported:
            return
        first = self.owed[0] if self.owed else None
        if first is None or first.epoch != epoch or first.kind is not kind or first.tree != tree:
            first = Owed(epoch, tree, kind)
            self.owed.insert(0, first)
        first.numbers.add(number)

    def pop(self) -> tuple[int, Owed] | None:
        """Take the next chunk to send, skipping what the peer reported meanwhile."""
        while self.owed:
            owed = self.owed[0]
            while owed.numbers:
                number = owed.numbers.pop_first()
                if number not in self.reported:
                    return number, owed
            self.owed.pop(0)
        return None

    def owed_count(self) -> int:
        """Return how many chunks wait to be sent."""
        return sum(len(owed.numbers) for owed in self.owed)

    def forget_owed(self) -> None:
        """Drop what is still owed: the peer gets it from elsewhere."""
        self.owed.clear()
