"""What a control datagram carries: frames, each with a type, a length and a fixed layout.

Decoding is strict: an unknown type, a length that does not fit or a count past its limit makes the whole datagram a
``DecodeError``. Integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from common.datagrams import FRAME_HEADER, FRAME_HEADER_BYTES
from common.errors import DecodeError
from common.graph_frames import AskGraph, GraphRecord, LostEdges
from common.link_frames import Ack, Bye, ChannelPort, Probe
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train, TrainReport
from common.stream_frames import AskOpening, Cancel, Have, Interrupted, Receipts, Stop, StreamOpening, Want

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
    return FRAME_HEADER.pack(frame.TYPE, len(body)) + body


def decode_untrusted(data: bytes) -> list[Frame]:
    """Read all frames of an opened control datagram.

    Raises:
        DecodeError: any of them does not parse or breaks a limit.
    """
    return list(_frames(data))


def _frames(data: bytes) -> Iterator[Frame]:
    at = 0
    while at < len(data):
        if at + FRAME_HEADER_BYTES > len(data):
            raise DecodeError("frame header cut off")
        kind, length = FRAME_HEADER.unpack_from(data, at)
        at += FRAME_HEADER_BYTES
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
