"""A chunk's way: repeat test, opening, keeping, and on to the next hops (M6 to M8)."""

import pytest

from agent.core import stream as stream_module
from agent.core import streams as streams_module
from agent.core.events import FileFailed, MessageReceived, QueryNeighbours, ReceiptsChanged, Transmit
from agent.core.manners import FLUSH_S
from agent.core.memory_store import MemoryStores, MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.source import CUT_AT_ONCE
from agent.core.store import StoreError
from common.datagrams import BOTH_HEADERS, HOP_HEADER_BYTES, PacketType, peek_chunk
from common.frames import AskGraph, AskOpening, Want
from common.graph import AcyclicGraph, Tree, short_epoch
from common.limits import HOP_WINDOW, MAX_HELD_CHUNKS
from common.messages import ChannelSpec, GraphBody, GraphUpdate
from common.sealing import TAG_BYTES
from tests.harness.mesh import FILES, FIRST_EPOCH, MESSAGES, PIECE_BYTES, Crossing, Mesh, data, forged, with_number


def first_chunk(mesh: Mesh, source: str = "A", target: str = "B") -> bytes:
    """Return the first chunk's datagram that crossed a link."""
    return next(
        crossing.datagram
        for crossing in mesh.crossings
        if (crossing.source, crossing.target) == (source, target) and peek_chunk(crossing.datagram) is not None
    )


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
    for module in (stream_module, streams_module):
        monkeypatch.setattr(module, "RING_BYTES", 20 * PIECE_BYTES)
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

    def write(number: int, plain: bytes, tag: bytes) -> None:
        full.append(number)
        raise StoreError("no-space", "the disk is full")

    failing = type(store)
    original = failing.write
    try:
        failing.write = lambda self, *args: write(*args) if self is store else original(self, *args)  # type: ignore[method-assign]
        mesh.until(lambda: mesh.verified(stream) == ["C"])
        mesh.run(2.0)
    finally:
        failing.write = original  # type: ignore[method-assign]
    assert len(full) == 1
    assert [event.reason for event in mesh.events("B", FileFailed)] == ["no-space"]
    assert mesh.events("A", ReceiptsChanged)[-1].receipts["B"].state == "refused"
    # What lies in the ring is counted as what it is, however often a chunk was put there.
    held = mesh.stream("B", stream)
    assert held._ring_bytes == sum(len(chunk) for chunk in held._ring.values())
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
    for number in range(1, pieces + 1):
        piece = there.store.read(number)
        assert piece is not None
        there.store.write(number, piece, there.seal(number, 0, piece)[-TAG_BYTES:])
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
    chunk = mesh.stream("A", stream).seal(2, 0x06, b"second")
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
    chunk = mesh.stream("A", stream).seal(2, 0x06, b"second")
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
    monkeypatch.setattr(streams_module, "RING_BYTES", 2 * PIECE_BYTES)
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
    chunk = mesh.stream("A", stream).seal(2, 0x06, b"second")
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
