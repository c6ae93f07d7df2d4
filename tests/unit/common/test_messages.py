import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common import limits
from common.errors import DecodeError
from common.fields import encode_key
from common.graph import AcyclicGraph, Tree
from common.messages import (
    Accepted,
    AdjacencyReport,
    CandidatesReport,
    Channels,
    ChannelSpec,
    ClientMessage,
    Enrolment,
    EpochUpdate,
    ErrorMessage,
    GraphBody,
    GraphUpdate,
    NeighboursBody,
    NeighboursUpdate,
    QosFigures,
    QosReport,
    Roster,
    RosterEntry,
    ServerMessage,
    Subscribe,
    TreeBody,
    TreeNeighbours,
    Unchanged,
    decode_client_message,
    decode_server_message,
    describe,
    encode_message,
)

KEY = encode_key(bytes(range(32)))
GRAPH = AcyclicGraph(7, ("A", "B", "C"), (Tree.of("throughput", [("A", "B")]), Tree.of("latency", [("B", "C")])))
BODY = GraphBody.from_graph(GRAPH)

CLIENT: list[ClientMessage] = [
    Subscribe(scope="graph", epoch=None),
    Subscribe(scope="neighbours", epoch=7),
    AdjacencyReport(peers=("B", "C")),
    QosReport(links={"B": QosFigures(bandwidth_bps=1e6, delay_s=0.01, jitter_s=0.0, loss=0.5), "C": QosFigures()}),
    CandidatesReport(candidates=("192.0.2.1:1", "[2001:db8::1]:65535", "host.example:7400")),
    CandidatesReport(candidates=(), mapping="varies"),
]
SERVER: list[ServerMessage] = [
    Unchanged(epoch=7),
    GraphUpdate(graph=BODY, passed=(BODY,)),
    NeighboursUpdate(
        epoch=7,
        trees=(TreeNeighbours(objective="throughput", neighbours=("B",)),),
        passed=(NeighboursBody.from_graph(GRAPH, "A"),),
    ),
    EpochUpdate(epoch=8),
    Roster(
        version=1,
        devices=(RosterEntry(device="A", public_key=KEY, signing_key=KEY, candidates=()),),
        key_epoch=2,
        group_keys={2: KEY},
    ),
    Channels(version=1, channels=(ChannelSpec(name="files", kind="file"),)),
    Accepted(of="qos"),
    ErrorMessage(reason="strangers", detail="not members: Z"),
]


@pytest.mark.parametrize("message", CLIENT)
def test_what_a_device_says_round_trips(message: ClientMessage) -> None:
    assert decode_client_message(encode_message(message)) == message
    assert decode_client_message(encode_message(message).encode()) == message


@pytest.mark.parametrize("message", SERVER)
def test_what_the_server_says_round_trips(message: ServerMessage) -> None:
    assert decode_server_message(encode_message(message)) == message


@pytest.mark.parametrize("message", [*CLIENT, *SERVER])
def test_every_truncated_prefix_is_a_decode_error(message: ClientMessage | ServerMessage) -> None:
    text = encode_message(message)
    decode = decode_client_message if message in CLIENT else decode_server_message
    for length in range(len(text)):
        with pytest.raises(DecodeError):
            decode(text[:length])


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_garbage_is_a_decode_error(data: str | bytes) -> None:
    with pytest.raises(DecodeError):
        decode_client_message(data)
    with pytest.raises(DecodeError):
        decode_server_message(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ),
    st.sampled_from(["adjacency", "qos", "candidates", "subscribe"]),
    st.sampled_from(["peers", "links", "candidates", "scope", "epoch"]),
)
def test_wrong_types_are_a_decode_error_or_a_message(value: Any, kind: str, field: str) -> None:
    try:
        message = decode_client_message(json.dumps({"type": kind, field: value}))
    except DecodeError:
        return
    assert decode_client_message(encode_message(message)) == message


def test_a_lone_surrogate_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        decode_client_message('{"type": "adjacency", "peers": ["\ud800"]}')


def test_a_deeply_nested_message_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        decode_client_message('{"type": ' + "[" * 100_000)


def test_an_oversized_message_is_a_decode_error_with_the_limit_in_it() -> None:
    with pytest.raises(DecodeError, match=str(limits.MAX_BODY_BYTES)):
        decode_client_message(" " * (limits.MAX_BODY_BYTES + 1))
    with pytest.raises(DecodeError, match=str(limits.MAX_CONTROL_BYTES)):
        decode_server_message(b" " * (limits.MAX_CONTROL_BYTES + 1))


