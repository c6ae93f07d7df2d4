"""Frames about a graph: who asks for it, what it is, which of its edges are lost."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from common.datagrams import FRAME_HEADER_BYTES
from common.errors import DecodeError
from common.ids import is_id
from common.limits import MAX_EPOCH, MAX_GRAPH_PARTS, MAX_LOST_EDGES


@dataclass(frozen=True, slots=True)
class AskGraph:
    """The sender does not know an epoch that a chunk named.

    Attributes:
        stream: short form if the stream embeds its graphs (M12); 0 for the group's graph.
        epoch: the epoch's low 32 bits.
    """

    stream: int
    epoch: int
    TYPE: ClassVar[int] = 8
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!II")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream, self.epoch)

    @classmethod
    def read(cls, body: bytes) -> AskGraph:
        """Read the frame's body."""
        return cls(*cls._LAYOUT.unpack(body))


@dataclass(frozen=True, slots=True)
class GraphRecord:
    """A graph, or one part of it: the group's as plain binary form, a stream's own sealed by its source (M12).

    Attributes:
        stream: short form; 0 for the group's graph.
        epoch: the whole epoch.
        part: index of this part.
        parts: how many there are.
        data: the part's bytes.
    """

    stream: int
    epoch: int
    part: int
    parts: int
    data: bytes
    TYPE: ClassVar[int] = 9
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!IQBB")
    OVERHEAD_BYTES: ClassVar[int] = FRAME_HEADER_BYTES + _LAYOUT.size

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream, self.epoch, self.part, self.parts) + self.data

    @classmethod
    def read(cls, body: bytes) -> GraphRecord:
        """Read the frame's body."""
        stream, epoch, part, parts = cls._LAYOUT.unpack_from(body)
        if not 0 < parts <= MAX_GRAPH_PARTS or part >= parts:
            raise DecodeError(f"graph part {part} of {parts}; at most {MAX_GRAPH_PARTS}")
        return cls(stream, epoch, part, parts, body[cls._LAYOUT.size :])


@dataclass(frozen=True, slots=True)
class LostEdges:
    """A device has lost edges of a graph, and nothing has replaced them; passed on over every open link.

    Attributes:
        device: who has lost them.
        stamp: rises with each word of this device; the highest counts.
        epoch: of the graph, whole.
        peers: the devices at their other ends, sorted, at most MAX_LOST_EDGES of them; none: they are back.
    """

    device: str
    stamp: int
    epoch: int
    peers: tuple[str, ...]
    TYPE: ClassVar[int] = 21
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!QQB")

    def body(self) -> bytes:
        """Return the frame's body."""
        names = [name.encode() for name in (self.device, *self.peers)]
        return self._LAYOUT.pack(self.stamp, self.epoch, len(self.peers)) + b"".join(
            bytes([len(name)]) + name for name in names
        )

    @classmethod
    def read(cls, body: bytes) -> LostEdges:
        """Read the frame's body."""
        stamp, epoch, count = cls._LAYOUT.unpack_from(body)
        if count > MAX_LOST_EDGES or epoch > MAX_EPOCH:
            raise DecodeError(f"{count} lost edges of epoch {epoch}; at most {MAX_LOST_EDGES}, and {MAX_EPOCH}")
        names, at = [], cls._LAYOUT.size
        for _ in range(count + 1):
            length = body[at] if at < len(body) else 0
            name = body[at + 1 : at + 1 + length].decode("ascii")
            if not is_id(name):
                raise DecodeError("a lost edge's end is not a device id")
            names.append(name)
            at += 1 + length
        if at != len(body) or names[1:] != sorted(set(names[1:])):
            raise DecodeError("lost edges of the wrong length, or not in order")
        return cls(names[0], stamp, epoch, tuple(names[1:]))
