"""A chunk's way: repeat test, opening, keeping, and on to the next hops (M6 to M8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agent.core import ring as ring_module
from agent.core import stream as stream_module
from agent.core import streams as streams_module
from agent.core.counters import HopCounters
from agent.core.events import FileFailed, MessageReceived, QueryNeighbours, ReceiptsChanged, Transmit
from agent.core.memory_store import MemoryStores, MemoryStreamStore
from agent.core.overflow_manner import FLUSH_S
from agent.core.rangeset import RangeSet
from agent.core.source import CUT_AT_ONCE
from agent.core.store import StoreError
from common.datagrams import BOTH_HEADERS, FLAG_PROOF, HOP_HEADER_BYTES, PacketType, peek_chunk
from common.graph import AcyclicGraph, Tree, short_epoch
from common.graph_frames import AskGraph
from common.limits import HOP_WINDOW, MAX_HELD_CHUNKS, STREAM_MEMORY_BYTES
from common.messages import Channels, ChannelSpec, GraphBody, GraphUpdate
from common.sealing import TAG_BYTES
from common.signing import SIGNATURE_BYTES
from common.stream_frames import AskOpening, StreamOpening, Want
from tests.harness.mesh import FILES, FIRST_EPOCH, MESSAGES, PIECE_BYTES, Crossing, Mesh, data, forged, with_number


def first_chunk(mesh: Mesh, source: str = "A", target: str = "B") -> bytes:
    """Return the first chunk's datagram that crossed a link."""
    return next(
        crossing.datagram
        for crossing in mesh.crossings
        if (crossing.source, crossing.target) == (source, target) and peek_chunk(crossing.datagram) is not None
    )


