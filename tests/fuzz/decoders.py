"""Targets that read bytes: each may raise what its reader documents, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from agent.api.messages import Acknowledgement
from agent.api.streams import SendFile
from agent.core.embedding import GRAPH_PART_BYTES, graph_records
from agent.core.fragments import JOIN_WITHIN_S, MAX_JOINED, MAX_JOINING, MAX_JOINING_BYTES, Joiner, split
from agent.services.names import numbered, part_name, safe_name
from common import frames, graph, stun
from common.datagrams import (
    CHUNK_HEADER,
    FRAGMENT_HEADER,
    HELLO_BYTES,
    HOP_HEADER,
    Hello,
    PacketType,
    expand_number,
    hello_key_id,
    open_hello,
    peek_chunk,
)
from common.errors import DecodeError
from common.fields import Candidate, ToldCandidate, decode_key, encode_key, split_candidate
from common.frames import encode_frame
from common.graph import AcyclicGraph, Tree
from common.graph_frames import AskGraph, GraphRecord, LostEdges
from common.ids import is_id
from common.limits import MAX_BODY_BYTES, MAX_DATAGRAM_BYTES, MAX_NAME_BYTES
from common.link_frames import Ack, Bye, ChannelPort, Probe
from common.messages import (
    Accepted,
    AdjacencyReport,
    CandidatesReport,
    Channels,
    ChannelSpec,
    Enrolment,
    EpochUpdate,
    ErrorMessage,
    GraphBody,
    GraphUpdate,
    Message,
    MtuUpdate,
    NeighboursBody,
    NeighboursUpdate,
    QosFigures,
    QosReport,
    Roster,
    RosterEntry,
    Subscribe,
    Unchanged,
    decode_client_message,
    decode_server_message,
    encode_message,
)
from common.opening import Opening
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train, TrainReport
from common.sealing import GROUP_SEAL_OVERHEAD, GroupKeys, Sealer
from common.stream_frames import (
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
from common.tokens import hash_token, matches, matches_any, subject_of
from server.api.groups import NewGroup
from tests.fuzz.choices import Choices

KEY: Final = bytes(range(32))
KEYS: Final = GroupKeys("lab", {1: KEY})
GRAPH: Final = AcyclicGraph(
    1_800_000_000_000_000,
    ("A", "B", "C"),
    (Tree("latency", (("A", "C"), ("B", "C"))), Tree("throughput", (("A", "B"), ("B", "C")))),
)
OPENING: Final = Opening(
    stream=bytes(range(16)),
    channel="files",
    source="A",
    kind="file",
    key=KEY,
    piece_bytes=1_160,
    name="a.bin",
    size_bytes=3_000,
    created=1_800_000_000.0,
    expires=1_800_000_100.0,
)
_MESSAGES_OPENING: Final = Opening(bytes(16), "messages", "A", "message", KEY, 1_160, "", None, 0.0, 1.0)
FRAMES: Final[tuple[frames.Frame, ...]] = (
    Probe(1, 2, 3, 4, 5, 250, 7),
    Ack(9, 10, ((8, 10), (1, 3))),
    Have(1, 1, 10, ((1, 4), (6, 9)), 20),
    Want(1, ((4, 6),)),
    Stop(1),
    StreamOpening(b"sealed"),
    AskOpening(1),
    AskGraph(0, 7),
    GraphRecord(0, 7, 0, 2, b"part"),
    Receipts(1, (ReceiptEntry("B", "refused", 5, "no-space: full"), ReceiptEntry("C", "verified", 9, ""))),
    Cancel(1, b"sealed"),
    ChannelPort("files", 4_001),
    Bye(),
    MtuProbe(1_200),
    MtuAnswer(1_200),
    PathChallenge(b"12345678"),
    PathAnswer(b"12345678"),
    Interrupted(1, delivering=True),
    LostEdges("A", 1, 2, ("B", "C")),
    Train(1, 0, 4, 100),
    TrainReport(1, 4, 1_200, 50),
)
_SPEC: Final = ChannelSpec(name="files", kind="file")
CLIENT: Final[tuple[Message, ...]] = (
    Subscribe(scope="graph", epoch=7),
    AdjacencyReport(peers=("B", "C")),
    QosReport(links={"B": QosFigures(bandwidth_bps=1e6, delay_s=0.01, jitter_s=0.0, loss=0.5, mtu_bytes=1_472)}),
    CandidatesReport(candidates=("192.0.2.1:7400", "[2001:db8::1]:7400"), mapping="stable"),
)
SERVER: Final[tuple[Message, ...]] = (
    Unchanged(epoch=1),
    GraphUpdate(graph=GraphBody.from_graph(GRAPH), passed=(GraphBody.from_graph(GRAPH),)),
    NeighboursUpdate(
        epoch=2, trees=NeighboursBody.from_graph(GRAPH, "B").trees, passed=(NeighboursBody.from_graph(GRAPH, "B"),)
    ),
    EpochUpdate(epoch=3),
    Roster(
        version=1,
        devices=(RosterEntry(device="B", public_key=encode_key(KEY), candidates=("192.0.2.1:7400",)),),
        key_epoch=1,
        group_keys={1: encode_key(KEY)},
    ),
    Channels(version=1, channels=(_SPEC, ChannelSpec(name="messages", kind="message", routing="overflow"))),
    MtuUpdate(mtu_bytes=1_472),
    Accepted(of="qos"),
    ErrorMessage(reason="evicted", detail="gone"),
)
_BODIES: Final[tuple[tuple[type[BaseModel], dict[str, Any]], ...]] = (
    (Enrolment, {"device": "A", "public_key": encode_key(KEY)}),
    (NewGroup, {"group": "lab", "channels": [json.loads(_SPEC.model_dump_json())]}),
    (ChannelSpec, json.loads(_SPEC.model_dump_json())),
    (AdjacencyReport, {"peers": ["B", "C"]}),
    (QosReport, {"links": {"B": {"bandwidth_bps": 1e6, "loss": 0.1}}}),
    (CandidatesReport, {"candidates": ["192.0.2.1:7400"], "mapping": "none"}),
    (SendFile, {"path": "/a", "channel": "files", "wait": "all", "timeout": 1.0}),
    (Acknowledgement, {"consumer": "c", "channel": "messages", "numbers": {"0" * 32: 7}}),
)


def json_seeds(*examples: Any) -> list[bytes]:
    """Return inputs of targets that begin with `json_text`: each example as it is, and one that is edited."""
    texts = [bytes([0, 0]) + json.dumps(example).encode() for example in examples]
    return texts + [bytes([1, place, 2, 1, 3, 5, 9]) for place in range(len(examples))]


def json_text(data: bytes, examples: tuple[Any, ...]) -> bytes:
    """Return the JSON that an input stands for: its own bytes, or one of the examples with places changed."""
    choices = Choices(data)
    edits = choices.below(2)
    example = choices.pick(examples)
    if not edits:
        return choices.rest()
    return json.dumps(choices.edited(example)).encode()


def fuzz_frames(data: bytes) -> None:
    """Control frames: what was read can be written, and is read the same."""
    with contextlib.suppress(DecodeError):
        found = frames.decode_untrusted(data)
        assert frames.decode_untrusted(b"".join(encode_frame(frame) for frame in found)) == found


def frame_seeds() -> list[bytes]:
    """Return one of each frame, and all of them."""
    each = [encode_frame(frame) for frame in FRAMES]
    return [*each, b"".join(each)]


def fuzz_graph(data: bytes) -> None:
    """The graph's binary form: there is one for each graph."""
    with contextlib.suppress(DecodeError):
        found = graph.decode_untrusted(data)
        assert found.encode() == data
        records = graph_records(0, found.epoch, data)
        assert all(0 < len(record.data) <= GRAPH_PART_BYTES for record in records)
        for tree in range(len(found.trees)):
            assert sum(map(len, found.components(tree))) == len(found.devices)


