"""Frames about a stream: who holds what of it and misses what, how it begins and ends, what became of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from common.errors import DecodeError
from common.ids import is_id
from common.limits import MAX_REASON_BYTES, MAX_RECEIPTS_PER_FRAME
from common.ranges import NO_LIMIT, Ranges, pack_ranges, unpack_ranges
from common.signing import SIGNATURE_BYTES

RECEIPT_STATES: Final = ("waiting", "receiving", "verified", "refused", "cancelled")
SIGNED_STATES: Final = ("verified", "refused", "cancelled")
"""The states that are a device's last word."""


@dataclass(frozen=True, slots=True)
class Have:
    """What the sender holds of a stream.

    Attributes:
        stream: short form.
        lowest: the lowest number still retained here.
        stop: one past the highest number that the sender knows to exist.
        ranges: numbers held (never taken back, so ranges add up over several frames).
        credit: numbers from this one on are not to be sent yet (never taken back: the highest of all frames counts).
    """

    stream: int
    lowest: int
    stop: int
    ranges: Ranges
    credit: int = NO_LIMIT
    TYPE: ClassVar[int] = 3
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!IQQQ")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream, self.lowest, self.stop, self.credit) + pack_ranges(self.ranges)

    @classmethod
    def read(cls, body: bytes) -> Have:
        """Read the frame's body."""
        stream, lowest, stop, credit = cls._LAYOUT.unpack_from(body)
        if max(lowest, stop, credit) > NO_LIMIT:
            raise DecodeError("chunk number past 2^56")
        return cls(stream, lowest, stop, unpack_ranges(body[cls._LAYOUT.size :]), credit)


@dataclass(frozen=True, slots=True)
class Want:
    """Numbers that the sender misses and asks of this neighbour alone."""

    stream: int
    ranges: Ranges
    TYPE: ClassVar[int] = 4
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!I")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream) + pack_ranges(self.ranges)

    @classmethod
    def read(cls, body: bytes) -> Want:
        """Read the frame's body."""
        (stream,) = cls._LAYOUT.unpack_from(body)
        return cls(stream, unpack_ranges(body[cls._LAYOUT.size :]))


@dataclass(frozen=True, slots=True)
class Stop:
    """The sender no longer is a neighbour of the receiver: drop what is still owed to it of this stream."""

    stream: int
    TYPE: ClassVar[int] = 5
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!I")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream)

    @classmethod
    def read(cls, body: bytes) -> Stop:
        """Read the frame's body."""
        return cls(*cls._LAYOUT.unpack(body))


@dataclass(frozen=True, slots=True)
class StreamOpening:
    """A stream's opening, sealed under the group key."""

    sealed: bytes
    TYPE: ClassVar[int] = 6

    def body(self) -> bytes:
        """Return the frame's body."""
        return self.sealed

    @classmethod
    def read(cls, body: bytes) -> StreamOpening:
        """Read the frame's body."""
        return cls(body)


@dataclass(frozen=True, slots=True)
class AskOpening:
    """The sender got chunks or news of a stream whose opening it does not know."""

    stream: int
    TYPE: ClassVar[int] = 7
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!I")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream)

    @classmethod
    def read(cls, body: bytes) -> AskOpening:
        """Read the frame's body."""
        return cls(*cls._LAYOUT.unpack(body))


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    """One device's receipt on its way to the source.

    Attributes:
        device: whose it is.
        state: one of RECEIPT_STATES.
        held_bytes: plain bytes it holds.
        reason: why it refused; empty otherwise.
        signature: the device's, of a last word; empty for other states.
    """

    device: str
    state: str
    held_bytes: int
    reason: str
    signature: bytes = b""

    def statement(self, stream: bytes) -> bytes:
        """Return what the device signs of a last word about a stream (its 16-byte id)."""
        device, state = self.device.encode(), RECEIPT_STATES.index(self.state)
        return stream + struct.pack("!BQB", state, self.held_bytes, len(device)) + device + self.reason.encode()


@dataclass(frozen=True, slots=True)
class Receipts:
    """Receipts of the sender's side of the tree, for the source."""

    stream: int
    entries: tuple[ReceiptEntry, ...]
    TYPE: ClassVar[int] = 10
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!IB")
    _ENTRY: ClassVar[struct.Struct] = struct.Struct("!BQBB")

    def body(self) -> bytes:
        """Return the frame's body."""
        parts = [self._LAYOUT.pack(self.stream, len(self.entries))]
        for entry in self.entries:
            device, reason = entry.device.encode(), entry.reason.encode()
            state = RECEIPT_STATES.index(entry.state)
            parts.append(self._ENTRY.pack(state, entry.held_bytes, len(device), len(reason)))
            parts.append(device + reason + entry.signature)
        return b"".join(parts)

    @classmethod
    def read(cls, body: bytes) -> Receipts:
        """Read the frame's body."""
        stream, count = cls._LAYOUT.unpack_from(body)
        if count > MAX_RECEIPTS_PER_FRAME:
            raise DecodeError(f"{count} receipts in a frame; at most {MAX_RECEIPTS_PER_FRAME}")
        at = cls._LAYOUT.size
        entries = []
        for _ in range(count):
            state, held_bytes, device_length, reason_length = cls._ENTRY.unpack_from(body, at)
            at += cls._ENTRY.size
            if state >= len(RECEIPT_STATES) or reason_length > MAX_REASON_BYTES:
                raise DecodeError("receipt out of bounds")
            signature_at = at + device_length + reason_length
            end = signature_at + (SIGNATURE_BYTES if RECEIPT_STATES[state] in SIGNED_STATES else 0)
            if end > len(body):
                raise DecodeError("receipt out of bounds")
            device = body[at : at + device_length].decode()
            reason = body[at + device_length : signature_at].decode()
            if not is_id(device):
                raise DecodeError("a receipt's device is not an id")
            entries.append(ReceiptEntry(device, RECEIPT_STATES[state], held_bytes, reason, body[signature_at:end]))
            at = end
        if at != len(body):
            raise DecodeError("bytes after the last receipt")
        return cls(stream, tuple(entries))


@dataclass(frozen=True, slots=True)
class Cancel:
    """The source takes a stream back; sealed under the group key by the source.

    Attributes:
        stream: short form.
        sealed: the stream's id and the reason, sealed.
    """

    stream: int
    sealed: bytes
    TYPE: ClassVar[int] = 11
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!I")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream) + self.sealed

    @classmethod
    def read(cls, body: bytes) -> Cancel:
        """Read the frame's body."""
        (stream,) = cls._LAYOUT.unpack_from(body)
        return cls(stream, body[cls._LAYOUT.size :])


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The sender brings no more of a stream for now: what the receiver misses has to be asked for.

    Attributes:
        stream: short form.
        delivering: whether what the sender has reported to hold is still on its way.
    """

    stream: int
    delivering: bool
    TYPE: ClassVar[int] = 20
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!IB")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream, self.delivering)

    @classmethod
    def read(cls, body: bytes) -> Interrupted:
        """Read the frame's body."""
        stream, delivering = cls._LAYOUT.unpack(body)
        if delivering > 1:
            raise DecodeError(f"{delivering} is neither yes nor no")
        return cls(stream, bool(delivering))