def keep_little(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """Let devices keep so many bytes of a stream that they refused."""
    monkeypatch.setattr(streams_module, "RING_PART", STREAM_MEMORY_BYTES // size_bytes)


def is_chunk(crossing: Crossing) -> bool:
    return peek_chunk(crossing.datagram) is not None


def is_control(crossing: Crossing) -> bool:
    return crossing.kind == PacketType.CONTROL


@pytest.mark.parametrize(
    ("routing", "scope"), [("query", "graph"), ("subscribe", "graph"), ("subscribe", "neighbours")]
)
def test_m6_the_source_sends_numbered_pieces_to_every_next_hop(routing: str, scope: str) -> None:
    """The three ways of the method: by query (M4), by subscription to the graph, or to the own neighbours (M5)."""
    channel = FILES.model_copy(update={"routing": routing})
    mesh = Mesh("A-B A-C B-D", channels=(channel,), scopes=dict.fromkeys("ABCD", scope)).linked()
    stream = mesh.send_file("A", data(5 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    for link in ("AB", "AC", "BD"):
        assert mesh.chunks(*link, PacketType.DATA) == [1, 2, 3, 4, 5, 6]
    current = mesh.node("A").table.current
    assert current is not None
    assert (current.graph is not None) == (routing == "subscribe" and scope == "graph")
    assert bool(mesh.requests("A", QueryNeighbours)) == (routing == "query")


def test_m7_a_repeated_chunk_is_dropped_by_its_number_and_acknowledged() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    before = mesh.node("B").peers.counters["A"]
    assert (before.chunks_received, before.duplicates_received, before.repairs_received) == (4, 0, 0)
    sealed = first_chunk(mesh)[HOP_HEADER_BYTES:]
    again = mesh.chunk_to("A", "B", sealed)
    repair = mesh.chunk_to("A", "B", sealed, kind=PacketType.REPEAT)
    mesh.inject("B", again, repair, source="A")
    assert (before.chunks_received, before.duplicates_received, before.repairs_received) == (4, 1, 1)
    assert mesh.drops("B") == {}
    acked = mesh.hop("B", "A")._acks.take_ack(mesh.now)[2]
    sent = mesh.hop("A", "B")._number
    assert any(start <= sent - 2 and sent - 1 < stop for start, stop in acked)


@pytest.mark.parametrize("kind", [PacketType.DATA, PacketType.REPEAT, PacketType.PULLED])
def test_a_repeated_chunk_that_was_altered_is_not_acknowledged(kind: PacketType) -> None:
    """Whoever may acknowledge in somebody's name may silence a hop."""
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    sealed = first_chunk(mesh)[HOP_HEADER_BYTES:]
    counters = mesh.node("B").peers.counters["A"]
    mesh.inject("B", forged(mesh.chunk_to("A", "B", sealed, kind=kind)), source="A")
    assert mesh.drops("B") == {"chunk-not-authentic": 1}
    assert (counters.duplicates_received, counters.repairs_received) == (0, 0)
    assert mesh.hop("B", "A")._acks.due_at() is None


@pytest.mark.parametrize("ahead", [1_000_000, HOP_WINDOW // 2 - 1_000, 1_000, -1_000])
def test_hop_numbers_that_somebody_made_up_do_not_silence_a_hop(ahead: int) -> None:
    """The hop header is not authenticated: whoever sees a chunk may send it again under any hop number."""
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    fields = list(BOTH_HEADERS.unpack_from(first_chunk(mesh)))
    for step in range(1, 4):
        fields[2] = (mesh.hop("A", "B")._number + step * ahead) & 0xFFFFFFFF
        mesh.inject("B", BOTH_HEADERS.pack(*fields) + first_chunk(mesh)[BOTH_HEADERS.size :], source="A")
    mesh.run(1.0)
    start = mesh.now
    second = mesh.send_file("A", data(200 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(second) == ["B"])
    assert mesh.now - start < 2.0
    assert mesh.chunks("A", "B", PacketType.DATA)[21:] == list(range(1, 202))


def test_m7_a_service_that_is_not_distributed_stays_with_the_sources_neighbours() -> None:
    channels = (FILES.model_copy(update={"distribute": False}),)
    mesh = Mesh("A-B B-C", channels=channels).linked()
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.run(3.0)
    assert mesh.verified(stream) == ["B"]
    assert mesh.chunks("B", "C") == []


def test_m7_a_service_that_is_not_distributed_is_not_pulled_by_a_new_neighbour_either() -> None:
    channels = (FILES.model_copy(update={"distribute": False}),)
    mesh = Mesh("A-B B-C", edges="A-B", channels=channels).linked()
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.run(1.0)
    mesh.plan("A-B B-C")
    mesh.run(3.0)
    assert mesh.verified(stream) == ["B"]
    assert mesh.chunks("B", "C") == []


def test_m7_the_service_is_named_by_the_streams_opening_on_the_shared_socket() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.stream("B", stream).opening.channel == "files"
    assert {crossing.socket for crossing in mesh.crossings} == {0}


def test_m7_the_service_is_named_by_the_socket_of_channel_and_peer() -> None:
    mesh = Mesh("A-B B-C", channels=(FILES.model_copy(update={"sockets": "per-channel"}), MESSAGES)).linked()
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    chunks = [crossing for crossing in mesh.crossings if is_chunk(crossing)]
    assert chunks
    for crossing in chunks:
        assert crossing.socket != 0
        assert mesh.node(crossing.source).channels.by_socket[crossing.socket] == ("files", crossing.target)
    assert mesh.drops("B") == {}


def test_m8_a_relays_next_hops_are_its_neighbours_minus_the_previous_hop() -> None:
    mesh = Mesh("A-B B-C B-D C-D", edges="A-B B-C B-D").linked()
    stream = mesh.send_file("C", data(3 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["A", "B", "D"])
    mesh.run(1.0)
    for link in ("CB", "BA", "BD"):
        assert mesh.chunks(*link) == [1, 2, 3, 4]
    for link in ("BC", "AB", "DB", "CD", "DC"):
        assert mesh.chunks(*link) == []


def test_a_chunk_of_an_unknown_stream_is_held_while_its_opening_is_asked_for() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "A" and is_control(crossing)
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.run(0.05)
    assert mesh.stream("A", stream)
    assert mesh.node("B").streams.by_short == {}
    assert mesh.node("B").forwarder.orphans.waiting() == [int(stream[:8], 16)]
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.node("B").forwarder.orphans.waiting() == []
    assert mesh.drops("B") == {}


def test_chunks_of_unknown_streams_are_held_in_a_bounded_place_and_for_a_bounded_time() -> None:
    mesh = Mesh("A-B").linked()
    other = Mesh("A-B", seed=2).linked()
    other.send_file("A", data(PIECE_BYTES))
    sealed = first_chunk(other)[HOP_HEADER_BYTES:]
    asked: list[object] = []
    hop = mesh.hop("B", "A")
    send = hop.send

    def noted(frame: object, *, reliable: bool = True) -> None:
        asked.append(frame)
        send(frame, reliable=reliable)  # type: ignore[arg-type]

    hop.send = noted  # type: ignore[method-assign]
    mesh.inject("B", *(mesh.chunk_to("A", "B", sealed) for _ in range(MAX_HELD_CHUNKS + 5)), source="A")
    assert mesh.drops("B") == {"chunk-of-unknown-stream": 5}
    mesh.run(5.0)
    assert mesh.drops("B") == {"chunk-of-unknown-stream": MAX_HELD_CHUNKS + 5}
    assert mesh.node("B").forwarder.orphans.waiting() == []
    assert 2 <= sum(isinstance(frame, AskOpening) for frame in asked) <= 25
    assert mesh.node("B").streams.by_short == {}


def test_a_chunk_that_was_forged_or_altered_is_counted_and_neither_kept_nor_forwarded() -> None:
    mesh = Mesh("A-B B-C").linked()
    lost: list[bytes] = []

    def drop(crossing: Crossing) -> bool:
        if is_chunk(crossing) and crossing.source == "A":
            lost.append(crossing.datagram)
            return True
        return False

    mesh.drop = drop
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.run(0.02)
    chunk = lost[0]
    assert mesh.chunks("A", "B")[:1] == [1]
    flagged = bytearray(chunk)
    flagged[HOP_HEADER_BYTES + 4] |= 0x80
    for bad in (
        forged(chunk),
        forged(chunk, at=HOP_HEADER_BYTES + 13),
        with_number(chunk, 2),
        with_number(chunk, 99),
        bytes(flagged),
    ):
        mesh.inject("B", bad, source="A")
    assert mesh.drops("B") == {"chunk-not-authentic": 5}
    # There is no chunk 0: it counts as one below what is retained.
    mesh.inject("B", with_number(chunk, 0), source="A")
    assert len(mesh.stream("B", stream).held) == 0
    assert mesh.node("B").peers.counters["A"].chunks_received == 0
    assert mesh.chunks("B", "C") == []
    mesh.inject("B", chunk, source="A")
    assert list(mesh.stream("B", stream).held) == [(1, 2)]


def test_a_chunk_of_an_old_session_is_counted_and_dropped() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.inject("B", forged(first_chunk(mesh), at=1), source="A")
    assert mesh.drops("B") == {"chunk-of-old-session": 1}


def test_a_chunk_on_the_socket_of_another_channel_is_counted_and_dropped() -> None:
    own = ChannelSpec(name="own", kind="file", sockets="per-channel")
    mesh = Mesh("A-B", channels=(FILES, own)).linked()
    socket = next(iter(mesh.node("B").channels.by_socket))
    mesh.drop = is_chunk
    mesh.send_file("A", data(PIECE_BYTES))
    mesh.run(0.02)
    mesh.inject("B", first_chunk(mesh), source="A", socket=socket)
    assert mesh.drops("B") == {"chunk-on-wrong-socket": 1}
    assert mesh.node("B").peers.counters["A"].chunks_received == 0


def test_a_device_without_space_refuses_with_its_reason_and_relays_to_its_children() -> None:
    mesh = Mesh("A-B B-C", stores={"B": MemoryStores(capacity_bytes=1_000)}).linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["C"])
    mesh.run(2.0)
    assert [event.reason for event in mesh.events("B", FileFailed)] == ["no-space"]
    receipts = mesh.events("A", ReceiptsChanged)[-1].receipts
    assert (receipts["B"].state, receipts["B"].reason) == (
        "refused",
        f"no-space: {20 * PIECE_BYTES} bytes are more than the 1000 left here",
    )
    assert receipts["C"].state == "verified"
    assert mesh.content("C", stream) == data(20 * PIECE_BYTES)


def test_a_device_that_keeps_nothing_fetches_again_what_those_below_it_want(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_little(monkeypatch, 20 * PIECE_BYTES)
    monkeypatch.setattr(stream_module, "RING_PART", STREAM_MEMORY_BYTES // (20 * PIECE_BYTES))
    monkeypatch.setattr(ring_module, "LEAST_PLACES", 1)
    mesh = Mesh("A-B B-C", absent="C", stores={"B": MemoryStores(capacity_bytes=1_000)})
    mesh.linked()
    stream = mesh.send_file("A", data(100 * PIECE_BYTES))
    mesh.run(3.0)
    there = mesh.stream("B", stream)
    assert isinstance(there.store, MemoryStreamStore)
    assert 0 < len(there.held) <= 20, "what is kept is bounded, and nothing else is told to be held"
    assert not there.wanted
    mesh.start("C")
    mesh.until(lambda: mesh.verified(stream) == ["C"], within=60.0)
    assert mesh.content("C", stream) == data(100 * PIECE_BYTES)
    mesh.run(1.0)
    assert not there.wanted
    assert len(there.held) <= 20


def test_a_device_that_keeps_nothing_fetches_no_number_that_does_not_exist() -> None:
    mesh = Mesh("A-B B-C", stores={"B": MemoryStores(capacity_bytes=1_000)}).linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["C"])
    there = mesh.stream("B", stream)
    there.held.remove_range(1, 5)
    mesh.say("C", "B", Want(there.short, ((0, 3), (15, 2**40))))
    assert list(there.wanted) == [(1, 3)]
    mesh.until(lambda: not there.wanted)


def test_a_refused_stream_is_forgotten_after_its_retention_like_any_other() -> None:
    channel = FILES.model_copy(update={"retention_s": 1.0})
    mesh = Mesh("A-B", channels=(channel,), stores={"B": MemoryStores(capacity_bytes=1_000)}).linked()
    mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.run(5.0)
    assert mesh.node("B").streams.by_short == {}


def test_a_disk_that_fills_up_in_mid_transfer_refuses_too_and_relays_on() -> None:
    mesh = Mesh("A-B B-C").linked()
    full: list[int] = []
    stream = mesh.send_file("A", data(300 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short) and len(mesh.stream("B", stream).held) > 50)
    store = mesh.devices["B"].stores.streams[stream]

    def write(start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        full.append(start)
        raise StoreError("no-space", "the disk is full")

    failing = type(store)
    original = failing.write_run
    try:
        failing.write_run = lambda self, *args: write(*args) if self is store else original(self, *args)  # type: ignore[method-assign]
        mesh.until(lambda: mesh.verified(stream) == ["C"])
        mesh.run(2.0)
    finally:
        failing.write_run = original  # type: ignore[method-assign]
    assert len(full) == 1
    assert [event.reason for event in mesh.events("B", FileFailed)] == ["no-space"]
    assert mesh.events("A", ReceiptsChanged)[-1].receipts["B"].state == "refused"
    # The chunk that the disk did not take was put into the ring twice, and is what it was.
    held = mesh.stream("B", stream)
    assert held.sealed(full[0], full[0] + 1) == mesh.stream("A", stream).sealed(full[0], full[0] + 1) != []
    # What was on the disk is given back, and is no longer told to be held.
    assert list(store.held()) == []
    assert list(held.held) == list(RangeSet(held.store.held()))
    assert full[0] - 1 not in held.held


def test_a_restarted_source_cuts_what_it_had_cut_a_part_at_a_time() -> None:
    """Sealing a large file again takes seconds, and the links want looking after meanwhile."""
    mesh = Mesh("A-B").linked()
    pieces = 2 * CUT_AT_ONCE + 300
    stream = mesh.send_file("A", data(pieces * PIECE_BYTES))
    there = mesh.stream("A", stream)
    plains = there.store.read_run(1, pieces)
    there.store.write_run(1, plains, [chunk[-TAG_BYTES:] for chunk in there.seal(1, 0, plains)])
    mesh.kill("A")
    mesh.start("A")
    node = mesh.node("A")
    mesh.until(lambda: bool(node.streams.sources) and "B" in node.peers.hops)
    cut: list[int] = []
    poll_transmit = node.poll_transmit

    def counted(*, now: float) -> list[Transmit]:
        before = len(mesh.stream("A", stream).held)
        out = poll_transmit(now=now)
        if not node.streams.verification:
            cut.append(len(mesh.stream("A", stream).held) - before)
        return out

    node.poll_transmit = counted  # type: ignore[method-assign]
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert max(cut) <= CUT_AT_ONCE


def test_what_is_left_to_be_cut_is_cut_at_once_after() -> None:
    mesh = Mesh("A-B", absent="B")
    mesh.run(0.1)
    for _ in range(2 * CUT_AT_ONCE):
        mesh.node("A").publish("messages", b"x", now=mesh.now)
    node = mesh.node("A")
    (entry,) = node.streams.sources.values()
    for held in (CUT_AT_ONCE, 2 * CUT_AT_ONCE):
        node.poll_transmit(now=mesh.now)
        assert len(entry.stream.held) == held
        assert node.poll_timeout() == mesh.now
    node.poll_transmit(now=mesh.now)
    assert node.forwarder.poll_timeout(mesh.now) is None


def test_messages_go_out_before_there_is_any_neighbour_to_take_them() -> None:
    mesh = Mesh("A-B", absent="B")
    mesh.run(0.1)
    mesh.publish("A", b"alone")
    mesh.run(1.0)
    assert len(mesh.node("A").streams.sources) == 1
    mesh.start("B")
    mesh.linked()
    mesh.until(lambda: mesh.payloads("B") == [b"alone"])
    assert mesh.chunks("A", "B", PacketType.PULLED) == [1]


def test_a_file_waits_for_a_neighbour_to_take_it() -> None:
    mesh = Mesh("A-B", absent="B")
    mesh.run(0.1)
    stream = mesh.send_file("A", data(PIECE_BYTES))
    mesh.run(1.0)
    assert len(mesh.stream("A", stream).held) == 0
    mesh.start("B")
    mesh.until(lambda: mesh.verified(stream) == ["B"])


def test_a_source_without_a_graph_sends_nothing_until_it_has_one() -> None:
    mesh = Mesh("A-B", edges=None).linked()
    stream = mesh.send_file("A", data(PIECE_BYTES))
    mesh.publish("A", b"early")
    mesh.run(1.0)
    assert mesh.chunks("A", "B") == []
    mesh.plan("A-B")
    mesh.until(lambda: mesh.verified(stream) == ["B"] and mesh.payloads("B") == [b"early"])


def test_a_chunk_that_names_an_unknown_epoch_waits_and_the_previous_hop_is_asked() -> None:
    mesh = Mesh("A-B B-C", scopes={"A": "graph"}).linked()
    # The push reaches A alone; the server is gone for the others.
    for name in "BC":
        mesh.devices[name].connected = False
        mesh.node(name).control_lost(now=mesh.now)
    epoch = mesh.plan("A-B B-C")
    assert mesh.node("B").table.epoch != epoch
    mesh.publish("A", b"by the new graph")
    start = mesh.now
    mesh.until(lambda: mesh.payloads("C") == [b"by the new graph"])
    assert 0.05 <= mesh.now - start <= 0.2
    assert mesh.node("B").table.epoch == epoch


@pytest.mark.parametrize("minutes", [1, 40, 100])
def test_a_chunk_of_a_new_graph_waits_for_it_however_long_the_old_one_stood(minutes: int) -> None:
    """Short epochs are the low 32 bits of microseconds: half their range is 36 minutes."""
    mesh = Mesh("A-B A-C B-C", edges=None).linked()
    edges = (("A", "B"), ("B", "C"))
    old = AcyclicGraph(FIRST_EPOCH - minutes * 60_000_000, ("A", "B", "C"), (Tree("throughput", edges),))
    for name in "ABC":
        mesh.control(name, GraphUpdate(graph=GraphBody.from_graph(old)))
    mesh.run(0.1)
    mesh.plan("A-B A-C", to="A")
    stream = mesh.send_file("A", data(50 * PIECE_BYTES))
    mesh.run(0.03)
    for name in "BC":
        mesh._push(name)
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.chunks("A", "C", PacketType.DATA) == list(range(1, 52))
    assert mesh.chunks("B", "C") == mesh.chunks("C", "B") == []


def test_a_chunk_that_names_an_epoch_nobody_knows_goes_by_the_newest_known_after_a_second() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    chunk = mesh.message_chunk("A", stream, 2, b"second")
    mesh.inject("B", mesh.chunk_to("A", "B", chunk, epoch=(mesh.node("A").table.epoch or 0) + 77), source="A")
    assert mesh.node("B").forwarder.poll_timeout(mesh.now) is not None
    start = mesh.now
    assert mesh.payloads("B") == [b"first", b"second"]
    assert mesh.chunks("B", "C", PacketType.DATA) == [1]
    mesh.until(lambda: mesh.node("B").forwarder.poll_timeout(mesh.now) is None)
    assert 0.9 <= mesh.now - start <= 1.1
    mesh.until(lambda: mesh.payloads("C") == [b"first", b"second"])


def test_nobody_is_asked_about_an_epoch_when_the_previous_hop_is_gone() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    chunk = mesh.message_chunk("A", stream, 2, b"second")
    mesh.inject("B", mesh.chunk_to("A", "B", chunk, epoch=(mesh.node("A").table.epoch or 0) + 77), source="A")
    mesh.node("A").leave(now=mesh.now)
    mesh._drain("A")
    mesh.kill("A")
    mesh.until(lambda: len(mesh.events("C", MessageReceived)) == 2)
    assert "A" not in mesh.node("B").peers.hops


def test_the_overflow_manner_sends_by_the_answer_and_waits_on_its_own_clock() -> None:
    mesh = Mesh("A-B", channels=(MESSAGES.model_copy(update={"routing": "overflow"}), FILES)).linked()
    mesh.publish("A", b"held back")
    due = mesh.node("A").forwarder.poll_timeout(mesh.now)
    assert due is not None
    assert due == pytest.approx(mesh.now + 0.05)
    mesh.until(lambda: mesh.payloads("B") == [b"held back"])


def test_a_source_whose_file_is_cut_asks_at_once_where_to_send_it() -> None:
    mesh = Mesh("A-B", channels=(FILES.model_copy(update={"routing": "overflow"}),)).linked()
    before = len(mesh.requests("A", QueryNeighbours))
    mesh.send_file("A", data(3 * PIECE_BYTES))
    assert len(mesh.requests("A", QueryNeighbours)) == before + 1


def test_a_source_without_a_server_sends_by_the_newest_graph_at_once() -> None:
    mesh = Mesh("A-B", channels=(FILES.model_copy(update={"routing": "overflow"}),)).linked()
    first = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(first) == ["B"])
    mesh.lose_server()
    start = mesh.now
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.now - start < FLUSH_S


def test_a_device_that_keeps_little_knows_the_end_of_a_file_by_its_closing_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_little(monkeypatch, 2 * PIECE_BYTES)
    files = FILES.model_copy(update={"routing": "overflow"})
    mesh = Mesh("A-B B-C", channels=(files,), stores={"B": MemoryStores(capacity_bytes=10)}).linked()
    start = mesh.now
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["C"])
    assert mesh.now - start < FLUSH_S, "no buffer on the way waited for its timer"


def test_a_question_about_a_graph_is_one_frame_to_the_previous_hop() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    epoch = (mesh.node("A").table.epoch or 0) + 77
    chunk = mesh.message_chunk("A", stream, 2, b"second")
    asked: list[AskGraph] = []
    hop = mesh.hop("A", "B")
    open_control = hop.open_control

    def noted(datagram: bytes, now: float) -> list[object]:
        found = open_control(datagram, now)
        asked.extend(frame for frame in found if isinstance(frame, AskGraph))
        return list(found)

    hop.open_control = noted  # type: ignore[method-assign,assignment]
    mesh.inject("B", mesh.chunk_to("A", "B", chunk, epoch=epoch), source="A")
    mesh.run(0.5)
    assert asked == [AskGraph(0, short_epoch(epoch))]


def test_a_source_cuts_no_further_than_the_overflow_manners_buffer_takes() -> None:
    channel = FILES.model_copy(update={"routing": "overflow", "buffer_bytes": 10 * 1188})
    mesh = Mesh("A-B", channels=(channel,)).linked()
    stream = mesh.send_file("A", data(30 * PIECE_BYTES))
    assert len(mesh.stream("A", stream).held) == 10
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.chunks("A", "B", PacketType.DATA) == list(range(1, 32))


# --- runs ---------------------------------------------------------------------------------------------------------


@dataclass
class Lost:
    """A relay B between A and C, and the chunks of a file of A that the link to B lost."""

    mesh: Mesh
    stream: str
    datagrams: list[bytes]

    def arrive(self, *datagrams: bytes, source: str = "A", socket: int = 0) -> None:
        """Let datagrams arrive at B in one batch."""
        self.mesh.inject("B", *datagrams, source=source, socket=socket)

    def again(self, *numbers: int, kind: PacketType = PacketType.DATA, epoch: int | None = None) -> list[bytes]:
        """Return chunks of it under new hop numbers, one after the other."""
        sealed = [self.datagrams[number - 1][HOP_HEADER_BYTES:] for number in numbers]
        return [self.mesh.chunk_to("A", "B", chunk, kind=kind, epoch=epoch) for chunk in sealed]

    def held(self) -> list[tuple[int, int]]:
        """Return what B holds."""
        return list(self.mesh.stream("B", self.stream).held)

    def onward(self, *kinds: PacketType) -> list[int]:
        """Return the chunks that B sent to C, and those that it owes to C still."""
        owed = self.mesh.hop("B", "C").cursors[int(self.stream[:8], 16)].owed
        waiting = [
            number
            for line in owed
            if not kinds or line.kind in kinds
            for span in line.numbers
            for number in range(*span)
        ]
        return self.mesh.chunks("B", "C", *kinds) + waiting

    def acked(self) -> RangeSet:
        """Return the hop numbers, counted from A's first chunk, that B has to acknowledge to A."""
        first = BOTH_HEADERS.unpack_from(self.datagrams[0])[2]
        ranges = self.mesh.hop("B", "A")._acks.take_ack(self.mesh.now).ranges
        return RangeSet((max(start - first, 0), stop - first) for start, stop in ranges if stop > first)

    @property
    def counters(self) -> HopCounters:
        """What B counted of its link to A."""
        return self.mesh.node("B").peers.counters["A"]


def run_of(mesh: Mesh, stream: str, pieces: int) -> list[bytes]:
    """Return the first chunks of a file of A under the next hop numbers to B, as one train of A would carry them."""
    plains = [data(pieces * PIECE_BYTES)[at * PIECE_BYTES :][:PIECE_BYTES] for at in range(pieces)]
    return [mesh.chunk_to("A", "B", chunk) for chunk in mesh.stream("A", stream).seal(1, 0, plains)]


def lose(pieces: int = 20, links: str = "A-B B-C", **options: Any) -> Lost:
    """Send a file from A of whose chunks none arrives; its opening does."""
    mesh = Mesh(links, **options).linked()
    mesh.drop = lambda crossing: is_chunk(crossing) and crossing.source == "A"
    stream = mesh.send_file("A", data(pieces * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short), within=0.1)
    run = run_of(mesh, stream, pieces)
    # Nothing else is due to be acknowledged.
    mesh.hop("B", "A")._acks.take_ack(mesh.now)
    return Lost(mesh, stream, run)


def test_a_run_is_kept_counted_acknowledged_and_forwarded_chunk_by_chunk() -> None:
    lost = lose()
    before = lost.counters.bytes_received
    lost.arrive(*lost.datagrams[:20])
    assert lost.held() == [(1, 21)]
    counters = lost.counters
    assert (counters.chunks_received, counters.duplicates_received, counters.repairs_received) == (20, 0, 0)
    assert counters.bytes_received - before == sum(map(len, lost.datagrams[:20]))
    assert list(lost.acked()) == [(0, 20)]
    assert lost.onward(PacketType.DATA) == list(range(1, 21))
    assert list(lost.mesh.hop("B", "A").cursors[int(lost.stream[:8], 16)].reported) == [(1, 21)]
    assert lost.mesh.drops("B") == {}
    lost.mesh.drop = lambda _: False
    lost.mesh.until(lambda: lost.mesh.verified(lost.stream) == ["B", "C"])


@pytest.mark.parametrize(
    ("kind", "onward"),
    [
        (PacketType.DATA, PacketType.DATA),
        (PacketType.REPEAT, PacketType.DATA),
        (PacketType.PULLED, PacketType.PULLED),
    ],
)
def test_a_run_goes_on_as_a_first_crossing_unless_it_was_pulled(kind: PacketType, onward: PacketType) -> None:
    lost = lose()
    lost.arrive(*lost.again(3, 4, 5, 6, kind=kind))
    assert lost.onward(onward) == lost.onward() == [3, 4, 5, 6]


@pytest.mark.parametrize("repeated", [1, 4, 8])
@pytest.mark.parametrize("kind", [PacketType.DATA, PacketType.REPEAT])
def test_of_a_run_with_one_repeated_chunk_the_others_are_new(repeated: int, kind: PacketType) -> None:
    lost = lose()
    lost.arrive(lost.datagrams[repeated - 1])
    before = lost.counters.bytes_received
    run = lost.again(*range(1, 9), kind=kind)
    lost.arrive(*run)
    counters = lost.counters
    assert lost.held() == [(1, 9)]
    assert counters.chunks_received == 8
    assert (counters.duplicates_received, counters.repairs_received) == ((1, 0) if kind is PacketType.DATA else (0, 1))
    assert counters.bytes_received - before == sum(map(len, run))
    assert sorted(lost.onward()) == list(range(1, 9))
    first = BOTH_HEADERS.unpack_from(run[0])[2] - BOTH_HEADERS.unpack_from(lost.datagrams[0])[2]
    assert not lost.acked().missing(first, first + 8), "all of it is acknowledged"
    assert lost.mesh.drops("B") == {}


def test_of_a_run_that_is_repeated_every_chunk_is_counted_and_acknowledged_and_none_goes_on() -> None:
    lost = lose()
    lost.arrive(*lost.datagrams[:8])
    lost.arrive(*lost.again(*range(2, 7)))
    assert (lost.counters.chunks_received, lost.counters.duplicates_received) == (8, 5)
    first = BOTH_HEADERS.unpack_from(lost.again(1)[0])[2] - BOTH_HEADERS.unpack_from(lost.datagrams[0])[2]
    assert not lost.acked().missing(first - 5, first)
    assert lost.onward() == list(range(1, 9))
    assert lost.mesh.drops("B") == {}


@pytest.mark.parametrize("place", [0, 4, 7])
@pytest.mark.parametrize("at", [-1, HOP_HEADER_BYTES + 13])
def test_of_a_run_with_one_forged_chunk_the_others_are_taken(place: int, at: int) -> None:
    lost = lose()
    before = lost.counters.bytes_received
    run = lost.datagrams[:8]
    run[place] = forged(run[place], at=at)
    lost.arrive(*run)
    number = place + 1
    expected = RangeSet([(1, number), (number + 1, 9)])
    assert lost.held() == list(expected)
    assert lost.mesh.drops("B") == {"chunk-not-authentic": 1}
    assert lost.counters.chunks_received == 7
    assert lost.counters.bytes_received - before == sum(map(len, run))
    assert place not in lost.acked()
    assert sorted(lost.onward()) == [each for each in range(1, 9) if each != number]
    # The true one is good for what is missing.
    lost.arrive(lost.datagrams[place])
    assert lost.held() == [(1, 9)]


def test_a_run_with_a_repeated_and_a_forged_chunk_is_judged_chunk_by_chunk() -> None:
    lost = lose()
    lost.arrive(lost.datagrams[1], lost.datagrams[4])
    run = lost.again(*range(1, 9))
    # Also what is held already has to be authentic to be acknowledged.
    for place in (4, 6):
        run[place] = forged(run[place])
    lost.mesh.hop("B", "A")._acks.take_ack(lost.mesh.now)
    lost.arrive(*run)
    assert lost.held() == [(1, 7), (8, 9)]
    assert lost.mesh.drops("B") == {"chunk-not-authentic": 2}
    assert (lost.counters.chunks_received, lost.counters.duplicates_received) == (7, 1)
    first = BOTH_HEADERS.unpack_from(run[0])[2] - BOTH_HEADERS.unpack_from(lost.datagrams[0])[2]
    assert list(lost.acked().missing(first, first + 8)) == [(first + 4, first + 5), (first + 6, first + 7)]


def test_a_run_that_reaches_past_the_end_of_a_file_is_taken_up_to_there() -> None:
    lost = lose(3)
    closing = lost.mesh.stream("A", lost.stream).closing
    assert closing == 4
    beyond = lost.mesh.stream("A", lost.stream).seal(3, 0, [bytes(10)])
    beyond += [lost.mesh.stream("A", lost.stream).seal(4 + step, FLAG_PROOF, [bytes(96)])[0] for step in range(3)]
    lost.arrive(*(lost.mesh.chunk_to("A", "B", chunk) for chunk in beyond))
    assert lost.held() == [(3, 5)]
    assert lost.mesh.drops("B") == {"chunk-not-authentic": 2}


def test_a_run_of_an_unknown_stream_is_held_chunk_by_chunk_until_its_opening_comes() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "A"
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    run = run_of(mesh, stream, 20)
    mesh.hop("B", "A")._acks.take_ack(mesh.now)
    mesh.inject("B", *run, source="A")
    assert mesh.node("B").forwarder.orphans.waiting() == [int(stream[:8], 16)]
    assert mesh.hop("B", "A")._acks.due_at() is None, "nothing is acknowledged that did not authenticate"
    mesh.say("A", "B", StreamOpening(mesh.stream("A", stream).sealed_opening))
    assert list(mesh.stream("B", stream).held) == [(1, len(run) + 1)]
    assert mesh.node("B").peers.counters["A"].chunks_received == len(run)
    assert mesh.drops("B") == {}


def test_of_a_run_of_an_unknown_stream_no_more_is_held_than_the_bound() -> None:
    mesh = Mesh("A-B").linked()
    other = Mesh("A-B", seed=2).linked()
    stream = other.send_file("A", data(PIECE_BYTES))
    chunks = other.stream("A", stream).seal(1, 0, [b"x"] * (MAX_HELD_CHUNKS + 5))
    mesh.inject("B", *(mesh.chunk_to("A", "B", chunk) for chunk in chunks), source="A")
    assert mesh.drops("B") == {"chunk-of-unknown-stream": 5}


def test_a_run_of_a_declined_stream_is_counted_and_acknowledged_whole() -> None:
    mesh = Mesh("A-B").linked()
    mesh.control("B", Channels(version=2, channels=(MESSAGES,)))
    mesh.drop = lambda crossing: is_chunk(crossing) and crossing.source == "A"
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: int(stream[:8], 16) in mesh.node("B").streams.declined, within=0.1)
    run = run_of(mesh, stream, 20)
    mesh.inject("B", *run, source="A")
    assert mesh.drops("B") == {"unknown-channel": 1, "chunk-of-declined-stream": 20}
    start = BOTH_HEADERS.unpack_from(run[0])[2]
    acked = RangeSet(mesh.hop("B", "A")._acks.take_ack(mesh.now).ranges)
    assert not acked.missing(start, start + 20)
    assert mesh.node("B").peers.counters["A"].chunks_received == 0


def test_a_run_that_was_held_is_let_go_and_acknowledged_when_its_stream_is_declined() -> None:
    mesh = Mesh("A-B").linked()
    mesh.control("B", Channels(version=2, channels=(MESSAGES,)))
    mesh.drop = lambda crossing: crossing.source == "A"
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    run = run_of(mesh, stream, 20)
    mesh.inject("B", *run, forged(run[0], at=HOP_HEADER_BYTES + 3), source="A")
    short = int(stream[:8], 16)
    assert mesh.node("B").forwarder.orphans.waiting() == [short, short ^ 1]
    mesh.say("A", "B", StreamOpening(mesh.stream("A", stream).sealed_opening))
    assert mesh.node("B").forwarder.orphans.waiting() == [short ^ 1]
    assert mesh.drops("B") == {"unknown-channel": 1, "chunk-of-declined-stream": 20}
    start = BOTH_HEADERS.unpack_from(run[0])[2]
    assert not RangeSet(mesh.hop("B", "A")._acks.take_ack(mesh.now).ranges).missing(start, start + 20)


def test_a_run_of_an_old_session_or_on_the_wrong_socket_is_counted_by_its_chunks() -> None:
    own = ChannelSpec(name="own", kind="file", sockets="per-channel")
    lost = lose(links="A-B", channels=(FILES, own))
    lost.arrive(*(forged(datagram, at=1) for datagram in lost.datagrams[:5]))
    socket = next(iter(lost.mesh.node("B").channels.by_socket))
    lost.arrive(*lost.datagrams[5:9], socket=socket)
    assert lost.mesh.drops("B") == {"chunk-of-old-session": 5, "chunk-on-wrong-socket": 4}
    assert lost.held() == []
    assert lost.counters.chunks_received == 0


def test_a_run_that_the_disk_does_not_take_refuses_the_stream_once_and_goes_on() -> None:
    lost = lose()
    store = lost.mesh.devices["B"].stores.streams[lost.stream]
    asked: list[int] = []

    def write_run(self: MemoryStreamStore, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        if self is store:
            asked.append(start)
            raise StoreError("no-space", "the disk is full")
        original(self, start, pieces, tags)

    original = MemoryStreamStore.write_run
    try:
        MemoryStreamStore.write_run = write_run  # type: ignore[method-assign]
        lost.arrive(*lost.datagrams[:8])
        lost.arrive(*lost.datagrams[8:12])
    finally:
        MemoryStreamStore.write_run = original  # type: ignore[method-assign]
    assert asked == [1]
    assert [event.reason for event in lost.mesh.events("B", FileFailed)] == ["no-space"]
    assert lost.held() == [(1, 13)], "in memory, for those below"
    assert lost.onward(PacketType.DATA) == list(range(1, 13))


def test_a_run_that_names_an_unknown_epoch_waits_and_goes_on_whole() -> None:
    lost = lose()
    epoch = (lost.mesh.node("A").table.epoch or 0) + 77
    lost.arrive(*lost.again(1, 2, 3, 4, 5, epoch=epoch))
    assert lost.held() == [(1, 6)]
    assert lost.mesh.chunks("B", "C") == []
    lost.mesh.until(lambda: lost.mesh.node("B").forwarder.poll_timeout(lost.mesh.now) is None)
    assert sorted(set(lost.mesh.chunks("B", "C"))) == [1, 2, 3, 4, 5]


def test_a_run_takes_what_is_wanted_below_off_the_list() -> None:
    lost = lose(stores={"B": MemoryStores(capacity_bytes=1_000)})
    there = lost.mesh.stream("B", lost.stream)
    there.wanted.add_range(2, 12)
    lost.arrive(*lost.again(3, 4, 5, 6, kind=PacketType.PULLED))
    assert list(there.wanted) == [(2, 3), (7, 12)]


def test_messages_that_came_in_runs_are_delivered_and_pass_their_retention_one_by_one() -> None:
    retained = 10 * (30 + SIGNATURE_BYTES)
    mesh = Mesh("A-B", channels=(MESSAGES.model_copy(update={"retention_bytes": retained}),)).linked()
    mesh.publish("A", b"%30d" % 0)
    mesh.run(0.1)
    mesh.drop = lambda crossing: is_chunk(crossing) and crossing.source == "A"
    stream, _ = [mesh.publish("A", b"%30d" % number) for number in range(1, 25)][-1]
    mesh.inject("B", *[crossing.datagram for crossing in mesh.crossings if is_chunk(crossing)][1:], source="A")
    assert mesh.payloads("B") == [b"%30d" % number for number in range(25)]
    mesh.run(1.0)
    for name in "AB":
        there = mesh.stream(name, stream)
        assert there.lowest == 16
        assert there.store.read(15) is None
        assert (there.store.read(16) or b"").startswith(b"%30d" % 15)
