"""Graphs that travel with a stream (M12): put in at the source, taken out at the relays.

A graph record runs ahead of the chunks it governs, under the epoch as its number, never inside a chunk. It is sealed
by the source under the group key, signed, and forwarded as it is. It routes its own stream and nothing else.
"""

from __future__ import annotations

from typing import Final

from agent.core.routing import Known
from agent.core.stream import Stream
from agent.core.streams import StreamTable
from common.errors import DecodeError, LocalProtocolError
from common.graph import AcyclicGraph
from common.graph import decode_untrusted as decode_graph
from common.graph_frames import GraphRecord
from common.limits import MAX_GRAPH_PARTS
from common.sealing import NONCE_BYTES
from common.signing import PURPOSE_GRAPH, SIGNATURE_BYTES

GRAPH_PART_BYTES: Final = 1_024


def embed(stream: Stream, current: Known | None, streams: StreamTable, now: float) -> bool:
    """At the source: let the newest whole graph govern a stream from here on.

    Returns:
        Whether it is newer than the one that governed it.
    """
    if current is None or current.graph is None or streams.keys is None:
        return False
    encoded = encode_graph(current.graph)
    if not encoded or not stream.graphs.learn_graph(current.graph, now):
        return False
    plain = streams.authors.signer.sign(PURPOSE_GRAPH, stream.opening.stream + encoded) + encoded
    _keep(stream, current.epoch, streams.keys.seal(PURPOSE_GRAPH, plain, streams.entropy(NONCE_BYTES)))
    return True


def learn_embedded(stream: Stream, epoch: int, blob: bytes, streams: StreamTable, now: float) -> bool:
    """At a relay: take a graph that its source put into a stream.

    Returns:
        Whether it is newer than the one that governed it.

    Raises:
        DecodeError: it is not authentic, not signed by the stream's source, or of another epoch.
    """
    if streams.keys is None:
        raise DecodeError("no group key")
    plain = streams.keys.open(PURPOSE_GRAPH, blob)
    signature, encoded = plain[:SIGNATURE_BYTES], plain[SIGNATURE_BYTES:]
    if not stream.author.is_signed(PURPOSE_GRAPH, stream.opening.stream + encoded, signature):
        raise DecodeError("a graph that the stream's source has not signed")
    graph = decode_graph(encoded)
    if graph.epoch != epoch:
        raise DecodeError("a graph of another epoch")
    newer = stream.graphs.learn_graph(graph, now)
    _keep(stream, epoch, blob)
    return newer


def encode_graph(graph: AcyclicGraph) -> bytes:
    """Return a graph's binary form, or nothing if it is too large to travel between agents."""
    try:
        return graph.encode()
    except LocalProtocolError:
        return b""


def graph_records(stream: int, epoch: int, blob: bytes) -> list[GraphRecord]:
    """Cut a graph into records that fit the smallest datagram; none if it is too large to travel."""
    parts = -(-len(blob) // GRAPH_PART_BYTES)
    if parts > MAX_GRAPH_PARTS:
        return []
    return [
        GraphRecord(stream, epoch, part, parts, blob[part * GRAPH_PART_BYTES : (part + 1) * GRAPH_PART_BYTES])
        for part in range(parts)
    ]


def _keep(stream: Stream, epoch: int, blob: bytes) -> None:
    """Keep a graph as it travels, and drop those whose epoch is kept no more."""
    stream.graph_blobs[epoch] = blob
    for stale in [held for held in stream.graph_blobs if stream.graphs.get(held) is None]:
        del stream.graph_blobs[stale]
