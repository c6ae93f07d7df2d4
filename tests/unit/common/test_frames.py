"""Control frames: round trips, every cut prefix, random bytes, and each limit one past."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.datagrams import CONTROL_OVERHEAD_BYTES
from common.errors import DecodeError
from common.frames import (
    RECEIPT_STATES,
    Ack,
    AskGraph,
    AskOpening,
    Bye,
    Cancel,
    ChannelPort,
    Frame,
    GraphRecord,
    Have,
    Interrupted,
    LostEdges,
    MtuAnswer,
    MtuProbe,
    Probe,
    ReceiptEntry,
    Receipts,
    Stop,
    StreamOpening,
    Train,
    TrainReport,
    Want,
    decode_untrusted,
    encode_frame,
)
from common.limits import (
    MAX_EPOCH,
    MAX_GRAPH_PARTS,
    MAX_LOST_EDGES,
    MAX_RANGES,
    MAX_REASON_BYTES,
    MAX_RECEIPTS_PER_FRAME,
    MAX_TRAIN_DATAGRAMS,
    MIN_DATAGRAM_BYTES,
)
from common.path_frames import TOKEN_BYTES, PathAnswer, PathChallenge

MOST_NUMBER = 1 << 56

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
entries = st.lists(
    st.builds(ReceiptEntry, names, st.sampled_from(RECEIPT_STATES), u64, reasons), max_size=MAX_RECEIPTS_PER_FRAME
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
    Receipts(7, (ReceiptEntry("B", "refused", 5, "no-space"), ReceiptEntry("C", "verified", 9, ""))),
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


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("!BH", kind, len(body)) + body


def refused(kind: int, body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_untrusted(frame(kind, body))


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


def test_a_probe_says_its_size_by_being_of_it() -> None:
    assert len(encode_frame(MtuProbe(1_472))) == 1_472 - CONTROL_OVERHEAD_BYTES


@pytest.mark.parametrize("size", [1_199, 9_001])
def test_a_probe_of_a_size_that_is_never_sent_is_refused(size: int) -> None:
    refused(MtuProbe.TYPE, MtuProbe(size).body())
    refused(MtuAnswer.TYPE, MtuAnswer(size).body())


def test_no_bytes_are_no_frames() -> None:
    assert decode_untrusted(b"") == []


def with_ranges(*spans: tuple[int, int]) -> bytes:
    """Write a WANT whose ranges are given as start and length."""
    return struct.pack("!IB", 7, len(spans)) + b"".join(struct.pack("!QI", *span) for span in spans)


def test_as_many_ranges_as_the_limit_pass_and_one_more_does_not() -> None:
    at_limit = with_ranges(*[(2 * n, 1) for n in range(MAX_RANGES)])
    (want,) = decode_untrusted(frame(Want.TYPE, at_limit))
    assert isinstance(want, Want)
    assert len(want.ranges) == MAX_RANGES
    refused(Want.TYPE, with_ranges(*[(2 * n, 1) for n in range(MAX_RANGES + 1)]))


def test_an_empty_range_is_refused() -> None:
    refused(Want.TYPE, with_ranges((5, 0)))


def test_a_range_may_end_at_the_last_number_and_not_past_it() -> None:
    (want,) = decode_untrusted(frame(Want.TYPE, with_ranges((MOST_NUMBER - 3, 3))))
    assert want == Want(7, ((MOST_NUMBER - 3, MOST_NUMBER),))
    refused(Want.TYPE, with_ranges((MOST_NUMBER - 3, 4)))
    refused(Want.TYPE, with_ranges(((1 << 64) - 1, 1)))


def test_a_range_too_long_for_its_field_travels_as_its_first_part() -> None:
    (want,) = decode_untrusted(encode_frame(Want(7, ((0, 1 << 33),))))
    assert want == Want(7, ((0, 0xFFFFFFFF),))


@pytest.mark.parametrize("have", [Have(1, MOST_NUMBER + 1, 0, ()), Have(1, 0, MOST_NUMBER + 1, ())])
def test_a_have_beyond_the_last_number_is_refused(have: Have) -> None:
    with pytest.raises(DecodeError, match="2\\^56"):
        decode_untrusted(encode_frame(have))


@pytest.mark.parametrize(("part", "count"), [(0, 0), (1, 1), (2, 1), (0, MAX_GRAPH_PARTS + 1), (255, 255)])
def test_a_graph_part_out_of_bounds_is_refused(part: int, count: int) -> None:
    with pytest.raises(DecodeError, match=f"graph part {part} of {count}"):
        decode_untrusted(encode_frame(GraphRecord(1, 2, part, count, b"")))


def test_a_word_that_is_neither_yes_nor_no_is_refused() -> None:
    refused(Interrupted.TYPE, struct.pack("!IB", 7, 2))


def lost_edges(count: int, *device_ids: bytes, epoch: int = 5) -> bytes:
    """Write a LostEdges' body from its device and its peers."""
    return struct.pack("!QQB", 9, epoch, count) + b"".join(bytes([len(name)]) + name for name in device_ids)


