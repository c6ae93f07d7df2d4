"""What a control datagram carries: frames, each with a type, a length and a fixed layout.

Decoding is strict: an unknown type, a length that does not fit or a count past its limit makes the whole datagram a
``DecodeError``. Integers are big-endian; ranges are half-open and non-empty, each as start (8 bytes) and length (4).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from common.datagrams import CONTROL_OVERHEAD_BYTES
from common.errors import DecodeError
from common.ids import is_id
from common.limits import (
    MAX_DATAGRAM_BYTES,
    MAX_EPOCH,
    MAX_GRAPH_PARTS,
    MAX_LOST_EDGES,
    MAX_RANGES,
    MAX_REASON_BYTES,
    MAX_RECEIPTS_PER_FRAME,
    MAX_TRAIN_DATAGRAMS,
    MIN_DATAGRAM_BYTES,
)
from common.path_frames import PathAnswer, PathChallenge

Ranges = tuple[tuple[int, int], ...]

_FRAME: Final = struct.Struct("!BH")
_RANGE: Final = struct.Struct("!QI")
NO_LIMIT: Final = 1 << 56
"""One past the highest chunk number."""
_MAX_LENGTH: Final = 0xFFFFFFFF

RECEIPT_STATES: Final = ("waiting", "receiving", "verified", "refused", "cancelled")


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
        return self._LAYOUT.pack(self.largest, self.delay_us) + _pack_ranges(self.ranges)

    @classmethod
    def read(cls, body: bytes) -> Ack:
        """Read the frame's body."""
        largest, delay_us = cls._LAYOUT.unpack_from(body)
        return cls(largest, delay_us, _unpack_ranges(body[cls._LAYOUT.size :]))


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
        return self._LAYOUT.pack(self.stream, self.lowest, self.stop, self.credit) + _pack_ranges(self.ranges)

    @classmethod
    def read(cls, body: bytes) -> Have:
        """Read the frame's body."""
        stream, lowest, stop, credit = cls._LAYOUT.unpack_from(body)
        if max(lowest, stop, credit) > NO_LIMIT:
            raise DecodeError("chunk number past 2^56")
        return cls(stream, lowest, stop, _unpack_ranges(body[cls._LAYOUT.size :]), credit)


@dataclass(frozen=True, slots=True)
class Want:
    """Numbers that the sender misses and asks of this neighbour alone."""

    stream: int
    ranges: Ranges
    TYPE: ClassVar[int] = 4
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("!I")

    def body(self) -> bytes:
        """Return the frame's body."""
        return self._LAYOUT.pack(self.stream) + _pack_ranges(self.ranges)

    @classmethod
    def read(cls, body: bytes) -> Want:
        """Read the frame's body."""
        (stream,) = cls._LAYOUT.unpack_from(body)
        return cls(stream, _unpack_ranges(body[cls._LAYOUT.size :]))


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
    OVERHEAD_BYTES: ClassVar[int] = _FRAME.size + _LAYOUT.size

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
class ReceiptEntry:
    """One device's receipt on its way to the source."""

    device: str
    state: str
    held_bytes: int
    reason: str


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
            parts.append(device + reason)
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
            end = at + device_length + reason_length
            if end > len(body) or state >= len(RECEIPT_STATES) or reason_length > MAX_REASON_BYTES:
                raise DecodeError("receipt out of bounds")
            device = body[at : at + device_length].decode()
            reason = body[at + device_length : end].decode()
            if not is_id(device):
                raise DecodeError("a receipt's device is not an id")
            entries.append(ReceiptEntry(device, RECEIPT_STATES[state], held_bytes, reason))
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


