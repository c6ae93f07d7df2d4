"""Frames of a link's life: signs of it, acknowledgements, a port to send to, a farewell."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from common.errors import DecodeError
from common.ids import is_id
from common.ranges import Ranges, pack_ranges, unpack_ranges


@dataclass(frozen=True, slots=True)
class Probe:
    """A sign of life and a clock reading; it echoes the last probe heard, there is no separate answer.

    Attributes:
        sent_us: the sender's clock in µs.
        echo_us: the receiver's clock as it stood in the last probe heard from it; 0 if none.
        held_us: how long ago the sender heard that one, µs.
        sent: probes sent so far in this session, this one included.
        heard: probes heard so far in this session.
        next_ms: the sender's promise: its next probe comes within this time, ms.
        epoch: low 32 bits of the newest epoch that the sender knows; 0 if it knows none.
    """

    sent_us: int
    echo_us: int
    held_us: int
    sent: int
    heard: int
    next_ms: int
    epoch: int
    TYPE: ClassVar[int] = 1
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!QQIIIHI")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(
            self.sent_us, self.echo_us, self.held_us, self.sent, self.heard, self.next_ms, self.epoch
        )

    @classmethod
    def read(cls, body: bytes) -> Probe:
        """Read the frame's body."""
        return cls(*cls._LAYOUT.unpack(body))


@dataclass(frozen=True, slots=True)
class Ack:
    """Hop numbers that arrived.

    Attributes:
        largest: the largest hop number received.
        delay_us: how long ago that was, µs.
        ranges: half-open ranges of hop numbers, newest first.
    """

    largest: int
    delay_us: int
    ranges: Ranges
    TYPE: ClassVar[int] = 2
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!QI")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.largest, self.delay_us) + pack_ranges(self.ranges)

    @classmethod
    def read(cls, body: bytes) -> Ack:
        """Read the frame's body."""
        largest, delay_us = cls._LAYOUT.unpack_from(body)
        return cls(largest, delay_us, unpack_ranges(body[cls._LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class ChannelPort:
    """The sender's UDP port for chunks of one channel from this peer (a socket per channel and peer, M7)."""

    channel: str
    port: int
    TYPE: ClassVar[int] = 12
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!H")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.port) + self.channel.encode()

    @classmethod
    def read(cls, body: bytes) -> ChannelPort:
        """Read the frame's body."""
        (port,) = cls._LAYOUT.unpack_from(body)
        channel = body[cls._LAYOUT.size :].decode()
        if not is_id(channel) or port == 0:
            raise DecodeError("not a channel's port")
        return cls(channel, port)


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender leaves; the link closes at once instead of falling silent."""

    TYPE: ClassVar[int] = 13

    def body(self) -> bytes:
        """Return the frame's body."""
        return b""

    @classmethod
    def read(cls, body: bytes) -> Bye:
        """Read the frame's body."""
        if body:
            raise DecodeError("a bye has no body")
        return cls()