def fuzz_opening(data: bytes) -> None:
    """Stream openings."""
    text = json_text(data, _OPENINGS)
    with contextlib.suppress(DecodeError):
        found = Opening.decode_untrusted(text)
        assert Opening.decode_untrusted(found.encode()) == found
        assert found.pieces >= 0
        name = safe_name(found.name)
        for path in (name, numbered(name, 7), part_name(name, found.hex)):
            _check_file_name(path)


_OPENINGS: Final = tuple(json.loads(each.encode()) for each in (OPENING, _MESSAGES_OPENING))


def fuzz_names(data: bytes) -> None:
    """File names from other devices: never more than one path component."""
    name = safe_name(data.decode(errors="surrogateescape" if data[:1] == b"\xff" else "replace"))
    _check_file_name(name)
    _check_file_name(numbered(name, 10_000))
    _check_file_name(part_name(name, "0" * 32))
    assert safe_name(name) == name


def _check_file_name(name: str) -> None:
    assert name
    assert name not in (".", "..")
    assert name == name.strip()
    assert not set("/\\\0\r\n") & set(name)
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES


def fuzz_stun(data: bytes) -> None:
    """STUN: an answer is never more than three times as long as its request."""
    with contextlib.suppress(DecodeError):
        found = stun.decode_untrusted(data)
        if isinstance(found, stun.BindingRequest):
            for source in (("192.0.2.1", 1), ("2001:db8::1", 65_535)):
                answer = stun.encode_answer(found, source)
                assert len(answer) <= 3 * len(data)
                assert stun.decode_untrusted(answer).transaction == found.transaction


