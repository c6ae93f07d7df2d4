"""What the decoders of common take at each limit, and one past it. Where other limits are tested: docs/limits.md."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from common import frames, graph, limits
from common.errors import DecodeError, LocalProtocolError
from common.fields import encode_key
from common.frames import encode_frame
from common.graph import AcyclicGraph, Tree
from common.graph_frames import GraphRecord, LostEdges
from common.ids import is_id
from common.messages import (
    Channels,
    ChannelSpec,
    EnrolmentAnswer,
    Roster,
    RosterEntry,
    decode_client_message,
    decode_server_message,
)
from common.opening import Opening
from common.path_frames import MtuAnswer, Train
from common.ranges import NO_LIMIT
from common.stream_frames import Have, ReceiptEntry, Receipts, Want

KEY = encode_key(bytes(32))
HOUR_EDGE = limits.MAX_QUERY_INTERVAL_S


def names(count: int) -> list[str]:
    """Return so many device ids, sorted."""
    return [f"d{number:05}" for number in range(count)]


def client(kind: str, **fields: Any) -> object:
    """Read a device's message."""
    return decode_client_message(json.dumps({"type": kind, **fields}))


def server(kind: str, **fields: Any) -> object:
    """Read a server's message."""
    return decode_server_message(json.dumps({"type": kind, **fields}))


def channel(**fields: Any) -> object:
    """Read a channel's rules."""
    return server("channels", version=1, channels=[{"name": "a", "kind": "message", **fields}])


def figure(**fields: Any) -> object:
    """Read a link's figures."""
    return client("qos", links={"B": fields})


def frame(made: frames.Frame) -> object:
    """Read a frame."""
    return frames.decode_untrusted(encode_frame(made))


def graph_body(epoch: int = 1, devices: int = 2, trees: int = 1) -> dict[str, Any]:
    """Return a graph as JSON."""
    bodies = [{"objective": f"o{number:02}", "edges": []} for number in range(trees)]
    return {"epoch": epoch, "devices": names(devices), "trees": bodies}


def roster(devices: int = 1, candidates: int = 0, keys: int = 1, first_key: int = 0) -> object:
    """Read a roster."""
    told = [f"192.0.2.{number}:1" for number in range(candidates)]
    entries = [{"device": name, "public_key": KEY, "candidates": told} for name in names(devices)]
    kept = {str(first_key + epoch): KEY for epoch in range(keys)}
    return server("roster", version=1, devices=entries, key_epoch=max(first_key, 0), group_keys=kept)


def binary_graph(trees: int) -> object:
    """Read the binary form of a graph without edges that has so many trees."""
    whole = AcyclicGraph(1, ("A",), (Tree("o", ()),)).encode()
    one = whole[-3:]
    rest = b"".join(bytes([len(f"o{number}")]) + f"o{number}".encode() + b"\0" for number in range(1, trees))
    return graph.decode_untrusted(whole[:-4] + bytes([trees]) + one + rest)


def opening(**changes: Any) -> object:
    """Read an opening."""
    made = Opening(bytes(16), "files", "A", "file", bytes(32), 1_160, "f", 1, 0.0, 1.0)
    return Opening.decode_untrusted(json.dumps({**json.loads(made.encode()), **changes}).encode())


def receipts(count: int, reason: int = 0) -> object:
    """Read receipts."""
    return frame(Receipts(1, (ReceiptEntry("B", "refused", 0, "r" * reason),) * count))


def graph_part(parts: int) -> object:
    """Read the last part of a graph."""
    return frame(GraphRecord(0, 1, parts - 1, parts, b""))


def passed(count: int) -> object:
    """Read a push that passed over so many epochs."""
    return server("graph", graph=graph_body(), passed=[graph_body()] * count)


def token(length: int) -> object:
    """Read the answer to an enrolment; its token has so many characters."""
    empty = Roster(version=1, devices=(), key_epoch=0, group_keys={0: KEY})
    whole = EnrolmentAnswer(
        device="A", token="t", group="lab", roster=empty, channels=Channels(version=1, channels=()), lease_s=1.0
    )
    return EnrolmentAnswer.model_validate({**whole.model_dump(), "token": "t" * length})


def name(length: int) -> bool:
    """Tell whether a name of so many characters is one."""
    if not is_id("a" * length):
        raise DecodeError("no name")
    return True


