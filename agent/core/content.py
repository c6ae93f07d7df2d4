"""What datagrams carried, kept until they are acknowledged: what is lost of it is sent again."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.core.cursor import Cursor
from agent.core.sent import SentRange
from common.datagrams import PacketType


@dataclass(slots=True)
class ChunkContent:
    """What a train of chunks carried, in case some of it is lost."""

    cursor: Cursor
    number: int
    """Of the first chunk; the others follow it."""
    epoch: int
    tree: int
    kind: PacketType
    """As what they go again: REPEAT, or PULLED as before."""
    fragments: int = 1
    """Packets that one chunk took; a train of more than one is a single chunk."""
    lost: bool = False
    """Whether the single chunk of such a train is on its way again already."""
    copy: bool = False
    """Whether another train under way carries the same: if this one is lost, nothing is."""

    def numbers(self, sent: SentRange) -> tuple[int, int]:
        """Return the chunk numbers, from and to, of some packets of the train."""
        if self.fragments > 1:
            return self.number, self.number + 1
        start = self.number + sent.offset
        return start, start + sent.stop - sent.start


@dataclass(slots=True)
class FrameContent:
    """The reliable frames that a control datagram carried, in case it is lost."""

    frames: list[bytes] = field(default_factory=list)