def stun_seeds() -> list[bytes]:
    """Return requests and answers."""
    request = stun.encode_request(bytes(12))
    found = stun.decode_untrusted(request)
    assert isinstance(found, stun.BindingRequest)
    asks = stun.BindingRequest(found.transaction, (0x7F00,), fingerprint=True)
    return [
        request,
        stun.encode_answer(found, ("192.0.2.1", 7_400)),
        stun.encode_answer(asks, ("2001:db8::1", 7_400)),
        stun.encode_answer(stun.BindingRequest(bytes(16)), ("192.0.2.1", 7_400)),
    ]


def fuzz_hello(data: bytes) -> None:
    """Hellos: of a stranger, and of a member that seals what it likes."""
    sealer = Sealer(KEY)
    choices = Choices(data)
    datagram = data
    if choices.below(2):
        hello = Hello(choices.raw(16).ljust(16), choices.raw(16).ljust(16), choices.number(65_535, 1_200, 9_000))
        datagram = hello.encode(choices.raw(8).ljust(8), sealer, choices.raw(12).ljust(12))
        with contextlib.suppress(DecodeError):
            assert open_hello(datagram, sealer) == hello
    with contextlib.suppress(DecodeError):
        assert len(hello_key_id(datagram)) == 8
        open_hello(datagram, sealer)
        assert len(datagram) == HELLO_BYTES


def fuzz_datagram(data: bytes) -> None:
    """Clear headers, and the numbers that their short forms stand for."""
    found = peek_chunk(data)
    if found is not None:
        assert 0 <= found.number < 1 << 56
        assert 0 <= found.tree < 16
    choices = Choices(data)
    low, largest = choices.number(2**32 - 1), choices.number(2**62)
    number = expand_number(low, largest)
    assert number & 0xFFFFFFFF == low
    assert number >= 0
    assert abs(number - largest) <= 1 << 32


def fuzz_fields(data: bytes) -> None:
    """Keys, addresses and tokens as text."""
    text = data.decode(errors="replace")
    with contextlib.suppress(DecodeError):
        assert encode_key(decode_key(text)) == text
    with contextlib.suppress(DecodeError):
        host, port = split_candidate(text)
        again = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert split_candidate(again) == (host, port)
    for kind in (Candidate, ToldCandidate):
        with contextlib.suppress(ValidationError):
            TypeAdapter(kind).validate_python(text)
    if is_id(text):
        assert len(text.encode()) <= 64
    assert not matches(text, hash_token("A~other"))
    assert not matches_any(text, [hash_token("A~other")])
    assert len(subject_of(text)) <= len(text)


def fuzz_group_record(data: bytes) -> None:
    """Records under the group key: of a stranger, of a member, and with a part changed on the way."""
    with contextlib.suppress(DecodeError):
        KEYS.open(b"opening", data)
        raise AssertionError("a stranger's record was opened")
    choices = Choices(data)
    place, change, nonce = choices.below(256), choices.below(256), choices.raw(12).ljust(12)
    plain = choices.rest()
    sealed = KEYS.seal(b"opening", plain, nonce)
    assert len(sealed) == len(plain) + GROUP_SEAL_OVERHEAD
    assert KEYS.open(b"opening", sealed) == plain
    altered = bytearray(sealed)
    altered[place % len(altered)] ^= change
    for purpose, record in ((b"cancel", sealed), (b"opening", bytes(altered)), (b"opening", sealed[:place])):
        if (purpose, record) != (b"opening", sealed):
            with contextlib.suppress(DecodeError):
                KEYS.open(purpose, record)
                raise AssertionError("a record was opened that nobody sealed")


def fuzz_client_messages(data: bytes) -> None:
    """What devices say over the subscription socket."""
    _check_messages(decode_client_message, json_text(data, tuple(_loaded(CLIENT))))