CASES: list[tuple[str, float, float, Callable[[Any], object]]] = [
    # Name, what is taken, what is one past it, and how it is read.
    ("MAX_PEERS of adjacency", limits.MAX_PEERS, limits.MAX_PEERS + 1, lambda n: client("adjacency", peers=names(n))),
    (
        "MAX_PEERS of qos",
        limits.MAX_PEERS,
        limits.MAX_PEERS + 1,
        lambda n: client("qos", links={each: {} for each in names(n)}),
    ),
    (
        "MAX_CANDIDATES of a report",
        limits.MAX_CANDIDATES,
        limits.MAX_CANDIDATES + 1,
        lambda n: client("candidates", candidates=[f"192.0.2.{number}:1" for number in range(n)]),
    ),
    (
        "MAX_CANDIDATES of a roster",
        limits.MAX_CANDIDATES,
        limits.MAX_CANDIDATES + 1,
        lambda n: roster(candidates=n),
    ),
    (
        "MAX_DEVICES_PER_GROUP of a roster",
        limits.MAX_DEVICES_PER_GROUP,
        limits.MAX_DEVICES_PER_GROUP + 1,
        lambda n: roster(devices=n),
    ),
    (
        "MAX_DEVICES_PER_GROUP of a graph",
        limits.MAX_DEVICES_PER_GROUP,
        limits.MAX_DEVICES_PER_GROUP + 1,
        lambda n: server("graph", graph=graph_body(devices=n)),
    ),
    (
        "MAX_CHANNELS",
        limits.MAX_CHANNELS,
        limits.MAX_CHANNELS + 1,
        lambda n: server("channels", version=1, channels=[{"name": each, "kind": "file"} for each in names(n)]),
    ),
    ("MAX_TREES", limits.MAX_TREES, limits.MAX_TREES + 1, lambda n: server("graph", graph=graph_body(trees=n))),
    ("MAX_TREES of the binary form", limits.MAX_TREES, limits.MAX_TREES + 1, binary_graph),
    ("GROUP_KEYS_KEPT", limits.GROUP_KEYS_KEPT, limits.GROUP_KEYS_KEPT + 1, lambda n: roster(keys=n)),
    ("MAX_KEY_EPOCH", limits.MAX_KEY_EPOCH, limits.MAX_KEY_EPOCH + 1, lambda n: roster(first_key=n)),
    ("the lowest key epoch", 0, -1, lambda n: roster(first_key=n)),
    ("EPOCHS_KEPT of a push", limits.EPOCHS_KEPT - 1, limits.EPOCHS_KEPT, passed),
    ("MAX_EPOCH", limits.MAX_EPOCH, limits.MAX_EPOCH + 1, lambda n: server("epoch", epoch=n)),
    (
        "MAX_EPOCH of a frame",
        limits.MAX_EPOCH,
        limits.MAX_EPOCH + 1,
        lambda n: frame(LostEdges("A", 1, n, ("B",))),
    ),
    ("MAX_ID_CHARS", limits.MAX_ID_CHARS, limits.MAX_ID_CHARS + 1, name),
    ("MAX_TOKEN_CHARS", limits.MAX_TOKEN_CHARS, limits.MAX_TOKEN_CHARS + 1, token),
    ("MAX_RATE_BPS", limits.MAX_RATE_BPS, limits.MAX_RATE_BPS + 1e6, lambda n: figure(bandwidth_bps=n)),
    ("MAX_DELAY_S", limits.MAX_DELAY_S, limits.MAX_DELAY_S + 1e-6, lambda n: figure(delay_s=n)),
    ("MIN_DATAGRAM_BYTES", 1_200, 1_199, lambda n: figure(mtu_bytes=n)),
    ("MAX_DATAGRAM_BYTES", 9_000, 9_001, lambda n: figure(mtu_bytes=n)),
    ("MAX_DATAGRAM_BYTES of an answer", 9_000, 9_001, lambda n: frame(MtuAnswer(n))),
    (
        "MAX_BUFFER_BYTES",
        limits.MAX_BUFFER_BYTES,
        limits.MAX_BUFFER_BYTES + 1,
        lambda n: channel(buffer_bytes=n),
    ),
    (
        "MAX_RETENTION_BYTES",
        limits.MAX_RETENTION_BYTES,
        limits.MAX_RETENTION_BYTES + 1,
        lambda n: channel(retention_bytes=n),
    ),
    ("MAX_RETENTION_S", limits.MAX_RETENTION_S, limits.MAX_RETENTION_S + 0.001, lambda n: channel(retention_s=n)),
    (
        "MIN_QUERY_INTERVAL_S",
        limits.MIN_QUERY_INTERVAL_S,
        limits.MIN_QUERY_INTERVAL_S - 0.001,
        lambda n: channel(query_interval_s=n),
    ),
    ("MAX_QUERY_INTERVAL_S", HOUR_EDGE, HOUR_EDGE + 0.001, lambda n: channel(query_interval_s=n)),
    (
        "MAX_NAME_BYTES",
        limits.MAX_NAME_BYTES,
        limits.MAX_NAME_BYTES + 1,
        lambda n: opening(name="é" * (n // 2) + "x" * (n % 2)),
    ),
    ("MAX_FILE_BYTES", limits.MAX_FILE_BYTES, limits.MAX_FILE_BYTES + 1, lambda n: opening(size=n)),
    (
        "MAX_RECEIPTS_PER_FRAME",
        limits.MAX_RECEIPTS_PER_FRAME,
        limits.MAX_RECEIPTS_PER_FRAME + 1,
        receipts,
    ),
    ("MAX_REASON_BYTES", limits.MAX_REASON_BYTES, limits.MAX_REASON_BYTES + 1, lambda n: receipts(1, reason=n)),
    ("MAX_GRAPH_PARTS", limits.MAX_GRAPH_PARTS, limits.MAX_GRAPH_PARTS + 1, graph_part),
    (
        "MAX_TRAIN_DATAGRAMS",
        limits.MAX_TRAIN_DATAGRAMS,
        limits.MAX_TRAIN_DATAGRAMS + 1,
        lambda n: frame(Train(1, n - 1, n)),
    ),
    (
        "MAX_LOST_EDGES",
        limits.MAX_LOST_EDGES,
        limits.MAX_LOST_EDGES + 1,
        lambda n: frame(LostEdges("A", 1, 1, tuple(names(n)))),
    ),
    (
        "MAX_RANGES",
        limits.MAX_RANGES,
        limits.MAX_RANGES + 1,
        lambda n: frame(Want(1, tuple((2 * place, 2 * place + 1) for place in range(n)))),
    ),
    ("NO_LIMIT, chunk numbers", NO_LIMIT, NO_LIMIT + 1, lambda n: frame(Have(1, 1, n, ()))),
]


@pytest.mark.parametrize(("taken", "refused", "read"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_at_the_limit_is_taken_and_one_past_it_is_refused(
    taken: float, refused: float, read: Callable[[Any], object]
) -> None:
    assert read(taken)
    with pytest.raises((DecodeError, ValueError)):
        read(refused)


def test_a_body_may_have_its_most_bytes() -> None:
    text = json.dumps({"type": "subscribe", "scope": "graph"})
    assert decode_client_message(text + " " * (limits.MAX_BODY_BYTES - len(text)))
    with pytest.raises(DecodeError, match=f"at most {limits.MAX_BODY_BYTES}"):
        decode_client_message(text + " " * (limits.MAX_BODY_BYTES - len(text) + 1))


def test_a_message_of_the_server_may_have_its_most_bytes() -> None:
    text = json.dumps({"type": "epoch", "epoch": 1})
    assert decode_server_message(text + " " * (limits.MAX_CONTROL_BYTES - len(text)))
    with pytest.raises(DecodeError, match=f"at most {limits.MAX_CONTROL_BYTES}"):
        decode_server_message(text + " " * (limits.MAX_CONTROL_BYTES - len(text) + 1))


def test_the_messages_of_a_group_at_its_limits_fit_into_what_is_read_of_them() -> None:
    told = tuple(f"192.0.2.{number}:65535" for number in range(limits.MAX_CANDIDATES))
    entry = RosterEntry(device="d" * limits.MAX_ID_CHARS, public_key=KEY, candidates=told)
    assert len(entry.model_dump_json()) * limits.MAX_DEVICES_PER_GROUP < limits.MAX_CONTROL_BYTES
    longest = ChannelSpec(name="c" * limits.MAX_ID_CHARS, kind="message", delay_sensitive=True)
    assert len(longest.model_dump_json()) * limits.MAX_CHANNELS < limits.MAX_BODY_BYTES


def test_a_graph_may_have_its_most_bytes_and_no_more() -> None:
    devices = tuple(f"{number:0{limits.MAX_ID_CHARS}}" for number in range(1_008))
    short = AcyclicGraph(1, devices, (Tree("o", ()),))
    missing = limits.MAX_GRAPH_BYTES - len(short.encode())
    assert 2 < missing <= limits.MAX_ID_CHARS
    whole = AcyclicGraph(1, (*devices, "9" * (missing - 1)), (Tree("o", ()),))
    encoded = whole.encode()
    assert len(encoded) == limits.MAX_GRAPH_BYTES
    assert graph.decode_untrusted(encoded) == whole
    longer = AcyclicGraph(1, (*devices, "9" * missing), (Tree("o", ()),))
    with pytest.raises(LocalProtocolError, match=f"at most {limits.MAX_GRAPH_BYTES}"):
        longer.encode()
    with pytest.raises(DecodeError, match=f"at most {limits.MAX_GRAPH_BYTES}"):
        graph.decode_untrusted(encoded + b"\0")


def test_every_limit_says_why_it_stands_where_it_stands() -> None:
    source = Path(limits.__file__).read_text(encoding="utf-8")
    lines = [line for line in source.splitlines() if line and not line.startswith("#")]
    for line, after in pairwise(lines[1:]):
        if line[0].isupper():
            assert after.startswith('"""'), line
