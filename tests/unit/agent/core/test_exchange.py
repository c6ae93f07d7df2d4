"""HAVE and WANT: how a device gets what the tree did not bring."""

import random
from typing import TypeVar

import pytest

from agent.core import exchange
from agent.core.events import MessageGap
from agent.core.node import TICK_S
from agent.core.rangeset import RangeSet
from agent.core.stream import Stream
from common.datagrams import PacketType, peek_chunk
from common.frames import Frame
from common.limits import MAX_RANGES
from common.link_frames import Bye
from common.signing import SIGNATURE_BYTES
from common.stream_frames import Have, Stop, Want
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Crossing, Mesh, data

_F = TypeVar("_F", bound=Frame)


def sent(mesh: Mesh, name: str, peer: str, kind: type[_F]) -> list[_F]:
    """Note every frame of one kind that a device sends to a peer from now on."""
    found: list[_F] = []
    hop = mesh.hop(name, peer)
    send = hop.send

    def noted(frame: Frame, *, reliable: bool = True) -> None:
        if isinstance(frame, kind):
            found.append(frame)
        send(frame, reliable=reliable)

    hop.send = noted  # type: ignore[method-assign]
    return found


def wants(mesh: Mesh, name: str, peer: str) -> list[Want]:
    """Note every WANT that a device sends to a peer from now on."""
    return sent(mesh, name, peer, Want)


def haves(mesh: Mesh, name: str, peer: str) -> list[Have]:
    """Note every HAVE that a device sends to a peer from now on."""
    return sent(mesh, name, peer, Have)


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
    channel = MESSAGES.model_copy(update={"retention_bytes": 50 + 2 * SIGNATURE_BYTES})
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


def quiet_receiver(mesh: Mesh, *missing: tuple[int, int]) -> Stream:
    """Send a file of 20 pieces from A, and let B forget some of it and wait for it."""
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    there = mesh.stream("B", stream)
    there.role = "receive"
    for start, stop in missing:
        there.held.remove_range(start, stop)
    return there


def test_the_end_of_a_stream_is_waited_for_while_chunks_still_come() -> None:
    mesh = Mesh("A-B").linked()
    there = quiet_receiver(mesh, (3, 4), (10, 22))
    asked = wants(mesh, "B", "A")
    exchange = mesh.node("B")._upkeep.exchange
    for step in range(3):
        there.held.add(10 + step)
        exchange.tick(there, mesh.now + step * 0.3)
    assert asked[0].ranges == ((3, 4),), "only what lies below the newest chunk"


def test_nothing_is_asked_for_while_only_the_end_is_missing_and_chunks_still_come() -> None:
    mesh = Mesh("A-B").linked()
    there = quiet_receiver(mesh, (10, 22))
    asked = wants(mesh, "B", "A")
    for step in range(4):
        there.held.add(10 + step)
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