def fuzz_server_messages(data: bytes) -> None:
    """What a server says: the graphs in it hold together, or are refused."""
    found = _check_messages(decode_server_message, json_text(data, tuple(_loaded(SERVER))))
    if isinstance(found, GraphUpdate):
        for body in (*found.passed, found.graph):
            with contextlib.suppress(DecodeError):
                again = body.to_graph()
                assert GraphBody.from_graph(again).to_graph() == again
                assert graph.decode_untrusted(again.encode()) == again


def _check_messages(decode: Callable[[bytes], Message], text: bytes) -> Message | None:
    found, wrong = None, ""
    try:
        found = decode(text)
    except DecodeError as error:
        wrong = str(error)
    if found is None:
        assert 0 < len(wrong) < 2_000
        return None
    assert decode(encode_message(found).encode()) == found
    return found


def _loaded(messages: tuple[Message, ...]) -> list[Any]:
    return [json.loads(encode_message(message)) for message in messages]


def fuzz_bodies(data: bytes) -> None:
    """Bodies of requests to the server and to the agent."""
    choices = Choices(data)
    model, example = choices.pick(_BODIES)
    text = json_text(choices.rest(), (example,))
    with contextlib.suppress(ValidationError):
        found = model.model_validate_json(text[:MAX_BODY_BYTES])
        assert model.model_validate_json(found.model_dump_json()) == found


def body_seeds() -> list[bytes]:
    """Return a body of each kind."""
    return [bytes([place]) + seed for place, (_, body) in enumerate(_BODIES) for seed in json_seeds(body)]


def fuzz_fragments(data: bytes) -> None:
    """Fragments in any order: what waits stays bounded, and what is whole is what was cut."""
    choices, joiner, now = Choices(data), Joiner(), 0.0
    sent: dict[bytes, None] = {}
    waiting: list[bytes] = []
    while choices:
        way = choices.below(4)
        if way == 0:
            body = CHUNK_HEADER.pack(choices.below(3), choices.below(4)) + choices.raw(choices.below(64)) * 40
            number = choices.number(2**32 - 1, 0)
            waiting += [
                HOP_HEADER.pack(PacketType.FRAGMENT << 4, 1, (number + index) & 0xFFFFFFFF, 0, 0) + part
                for index, part in enumerate(split(body, PacketType.DATA, 1_200))
            ]
            sent[body] = None
            continue
        if way == 1 and waiting:
            datagram = waiting.pop(choices.below(len(waiting)))
        elif way == 2:
            head = FRAGMENT_HEADER.pack(choices.below(3), choices.below(8), choices.below(256))
            number = choices.number(2**32 - 1, 0)
            datagram = HOP_HEADER.pack(PacketType.FRAGMENT << 4, 1, number, 0, 0) + head + bytes(choices.below(9_000))
        else:
            datagram = choices.raw(choices.below(64))
        now += choices.below(4) * JOIN_WITHIN_S / 4
        with contextlib.suppress(DecodeError):
            joined = joiner.add(datagram, now)
            assert joined is None or len(joined) <= MAX_DATAGRAM_BYTES
        assert len(joiner._joining) <= MAX_JOINING
        assert joiner._size_bytes <= MAX_JOINING_BYTES
        assert joiner._size_bytes == sum(each.size_bytes for each in joiner._joining.values())
        assert len(joiner._joined) <= MAX_JOINED


def fragment_seeds() -> list[bytes]:
    """Return chunks in fragments, in order and not."""
    chunk = bytes([0, 1, 2, 60]) + bytes(60) + bytes([2, 5])
    return [chunk + bytes([1, 0, 1, 1, 0, 1]), chunk * 2 + bytes([1, 3, 0, 1, 1, 1, 2, 7, 4, 18, 2, 5] * 3)]


def field_seeds() -> list[bytes]:
    """Return what is right of each field."""
    return [base64.b64encode(KEY), b"192.0.2.1:7400", b"[2001:db8::1]:1", b"host.example:65535", b"A~token", b"A.b-c_1"]


def server_seeds() -> list[bytes]:
    """Return every message of a server."""
    return json_seeds(*_loaded(SERVER))


def client_seeds() -> list[bytes]:
    """Return every message of a device."""
    return json_seeds(*_loaded(CLIENT))


def opening_seeds() -> list[bytes]:
    """Return an opening of each kind."""
    return json_seeds(*_OPENINGS)
