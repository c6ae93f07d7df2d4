"""Frames by which a session learns what a path is: whether it works, how large datagrams it takes, how fast it is.

Source:
    RFC 9000 sections 19.17 and 19.18 (PathChallenge, PathAnswer).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from common.datagrams import CONTROL_OVERHEAD_BYTES, FRAME_HEADER_BYTES
from common.errors import DecodeError
from common.limits import MAX_DATAGRAM_BYTES, MAX_TRAIN_DATAGRAMS, MIN_DATAGRAM_BYTES

TOKEN_BYTES: Final = 8
"""Bytes of a challenge: nobody guesses them while an answer counts."""


@dataclass(frozen=True, slots=True)
class _Token:
    """What PathChallenge and PathAnswer carry.

    Attributes:
        token: bytes that nobody can guess; the answer repeats them.
    """

    token: bytes

    def body(self) -> bytes:
        """Return the frame's body."""
        return self.token

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Read the frame's body."""
        if len(body) != TOKEN_BYTES:
            raise DecodeError(f"a path's token has {TOKEN_BYTES} bytes, not {len(body)}")
        return cls(body)


@dataclass(frozen=True, slots=True)
class PathChallenge(_Token):
    """Whoever gets it answers to the address that it came from."""

    TYPE: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class PathAnswer(_Token):
    """The answer to a challenge."""

    TYPE: ClassVar[int] = 17


@dataclass(frozen=True, slots=True)
class MtuProbe:
    """A control datagram that is nothing but large: whether it arrives tells what the path takes.

    It stands alone in its datagram, so its length says the size of that and no field can claim another.

    Attributes:
        size_bytes: of the whole datagram.
    """

    size_bytes: int
    TYPE: ClassVar[int] = 14
    OVERHEAD_BYTES: ClassVar[int] = CONTROL_OVERHEAD_BYTES + FRAME_HEADER_BYTES

    def body(self) -> bytes:
        """Return the frame's body."""
        return bytes(self.size_bytes - self.OVERHEAD_BYTES)

    @classmethod
    def read(cls, body: bytes) -> MtuProbe:
        """Read the frame's body."""
        return cls(_datagram_size(len(body) + cls.OVERHEAD_BYTES))


@dataclass(frozen=True, slots=True)
class MtuAnswer:
    """The sender got a probe of that size.

    Attributes:
        size_bytes: of the probe's whole datagram.
    """

    size_bytes: int
    TYPE: ClassVar[int] = 15
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!H")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.size_bytes)

    @classmethod
    def read(cls, body: bytes) -> MtuAnswer:
        """Read the frame's body."""
        (size,) = cls._LAYOUT.unpack(body)
        return cls(_datagram_size(size))


@dataclass(frozen=True, slots=True)
class Train:
    """One datagram of a train that measures a path; alone in its datagram.

    Attributes:
        train: the train's number; it rises from each to the next, modulo 2^16.
        index: this datagram's place in it, from 0.
        count: how many there are.
        padding: bytes of zeros after that.
    """

    train: int
    index: int
    count: int
    padding: int = 0
    TYPE: ClassVar[int] = 18
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!HHH")
    OVERHEAD_BYTES: ClassVar[int] = CONTROL_OVERHEAD_BYTES + FRAME_HEADER_BYTES + _LAYOUT.size

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.train, self.index, self.count) + bytes(self.padding)

    @classmethod
    def read(cls, body: bytes) -> Train:
        """Read the frame's body."""
        train, index, count = cls._LAYOUT.unpack_from(body)
        if not index < count <= MAX_TRAIN_DATAGRAMS:
            raise DecodeError(f"datagram {index} of a train of {count}; at most {MAX_TRAIN_DATAGRAMS}")
        return cls(train, index, count, len(body) - cls._LAYOUT.size)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What arrived of a train.

    Attributes:
        train: its number.
        arrived: how many of its datagrams.
        later_bytes: bytes of the datagrams of its second half that came after the first ones of that half.
        span_us: µs from those first ones to the last of them; 0 if none came.
    """

    train: int
    arrived: int
    later_bytes: int
    span_us: int
    TYPE: ClassVar[int] = 19
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!HHII")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.train, self.arrived, self.later_bytes, self.span_us)

    @classmethod
    def read(cls, body: bytes) -> TrainReport:
        """Read the frame's body."""
        return cls(*cls._LAYOUT.unpack(body))


def _datagram_size(size_bytes: int) -> int:
    if not MIN_DATAGRAM_BYTES <= size_bytes <= MAX_DATAGRAM_BYTES:
        raise DecodeError(f"a probe of {size_bytes} bytes; {MIN_DATAGRAM_BYTES} to {MAX_DATAGRAM_BYTES} are sent")
    return size_bytes
