"""Control frames: round trips, every cut prefix, and random bytes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError
from common.frames import Frame, decode_untrusted, encode_frame
from common.graph_frames import AskGraph, GraphRecord, LostEdges
from common.limits import (
    MAX_EPOCH,
    MAX_GRAPH_PARTS,
    MAX_LOST_EDGES,
    MAX_RANGES,
    MAX_REASON_BYTES,
    MAX_RECEIPTS_PER_FRAME,
    MAX_TRAIN_DATAGRAMS,
)
from common.link_frames import Ack, Bye, ChannelPort, Probe
from common.path_frames import TOKEN_BYTES, MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train, TrainReport
from common.stream_frames import (
    RECEIPT_STATES,
    SIGNED_STATES,
    AskOpening,
    Cancel,
    Have,
    Interrupted,
    ReceiptEntry,
    Receipts,
    Stop,
    StreamOpening,
    Want,
)
from tests.unit.common.frame_bytes import MOST_NUMBER, frame, refused

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, (1 << 64) - 1)
numbers = st.integers(0, MOST_NUMBER)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
blobs = st.binary(max_size=1_100)
ranges = st.lists(
    st.tuples(st.integers(0, MOST_NUMBER - 0xFFFFFFFF), st.integers(1, 0xFFFFFFFF)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=MAX_RANGES,
).map(tuple)
reasons = st.text(max_size=12).filter(lambda text: len(text.encode()) <= MAX_REASON_BYTES)


def signed(entry: ReceiptEntry) -> ReceiptEntry:
    """Give a last word a signature, as only those have one."""
    return replace(entry, signature=bytes(range(64))) if entry.state in SIGNED_STATES else entry


entries = st.lists(
    st.builds(ReceiptEntry, names, st.sampled_from(RECEIPT_STATES), u64, reasons).map(signed),
    max_size=MAX_RECEIPTS_PER_FRAME,
).map(tuple)
parts = st.integers(1, MAX_GRAPH_PARTS).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count)))
places = st.integers(1, MAX_TRAIN_DATAGRAMS).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count)))
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Probe, u64, u64, u32, u32, u32, u16, u32),
    st.builds(Ack, u64, u32, ranges),
    st.builds(Have, u32, numbers, numbers, ranges),
    st.builds(Want, u32, ranges),
    st.builds(Stop, u32),
    st.builds(StreamOpening, blobs),
    st.builds(AskOpening, u32),
    st.builds(AskGraph, u32, u32),
    st.builds(
        lambda stream, epoch, part, data: GraphRecord(stream, epoch, part[0], part[1], data), u32, u64, parts, blobs
    ),
    st.builds(Receipts, u32, entries),
    st.builds(Cancel, u32, blobs),
    st.builds(ChannelPort, names, st.integers(1, 0xFFFF)),
    st.just(Bye()),
    st.builds(MtuProbe, st.integers(1_200, 9_000)),
    st.builds(MtuAnswer, st.integers(1_200, 9_000)),
    st.builds(PathChallenge, st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES)),
    st.builds(PathAnswer, st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES)),
    st.builds(Interrupted, u32, st.booleans()),
    st.builds(
        lambda device, stamp, epoch, peers: LostEdges(device, stamp, epoch, tuple(sorted(peers))),
        names,
        u64,
        st.integers(0, MAX_EPOCH),
        st.sets(names, max_size=MAX_LOST_EDGES),
    ),
    st.builds(
        lambda train, place, padding: Train(train, place[0], place[1], padding), u16, places, st.integers(0, 9_000)
    ),
    st.builds(TrainReport, u16, u16, u32, u32),
)

EXAMPLES: list[Frame] = [
    Probe(1, 2, 3, 4, 5, 6, 7),
    Ack(9, 5, ((7, 10), (1, 4))),
    Have(1, 2, 30, ((2, 9), (11, 12))),
    Want(1, ((3, 5),)),
    Stop(7),
    StreamOpening(b"sealed"),
    AskOpening(7),
    AskGraph(7, 8),
    GraphRecord(7, 1 << 40, 1, 3, b"part"),
    Receipts(7, (ReceiptEntry("B", "refused", 5, "no-space", bytes(64)), ReceiptEntry("C", "receiving", 9, ""))),
    Cancel(7, b"sealed"),
    ChannelPort("files", 4_000),
    Bye(),
    MtuProbe(1_472),
    MtuAnswer(1_472),
    PathChallenge(b"question"),
    PathAnswer(b"question"),
    Interrupted(7, delivering=True),
    LostEdges("A", 9, 1 << 40, ("B", "C")),
    Train(7, 2, 40, 3),
    TrainReport(7, 39, 28_000, 20_000),
]


@given(st.lists(frames, max_size=4))
def test_frames_come_out_as_they_went_in(sent: list[Frame]) -> None:
    assert decode_untrusted(b"".join(encode_frame(each) for each in sent)) == sent


@pytest.mark.parametrize("each", EXAMPLES, ids=lambda each: type(each).__name__)
def test_each_type_of_frame_comes_out_as_it_went_in(each: Frame) -> None:
    assert decode_untrusted(encode_frame(each)) == [each]


@pytest.mark.parametrize("each", EXAMPLES, ids=lambda each: type(each).__name__)
def test_every_cut_prefix_of_a_frame_is_refused(each: Frame) -> None:
    data = encode_frame(each)
    for length in range(1, len(data)):
        with pytest.raises(DecodeError):
            decode_untrusted(data[:length])


@pytest.mark.parametrize(
    "each",
    [e for e in EXAMPLES if not isinstance(e, StreamOpening | Cancel | GraphRecord | MtuProbe | Train)],
    ids=lambda e: type(e).__name__,
)
def test_a_body_of_any_other_length_raises_nothing_but_a_decode_error(each: Frame) -> None:
    body = each.body()
    for length in range(len(body)):
        if isinstance(each, ChannelPort) and length > 2:
            continue  # A shorter name is a name.
        refused(each.TYPE, body[:length])
    if not isinstance(each, ChannelPort):
        refused(each.TYPE, body + b"\0")


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_a_decode_error(data: bytes) -> None:
    try:
        decode_untrusted(data)
    except DecodeError:
        return


@given(st.integers(0, 22), st.binary(max_size=200))
def test_random_bodies_raise_nothing_but_a_decode_error(kind: int, body: bytes) -> None:
    try:
        found = decode_untrusted(frame(kind, body))
    except DecodeError:
        return
    assert b"".join(encode_frame(each) for each in found) == frame(kind, body)


@pytest.mark.parametrize("kind", [0, 64, 255])
def test_an_unknown_type_makes_the_whole_datagram_an_error(kind: int) -> None:
    with pytest.raises(DecodeError, match=f"unknown frame type {kind}"):
        decode_untrusted(encode_frame(Stop(1)) + frame(kind, b""))


def test_no_bytes_are_no_frames() -> None:
    assert decode_untrusted(b"") == []