REFUSED_LOST_EDGES: dict[str, bytes] = {
    "one edge too many": lost_edges(
        MAX_LOST_EDGES + 1, b"A", *[b"B%d" % number for number in range(MAX_LOST_EDGES + 1)]
    ),
    "an epoch past the last one": lost_edges(0, b"A", epoch=MAX_EPOCH + 1),
    "nobody": lost_edges(0),
    "a name that is no id": lost_edges(1, b"A", b"../B"),
    "a name that is no text": lost_edges(1, b"A", b"\xff"),
    "fewer edges than announced": lost_edges(2, b"A", b"B"),
    "more edges than announced": lost_edges(0, b"A", b"B"),
    "edges out of order": lost_edges(2, b"A", b"C", b"B"),
    "an edge twice": lost_edges(2, b"A", b"B", b"B"),
}


@pytest.mark.parametrize("body", REFUSED_LOST_EDGES.values(), ids=REFUSED_LOST_EDGES)
def test_lost_edges_out_of_bounds_are_refused(body: bytes) -> None:
    refused(LostEdges.TYPE, body)


def test_as_many_lost_edges_as_the_limit_fit_the_smallest_datagram_with_the_longest_ids() -> None:
    sent = LostEdges("A" * 64, 9, MAX_EPOCH, tuple(f"{number}" + "x" * 63 for number in range(MAX_LOST_EDGES)))
    data = encode_frame(sent)
    assert decode_untrusted(data) == [sent]
    assert len(data) <= MIN_DATAGRAM_BYTES - CONTROL_OVERHEAD_BYTES


def receipts(count: int, *items: tuple[int, bytes, bytes]) -> bytes:
    """Write a receipts' body from states, devices and reasons."""
    body = struct.pack("!IB", 7, count)
    for state, device, reason in items:
        body += struct.pack("!BQBB", state, 1, len(device), len(reason)) + device + reason
    return body


REFUSED_RECEIPTS: dict[str, Callable[[], bytes]] = {
    "one receipt too many": lambda: receipts(
        MAX_RECEIPTS_PER_FRAME + 1, *[(0, b"B", b"")] * (MAX_RECEIPTS_PER_FRAME + 1)
    ),
    "an unknown state": lambda: receipts(1, (len(RECEIPT_STATES), b"B", b"")),
    "a reason one byte too long": lambda: receipts(1, (3, b"B", b"x" * (MAX_REASON_BYTES + 1))),
    "a device that is not an id": lambda: receipts(1, (0, b"../B", b"")),
    "no device": lambda: receipts(1, (0, b"", b"")),
    "a device that is not text": lambda: receipts(1, (0, b"\xff", b"")),
    "a reason that is not text": lambda: receipts(1, (3, b"B", b"\xff")),
    "fewer receipts than announced": lambda: receipts(2, (0, b"B", b"")),
    "more receipts than announced": lambda: receipts(0, (0, b"B", b"")),
    "a text cut off": lambda: receipts(1, (0, b"B", b"reason"))[:-1],
}


@pytest.mark.parametrize("body", REFUSED_RECEIPTS.values(), ids=REFUSED_RECEIPTS)
def test_receipts_out_of_bounds_are_refused(body: Callable[[], bytes]) -> None:
    refused(Receipts.TYPE, body())


def test_as_many_receipts_as_the_limit_pass_with_the_longest_reason() -> None:
    sent = Receipts(
        7, tuple(ReceiptEntry(f"D{n}", "refused", n, "x" * MAX_REASON_BYTES) for n in range(MAX_RECEIPTS_PER_FRAME))
    )
    assert decode_untrusted(encode_frame(sent)) == [sent]


@pytest.mark.parametrize("body", [b"\0\0files", b"\x10\0", b"\x10\0a/b", b"\x10\0\xff", b"\x10\0" + b"x" * 65])
def test_a_port_of_nothing_or_of_no_channel_is_refused(body: bytes) -> None:
    refused(ChannelPort.TYPE, body)


def test_a_bye_says_nothing_more() -> None:
    refused(Bye.TYPE, b"\0")


@pytest.mark.parametrize(("index", "count"), [(0, 0), (1, 1), (3, 2), (0, MAX_TRAIN_DATAGRAMS + 1)])
def test_a_train_s_datagram_has_its_place_in_a_train_of_bounded_length(index: int, count: int) -> None:
    refused(Train.TYPE, struct.pack("!HHH", 1, index, count))


def test_a_train_s_padding_fills_its_datagram() -> None:
    padding = 1_472 - Train.OVERHEAD_BYTES
    assert len(encode_frame(Train(1, 0, 2, padding))) + CONTROL_OVERHEAD_BYTES == 1_472
