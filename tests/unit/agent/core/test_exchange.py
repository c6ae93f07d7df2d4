"""HAVE and WANT: how a device gets what the tree did not bring."""

import random

import pytest

from agent.core.events import MessageGap
from common.datagrams import PacketType, peek_chunk
from common.frames import Have, Want
from common.limits import MAX_RANGES
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Mesh, data


def wants(mesh: Mesh, name: str, peer: str) -> list[Want]:
    """Note every WANT that a device sends to a peer from now on."""
    found: list[Want] = []
    hop = mesh.hop(name, peer)
    send = hop.send

    def noted(frame: object, *, reliable: bool = True) -> None:
        if isinstance(frame, Want):
            found.append(frame)
        send(frame, reliable=reliable)  # type: ignore[arg-type]

    hop.send = noted  # type: ignore[method-assign]
    return found


def haves(mesh: Mesh, name: str, peer: str) -> list[Have]:
    """Note every HAVE that a device sends to a peer from now on."""
    found: list[Have] = []
    hop = mesh.hop(name, peer)
    send = hop.send

    def noted(frame: object, *, reliable: bool = True) -> None:
        if isinstance(frame, Have):
            found.append(frame)
        send(frame, reliable=reliable)  # type: ignore[arg-type]

    hop.send = noted  # type: ignore[method-assign]
    return found


def test_a_late_joiner_gets_the_retained_file_and_messages_from_a_neighbour() -> None:
    mesh = Mesh("A-B B-C", absent="C", edges="A-B").linked()
    stream = mesh.send_file("A", data(50 * PIECE_BYTES))
    mesh.publish("A", b"one")
    mesh.publish("A", b"two")
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.start("C")
    mesh.plan("A-B B-C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"] and mesh.payloads("C") == [b"one", b"two"])
    assert mesh.events("C", MessageGap) == []
    assert mesh.chunks("A", "C") == []


def test_a_missing_range_is_asked_of_one_neighbour_at_a_time() -> None:
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    short = int(stream[:8], 16)
    for name in "AB":
        mesh.hop("C", name).cursors.pop(short, None)
    entry = mesh.node("C").streams.by_short[short]
    entry.stream.role = "receive"
    entry.stream.held.remove_range(5, 8)
    asked = {peer: wants(mesh, "C", peer) for peer in "AB"}
    for peer in "AB":
        mesh.say(peer, "C", Have(short, 1, 22, ((1, 22),)))
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None
    mesh.until(lambda: bool(asked["B"]))
    assert asked["A"] == [], "the tree's neighbour first"
    mesh.until(lambda: bool(asked["A"]))
    assert [frame.ranges for frame in asked["B"] + asked["A"]] == [((5, 8),)] * 2, "then the next, for nothing came"
    mesh.drop = lambda _: False
    mesh.until(lambda: entry.stream.complete)
    assert mesh.chunks("A", "C", PacketType.DATA) == []


def test_what_is_on_its_way_already_is_not_sent_because_it_is_asked_for() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(300 * PIECE_BYTES))
    mesh.run(0.001)
    cursor = mesh.hop("A", "B").cursors[int(stream[:8], 16)]
    assert cursor.crossed
    assert cursor.owed
    mesh.say("B", "A", Want(int(stream[:8], 16), ((1, 302),)))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.chunks("A", "B", PacketType.PULLED) == []


def test_what_is_asked_for_though_it_was_acknowledged_is_sent_as_pulled() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    mesh.say("B", "A", Want(int(stream[:8], 16), ((3, 5), (90, 99))))
    mesh.run(1.0)
    assert mesh.chunks("A", "B", PacketType.PULLED) == [3, 4]


