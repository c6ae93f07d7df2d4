"""Graphs that travel with a stream (M12): put in, taken out, forged, cut and forgotten."""

import random
from collections import Counter, deque

import pytest

from agent.core.channels import ChannelTable
from agent.core.embedding import GRAPH_PART_BYTES, embed, encode_graph, graph_records, learn_embedded
from agent.core.memory_store import MemoryStores
from agent.core.routing import GraphTable
from agent.core.stream import Stream
from agent.core.streams import StreamTable
from common.errors import DecodeError
from common.graph import AcyclicGraph, Tree
from common.limits import EPOCHS_MAX, MAX_GRAPH_PARTS, STREAM_MEMORY_BYTES
from common.sealing import NONCE_BYTES, GroupKeys
from common.signing import PURPOSE_GRAPH, PURPOSE_OPENING, Signer
from tests.unit.agent.core.parts import GROUP, MESSAGE, SIGNER, entropy_of, graph, make_stream

NONCE = bytes(NONCE_BYTES)


def streams(device: str = "A", *, keys: bool = True) -> StreamTable:
    table = StreamTable(
        device,
        GROUP,
        1_200,
        STREAM_MEMORY_BYTES,
        channels=ChannelTable(GraphTable(device, 0.0), random.Random(1)),
        signer=SIGNER,
        stores=MemoryStores(),
        drops=Counter(),
        events=deque(),
        entropy=entropy_of(1),
        wall_offset=0.0,
    )
    table.keys = GroupKeys(GROUP, {1: bytes(32)}) if keys else None
    return table


def known(found: AcyclicGraph) -> GraphTable:
    table = GraphTable("A", 0.0)
    table.learn_graph(found, 0.0)
    return table


def signed(stream: Stream, encoded: bytes, signer: Signer = SIGNER, purpose: bytes = PURPOSE_GRAPH) -> bytes:
    return signer.sign(purpose, stream.opening.stream + encoded) + encoded


def sealed(table: StreamTable, plain: bytes, purpose: bytes = PURPOSE_GRAPH) -> bytes:
    assert table.keys is not None
    return table.keys.seal(purpose, plain, NONCE)


def test_m12_what_the_source_embeds_governs_the_stream_at_a_relay() -> None:
    source, relay = make_stream(role="source"), make_stream()
    found = graph(5, ("A", "B"), ("B", "C"))
    assert embed(source, known(found).current, streams(), 0.0)
    assert not embed(source, known(found).current, streams(), 0.0)
    assert learn_embedded(relay, 5, source.graph_blobs[5], streams("B"), 0.0)
    assert relay.graphs.current is not None
    assert relay.graphs.current.graph == found
    assert relay.graphs.current.next_hops(0, "A") == ("C",)
    assert relay.graph_blobs == source.graph_blobs
    assert not learn_embedded(relay, 5, source.graph_blobs[5], streams("B"), 0.0)


def test_nothing_is_embedded_without_a_whole_graph_or_a_key() -> None:
    stream, table = make_stream(role="source"), known(graph(5, ("A", "B")))
    assert not embed(stream, None, streams(), 0.0)
    assert not embed(stream, table.current, streams(keys=False), 0.0)
    table.learn_epoch(6, 0.0)
    assert not embed(stream, table.current, streams(), 0.0)
    assert stream.graph_blobs == {}


def test_an_older_graph_is_kept_for_the_pieces_that_name_it() -> None:
    source, relay, table = make_stream(role="source"), make_stream(), streams()
    for epoch in (5, 6):
        assert embed(source, known(graph(epoch, ("A", "B"))).current, table, 0.0)
    assert learn_embedded(relay, 6, source.graph_blobs[6], table, 0.0)
    assert not learn_embedded(relay, 5, source.graph_blobs[5], table, 0.0)
    assert sorted(relay.graph_blobs) == [5, 6]


def test_graphs_as_they_travel_are_forgotten_with_their_epochs_at_both_ends() -> None:
    source, relay, table = make_stream(role="source"), make_stream(), streams()
    for epoch in range(1, EPOCHS_MAX + 10):
        embed(source, known(graph(epoch, ("A", "B"))).current, table, 0.0)
        learn_embedded(relay, epoch, source.graph_blobs[epoch], table, 0.0)
    assert sorted(source.graph_blobs) == sorted(relay.graph_blobs) == list(range(10, EPOCHS_MAX + 10))


def test_a_forged_graph_is_refused_and_changes_nothing() -> None:
    relay, table = make_stream(), streams("B")
    right = graph(5, ("A", "B")).encode()
    forged = [
        b"",
        bytes(100),
        sealed(table, signed(relay, right), b"opening"),
        sealed(table, signed(make_stream(MESSAGE), right)),
        sealed(table, signed(relay, right, Signer(bytes(32), GROUP))),
        sealed(table, signed(relay, right, purpose=PURPOSE_OPENING)),
        sealed(table, signed(relay, b"")),
        sealed(table, signed(relay, right[:-1])),
        sealed(table, signed(relay, graph(6, ("A", "B")).encode())),
    ]
    for blob in forged:
        with pytest.raises(DecodeError):
            learn_embedded(relay, 5, blob, table, 0.0)
    with pytest.raises(DecodeError, match="no group key"):
        learn_embedded(relay, 5, sealed(table, signed(relay, right)), streams("B", keys=False), 0.0)
    assert relay.graphs.current is None
    assert relay.graph_blobs == {}


def test_a_graph_too_large_for_its_binary_form_is_not_embedded() -> None:
    found = AcyclicGraph(5, tuple(f"{number:064}" for number in range(1_100)), (Tree("throughput", ()),))
    stream = make_stream(role="source")
    assert encode_graph(found) == b""
    assert encode_graph(graph(5, ("A", "B"))) == graph(5, ("A", "B")).encode()
    assert not embed(stream, known(found).current, streams(), 0.0)
    assert stream.graphs.current is None


@pytest.mark.parametrize("size", [1, GRAPH_PART_BYTES, GRAPH_PART_BYTES + 1, MAX_GRAPH_PARTS * GRAPH_PART_BYTES])
def test_a_graph_is_cut_into_records_that_make_it_whole_again(size: int) -> None:
    blob = random.Random(1).randbytes(size)
    records = graph_records(7, 5, blob)
    assert b"".join(record.data for record in records) == blob
    assert [(record.part, record.parts) for record in records] == [(at, len(records)) for at in range(len(records))]
    assert {(record.stream, record.epoch) for record in records} == {(7, 5)}


def test_a_graph_too_large_to_travel_does_not() -> None:
    assert graph_records(7, 5, bytes(MAX_GRAPH_PARTS * GRAPH_PART_BYTES + 1)) == []