@dataclass(frozen=True, slots=True)
class MtuProbe:
    """A control datagram that is nothing but large: whether it arrives tells what the path takes.

    It stands alone in its datagram, so its length says the size of that and no field can claim another.

    Attributes:
        size_bytes: of the whole datagram.
    """

    size_bytes: int
    TYPE: ClassVar[int] = 14
    OVERHEAD_BYTES: ClassVar[int] = CONTROL_OVERHEAD_BYTES + _FRAME.size

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
    OVERHEAD_BYTES: ClassVar[int] = CONTROL_OVERHEAD_BYTES + _FRAME.size + _LAYOUT.size

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


Frame = (
    Probe
    | Ack
    | Have
    | Want
    | Stop
    | StreamOpening
    | AskOpening
    | AskGraph
    | GraphRecord
    | Receipts
    | Cancel
    | ChannelPort
    | Bye
    | MtuProbe
    | MtuAnswer
    | PathChallenge
    | PathAnswer
    | Interrupted
    | LostEdges
    | Train
    | TrainReport
)

_READERS: Final[dict[int, Callable[[bytes], Frame]]] = {
    Probe.TYPE: Probe.read,
    Ack.TYPE: Ack.read,
    Have.TYPE: Have.read,
    Want.TYPE: Want.read,
    Stop.TYPE: Stop.read,
    StreamOpening.TYPE: StreamOpening.read,
    AskOpening.TYPE: AskOpening.read,
    AskGraph.TYPE: AskGraph.read,
    GraphRecord.TYPE: GraphRecord.read,
    Receipts.TYPE: Receipts.read,
    Cancel.TYPE: Cancel.read,
    ChannelPort.TYPE: ChannelPort.read,
    Bye.TYPE: Bye.read,
    MtuProbe.TYPE: MtuProbe.read,
    MtuAnswer.TYPE: MtuAnswer.read,
    PathChallenge.TYPE: PathChallenge.read,
    PathAnswer.TYPE: PathAnswer.read,
    Interrupted.TYPE: Interrupted.read,
    LostEdges.TYPE: LostEdges.read,
    Train.TYPE: Train.read,
    TrainReport.TYPE: TrainReport.read,
}


def encode_frame(frame: Frame) -> bytes:
    """Return a frame with its type and length in front."""
    body = frame.body()
    return _FRAME.pack(frame.TYPE, len(body)) + body


def decode_untrusted(data: bytes) -> list[Frame]:
    """Read all frames of an opened control datagram.

    Raises:
        DecodeError: any of them does not parse or breaks a limit.
    """
    return list(_frames(data))


def _frames(data: bytes) -> Iterator[Frame]:
    at = 0
    while at < len(data):
        if at + _FRAME.size > len(data):
            raise DecodeError("frame header cut off")
        kind, length = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        reader = _READERS.get(kind)
        if reader is None:
            raise DecodeError(f"unknown frame type {kind}")
        if at + length > len(data):
            raise DecodeError("frame cut off")
        try:
            yield reader(data[at : at + length])
        except (struct.error, UnicodeDecodeError) as error:
            raise DecodeError(f"frame type {kind}: {error}") from error
        at += length


def _datagram_size(size_bytes: int) -> int:
    if not MIN_DATAGRAM_BYTES <= size_bytes <= MAX_DATAGRAM_BYTES:
        raise DecodeError(f"a probe of {size_bytes} bytes; {MIN_DATAGRAM_BYTES} to {MAX_DATAGRAM_BYTES} are sent")
    return size_bytes


def _pack_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    parts = [_RANGE.pack(start, min(stop - start, _MAX_LENGTH)) for start, stop in ranges]
    return bytes([len(parts)]) + b"".join(parts)


def _unpack_ranges(body: bytes) -> Ranges:
    if not body or body[0] > MAX_RANGES or len(body) != 1 + body[0] * _RANGE.size:
        raise DecodeError(f"range list of the wrong length, or of more than {MAX_RANGES}")
    ranges = []
    for start, length in _RANGE.iter_unpack(body[1:]):
        if not length or start + length > NO_LIMIT:
            raise DecodeError("empty range, or past 2^56")
        ranges.append((start, start + length))
    return tuple(ranges)