def test_what_is_missing_is_asked_for_a_part_at_a_time_and_on_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ASKED_BYTES", 20 * PIECE_BYTES)
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(200 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    there = mesh.stream("B", stream)
    there.role = "receive"
    there.held.remove_range(11, 191)
    asked = wants(mesh, "B", "A")
    cursor = mesh.hop("A", "B").cursors[there.short]
    began = mesh.now
    while there.missing():
        mesh.run(TICK_S / 5)
        assert cursor.owed_count() + len(cursor.flying) <= 20
    assert mesh.now - began < 0.5 + 2 * TICK_S * 180 / 20, "it is not waited for a stall after each part"
    ranges = [span for want in asked for span in want.ranges]
    assert RangeSet(ranges) == RangeSet([(11, 191)])
    assert sum(stop - start for start, stop in ranges) == 180, "nothing is asked for twice"
    assert mesh.chunks("A", "B", PacketType.PULLED) == list(range(11, 191))


def test_a_want_that_got_lost_is_not_answered_by_what_was_missing_then() -> None:
    mesh = Mesh("A-B").linked()
    there = quiet_receiver(mesh, (5, 15))
    asked = wants(mesh, "B", "A")
    mesh.drop = lambda _: True
    mesh.until(lambda: bool(asked))
    there.held.add_range(5, 15)  # It came from elsewhere.
    mesh.run(0.5)
    mesh.drop = lambda _: False
    mesh.run(2.0)
    assert mesh.chunks("A", "B", PacketType.PULLED) == []


def test_many_gaps_are_asked_for_in_as_many_frames_as_they_need() -> None:
    gaps = 3 * MAX_RANGES
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(2 * gaps * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    there = mesh.stream("B", stream)
    there.role = "receive"
    missing = list(range(2, 2 * gaps + 2, 2))
    for number in missing:
        there.held.discard(number)
    asked = wants(mesh, "B", "A")
    mesh.until(lambda: there.complete, within=1.0)
    assert [len(want.ranges) for want in asked] == [MAX_RANGES] * 3
    assert mesh.chunks("A", "B", PacketType.PULLED) == missing


def test_what_was_pulled_goes_on_to_those_below_and_not_towards_the_source() -> None:
    mesh = Mesh("A-B B-C C-D A-C", edges="A-B B-C C-D").linked()
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None and crossing.source == "B"
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    short = int(stream[:8], 16)
    mesh.until(lambda: short in mesh.node("C").streams.by_short)
    mesh.say("A", "C", Have(short, 1, 22, ((1, 22),)))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    assert mesh.chunks("A", "C", PacketType.PULLED) == list(range(1, 22))
    assert mesh.chunks("C", "D", PacketType.PULLED) == list(range(1, 22))
    assert mesh.chunks("C", "B") == []


def test_a_peer_that_does_not_answer_is_told_to_stop_unless_it_is_a_neighbour() -> None:
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.run(1.0)
    there = mesh.stream("C", stream)
    there.role = "receive"
    there.held.remove_range(5, 8)
    mesh.say("A", "C", Have(there.short, 1, 22, ((1, 22),)))
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None
    asked = {peer: wants(mesh, "C", peer) for peer in "AB"}
    stops = {peer: sent(mesh, "C", peer, Stop) for peer in "AB"}
    told = haves(mesh, "C", "A")
    mesh.until(lambda: len(asked["A"]) == 1 and len(asked["B"]) == 2)
    assert (len(stops["A"]), len(stops["B"])) == (1, 0)
    assert told[0].ranges == ((1, 5), (8, 22)), "who is no neighbour is told what is held before it is asked"


def test_what_a_peer_was_asked_for_whose_session_ended_is_asked_of_others() -> None:
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.run(1.0)
    there = mesh.stream("C", stream)
    there.role = "receive"
    there.held.remove_range(5, 8)
    mesh.say("A", "C", Have(there.short, 1, 22, ((1, 22),)))
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None
    asked = {peer: wants(mesh, "C", peer) for peer in "AB"}
    mesh.until(lambda: bool(asked["A"]))
    mesh.say("A", "C", Bye())
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None or crossing.source == "A"
    mesh.until(lambda: len(asked["B"]) == 2)
    assert len(asked["A"]) == 1


def test_a_new_edge_does_not_wait_for_the_next_look_at_idle_streams() -> None:
    mesh = Mesh("A-B B-C", edges="A-B").linked()
    stream = mesh.send_file("A", data(50 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    for pause in (5.0, 5.1, 5.2, 5.3, 5.4):
        mesh.run(pause)
    began = mesh.now
    mesh.plan("A-B B-C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.now - began < exchange.FIRST_STALL_S + 3 * TICK_S


def test_more_ranges_than_a_frame_holds_are_all_told_to_every_neighbour_though_nothing_moves() -> None:
    held = 3 * MAX_RANGES
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(2 * held * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.run(1.0)
    there = mesh.stream("B", stream)
    for number in range(2, 2 * held + 2, 2):
        there.held.discard(number)
    said = {peer: haves(mesh, "B", peer) for peer in "AC"}
    mesh.node("B")._upkeep.exchange.greet(mesh.hop("B", "C"), there)
    mesh.run(5.0)
    spans = {(number, number + 1) for number in range(1, 2 * held, 2)}
    for found in said.values():
        assert spans <= {span for have in found for span in have.ranges}
        assert len(found) <= 6, "and then no more"


def test_a_stream_that_has_just_begun_here_tells_nobody_that_its_first_messages_will_not_come() -> None:
    mesh = Mesh("A-B B-C").linked()

    def first(crossing: Crossing) -> bool:
        chunk = peek_chunk(crossing.datagram)
        return crossing.source == "A" and chunk is not None and chunk.number == 1

    mesh.drop = first
    mesh.publish("A", b"one")
    mesh.until(lambda: bool(mesh.node("B").streams.by_short))
    # From here on A says nothing of the stream, so that B does not know whether the first message may yet come.
    mesh.drop = lambda crossing: crossing.source == "A" and (peek_chunk(crossing.datagram) is None or first(crossing))
    said = haves(mesh, "B", "C")
    mesh.publish("A", b"two")
    mesh.publish("A", b"three")
    mesh.run(0.8)
    assert [have.lowest for have in said] == [1] * len(said)
    assert mesh.events("C", MessageGap) == []
    mesh.run(2.0)
    assert said[-1].lowest == 2, "by now it would have come"
    assert mesh.payloads("C") == [b"two", b"three"]