def test_a_long_list_of_ranges_is_told_in_turns() -> None:
    mesh = Mesh("A-B").linked()
    held = 3 * MAX_RANGES
    stream = mesh.send_file("A", data(2 * held * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    there = mesh.stream("B", stream)
    for number in range(2, 2 * held + 2, 2):
        there.held.discard(number)
    said = haves(mesh, "B", "A")
    for _ in range(5):
        there.have_due = True
        mesh.run(0.6)
    told = {span for have in said for span in have.ranges}
    assert all(len(have.ranges) <= MAX_RANGES for have in said)
    assert {(number, number + 1) for number in range(1, 2 * held, 2)} <= told


def test_nothing_is_given_up_that_somebody_still_holds() -> None:
    channel = MESSAGES.model_copy(update={"retention_bytes": 50})
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C", absent="C", channels=(channel,)).linked()
    for number in range(6):
        mesh.publish("A", b"%d" % number + bytes(19))
        mesh.run(0.2)
    stream = mesh.node("A").streams.by_short[next(iter(mesh.node("A").streams.by_short))].stream
    assert stream.lowest == 5
    # B kept all of it, but is no neighbour of C; it has told C so.
    b_stream = mesh.node("B").streams.by_short[stream.short].stream
    assert b_stream.lowest == 5
    b_stream.lowest = 1
    mesh.start("C")
    mesh.linked()
    mesh.drop = lambda crossing: crossing.source == "B" and peek_chunk(crossing.datagram) is not None
    asked = wants(mesh, "C", "B")
    mesh.say("B", "C", Have(stream.short, 1, 7, ((1, 7),)))
    mesh.until(lambda: stream.short in mesh.node("C").streams.by_short)
    c_stream = mesh.node("C").streams.by_short[stream.short].stream
    mesh.until(lambda: c_stream.progress_at > 0 and len(c_stream.held) == 2)
    mesh.until(lambda: bool(asked))
    assert asked[0].ranges == ((1, 5),)
    mesh.run(0.01)
    assert c_stream.lowest == 1
    # B says that it retains no more either: now nobody does.
    mesh.say("B", "C", Have(stream.short, 5, 7, ()))
    mesh.run(2.0)
    assert [(gap.first, gap.last) for gap in mesh.events("C", MessageGap)] == [(1, 4)]
    assert [payload[:1] for payload in mesh.payloads("C")] == [b"4", b"5"]


def test_the_end_of_a_stream_is_waited_for_while_chunks_still_come() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    short = int(stream[:8], 16)
    entry = mesh.node("B").streams.by_short[short]
    entry.stream.role = "receive"
    entry.stream.held.remove_range(3, 4)
    entry.stream.held.remove_range(10, 22)
    asked = wants(mesh, "B", "A")
    exchange = mesh.node("B")._upkeep.exchange
    now = mesh.now
    for step in range(3):
        entry.stream.progress_at = now + step * 0.3
        exchange.tick(entry.stream, now + step * 0.3)
    assert asked[0].ranges == ((3, 4),), "only what lies below the newest chunk"


def test_nothing_is_asked_for_while_only_the_end_is_missing_and_chunks_still_come() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    there = mesh.stream("B", stream)
    there.role = "receive"
    there.held.remove_range(10, 22)
    asked = wants(mesh, "B", "A")
    for step in range(4):
        there.progress_at = mesh.now + step * 0.3
        mesh.node("B")._upkeep.exchange.tick(there, mesh.now + step * 0.3)
    assert asked == []


@pytest.mark.parametrize("repeat", ["window", "last"])
def test_a_late_joiner_gets_the_whole_file_whatever_the_channels_repeat_test(repeat: str) -> None:
    files = FILES.model_copy(update={"repeat": repeat})
    mesh = Mesh("A-B B-C", absent="C", channels=(files, MESSAGES)).linked()
    stream = mesh.send_file("A", data(400 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short) and len(mesh.stream("B", stream).held) > 50)
    mesh.start("C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    before = len(mesh.crossings)
    mesh.run(5.0)
    assert not any(peek_chunk(crossing.datagram) for crossing in mesh.crossings[before:]), "and then all is quiet"


@pytest.mark.parametrize("repeat", ["ranges", "window", "last"])
def test_a_lossy_link_is_repaired_whatever_the_channels_repeat_test(repeat: str) -> None:
    files = FILES.model_copy(update={"repeat": repeat})
    mesh = Mesh("A-B B-C", channels=(files,)).linked()
    rng = random.Random(1)
    mesh.drop = lambda _: rng.random() < 0.1
    stream = mesh.send_file("A", data(200 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])


def test_a_files_missing_pieces_are_never_given_up() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: (chunk := peek_chunk(crossing.datagram)) is not None and chunk.number == 7
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.run(1.0)
    short = int(stream[:8], 16)
    mesh.say("A", "B", Have(short, 12, 22, ((12, 22),)))
    mesh.run(3.0)
    there = mesh.stream("B", stream)
    assert there.lowest == 1
    assert list(there.missing()) == [(7, 8)]
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.verified(stream) == ["B"])