@pytest.mark.parametrize("field", ["bandwidth_bps", "delay_s", "jitter_s", "loss"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "-1", "1e300", '"1"', "true", "[]"])
def test_M2_a_figure_that_is_no_figure_is_refused(field: str, value: str) -> None:
    with pytest.raises(DecodeError, match=rf"qos\.links\.B\.{field}"):
        decode_client_message(f'{{"type": "qos", "links": {{"B": {{"{field}": {value}}}}}}}')


@pytest.mark.parametrize(
    ("field", "most"), [("bandwidth_bps", limits.MAX_RATE_BPS), ("delay_s", 60.0), ("jitter_s", 60.0), ("loss", 1.0)]
)
def test_M2_figures_reach_to_their_limit_and_no_further(field: str, most: float) -> None:
    assert QosFigures.model_validate({field: most})
    assert QosFigures.model_validate({field: 0})
    with pytest.raises(ValidationError):
        QosFigures.model_validate({field: most * 1.001})


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "adjacency", "peers": "B"}',
        '{"type": "adjacency", "peers": ["B", "B"]}',
        '{"type": "adjacency", "peers": ["B!"]}',
        '{"type": "adjacency", "peers": [1]}',
        '{"type": "adjacency", "peers": [], "more": 1}',
        '{"type": "adjacency"}',
        '{"type": "stranger"}',
        '{"peers": []}',
        '{"type": "candidates", "candidates": ["a:1", "a:1"]}',
        '{"type": "candidates", "candidates": ["a"]}',
        '{"type": "candidates", "candidates": ["0.0.0.0:1"]}',
        '{"type": "candidates", "candidates": ["[ff02::1]:1"]}',
        '{"type": "candidates", "candidates": [], "mapping": "odd"}',
        '{"type": "subscribe", "scope": "everything"}',
        '{"type": "subscribe", "scope": "graph", "epoch": -1}',
        '{"type": "subscribe", "scope": "graph", "epoch": 1.5}',
        '{"type": "subscribe", "scope": "graph", "epoch": "1"}',
        '{"type": "subscribe", "scope": "graph", "epoch": 9007199254740992}',
        json.dumps({"type": "adjacency", "peers": [f"d{number}" for number in range(limits.MAX_PEERS + 1)]}),
        json.dumps({"type": "qos", "links": {f"d{number}": {} for number in range(limits.MAX_PEERS + 1)}}),
        json.dumps({"type": "candidates", "candidates": [f"a:{port}" for port in range(1, 18)]}),
    ],
)
def test_a_message_that_breaks_a_rule_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_client_message(text)


def test_an_error_names_the_first_places_and_counts_the_rest() -> None:
    with pytest.raises(ValidationError) as caught:
        AdjacencyReport.model_validate({"peers": [1, 2, 3, 4]})
    text = describe(caught.value)
    assert text.startswith("peers.0: ")
    assert text.endswith("; and 1 more")


def test_an_error_without_a_place_still_says_what_is_wrong() -> None:
    with pytest.raises(DecodeError, match=r"^Invalid JSON"):
        decode_client_message("{")


@pytest.mark.parametrize("text", ["", "!" * 44, KEY[:-2] + "9="])
def test_a_key_that_is_none_cannot_be_enrolled(text: str) -> None:
    with pytest.raises(ValidationError):
        Enrolment(device="A", public_key=text, signing_key=text)


def test_a_graph_survives_its_body() -> None:
    assert BODY.to_graph() == GRAPH
    assert BODY.trees[0].components is None


def test_a_body_names_components_when_asked() -> None:
    body = GraphBody.from_graph(GRAPH, components=True)
    assert body.trees[1].components == (("A",), ("B", "C"))
    assert body.to_graph() == GRAPH


def test_a_body_with_a_cycle_is_a_decode_error() -> None:
    edges = (("A", "B"), ("A", "C"), ("B", "C"))
    body = GraphBody(epoch=1, devices=("A", "B", "C"), trees=(TreeBody(objective="throughput", edges=edges),))
    with pytest.raises(DecodeError, match="cycle"):
        body.to_graph()


def test_M4_a_device_s_view_lists_its_neighbours_in_each_tree() -> None:
    body = NeighboursBody.from_graph(GRAPH, "B")
    assert body == NeighboursBody(
        epoch=7,
        trees=(
            TreeNeighbours(objective="throughput", neighbours=("A",)),
            TreeNeighbours(objective="latency", neighbours=("C",)),
        ),
    )


def test_a_channel_has_the_defaults_of_the_design() -> None:
    channel = ChannelSpec(name="files", kind="file")
    assert (channel.objective, channel.routing, channel.sockets, channel.repeat) == (
        "throughput",
        "subscribe",
        "shared",
        "ranges",
    )
    assert (channel.buffer_bytes, channel.query_interval_s, channel.retention_s) == (262_144, 30.0, 600.0)
    assert channel.retention_bytes == 64 * 1024 * 1024
