"""Frames about a graph: parts and lost edges, each limit one past."""

import struct

import pytest

from common.datagrams import CONTROL_OVERHEAD_BYTES
from common.errors import DecodeError
from common.frames import decode_untrusted, encode_frame
from common.graph_frames import GraphRecord, LostEdges
from common.limits import MAX_EPOCH, MAX_GRAPH_PARTS, MAX_LOST_EDGES, MIN_DATAGRAM_BYTES
from tests.unit.common.frame_bytes import refused


@pytest.mark.parametrize(("part", "count"), [(0, 0), (1, 1), (2, 1), (0, MAX_GRAPH_PARTS + 1), (255, 255)])
def test_a_graph_part_out_of_bounds_is_refused(part: int, count: int) -> None:
    with pytest.raises(DecodeError, match=f"graph part {part} of {count}"):
        decode_untrusted(encode_frame(GraphRecord(1, 2, part, count, b"")))


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
