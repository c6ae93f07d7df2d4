"""What a device does at once when a link falls silent, ends, or is heard again."""

import pytest

from agent.core.link import LinkState
from common.datagrams import PacketType, peek_chunk
from common.ids import DeviceId, link_key
from common.link_frames import Bye
from common.stream_frames import Have, Interrupted
from tests.harness.mesh import PIECE_BYTES, Mesh, data

RTT_S = 0.002
SOON_S = 4 * RTT_S


def silenced(mesh: Mesh, *pair: DeviceId) -> None:
    """Cut a link, and wait until both ends take it for silent."""
    mesh.cut.add(link_key(*pair))
    links = [mesh.node(name).peers.links[peer] for name, peer in (pair, pair[::-1])]
    mesh.until(lambda: all(link.state is LinkState.SUSPECT for link in links))


def speaking(mesh: Mesh, name: DeviceId = "A") -> str:
    """Publish a first message, and let it arrive."""
    stream, _ = mesh.publish(name, b"0")
    mesh.run(0.3)
    return stream


def test_what_a_dead_link_was_bringing_is_asked_for_as_soon_as_the_new_edge_speaks() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C").linked()
    speaking(mesh)
    mesh.cut.add(("A", "C"))
    for number in range(1, 5):
        mesh.publish("A", b"%d" % number)
        mesh.run(0.12)
    assert mesh.node("C").peers.links["A"].state is LinkState.SUSPECT
    assert mesh.payloads("C") == [b"0"]
    mesh.plan("A-B B-C")
    mesh.run(SOON_S)
    assert mesh.payloads("C") == [b"0", b"1", b"2", b"3", b"4"], "long before anything counts as stalled"
    assert mesh.chunks("B", "C") == [2, 3, 4, 5]
    assert mesh.chunks("B", "C", PacketType.PULLED) == [2, 3, 4, 5]


def test_those_behind_hear_of_it_and_ask_at_once_where_the_new_tree_turns_their_edge_round() -> None:
    mesh = Mesh("A-B A-C B-D C-D", edges="A-B A-C C-D").linked()
    speaking(mesh)
    silenced(mesh, "A", "C")
    mesh.publish("A", b"1")
    mesh.run(0.05)
    mesh.plan("A-B B-D C-D")
    mesh.run(SOON_S)
    assert [mesh.payloads(name) for name in "BCD"] == [[b"0", b"1"]] * 3
    assert mesh.chunks("B", "D") == mesh.chunks("D", "C") == [2]


def test_what_the_new_edge_brings_of_itself_is_not_asked_for() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C").linked()
    stream = speaking(mesh)
    silenced(mesh, "A", "C")
    mesh.publish("A", b"1")
    mesh.run(0.05)
    mesh.plan("A-B B-C")
    mesh.publish("A", b"2")
    mesh.run(1.0)
    assert mesh.payloads("C") == [b"0", b"1", b"2"]
    assert mesh.chunks("B", "C", PacketType.PULLED) == [2]
    assert mesh.chunks("B", "C", PacketType.DATA) == [3]
    assert mesh.stream("C", stream).supply.adrift_below == 0


def test_what_was_asked_of_a_peer_whose_link_dies_is_asked_of_another_at_once() -> None:
    mesh = Mesh("A-B A-D B-C C-D", edges="A-B A-D", absent="C").linked()
    stream = mesh.send_file("A", data(30 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "D"])
    mesh.start("C")
    mesh.linked()
    mesh.drop = lambda crossing: crossing.source == "B" and peek_chunk(crossing.datagram) is not None
    mesh.plan("A-B A-D B-C")
    mesh.until(lambda: mesh.chunks("B", "C") != [])
    mesh.say("D", "C", Have(int(stream[:8], 16), 1, 32, ((1, 32),)))
    mesh.say("B", "C", Bye())
    mesh.run(SOON_S)
    assert mesh.stream("C", stream).complete


def test_only_signs_of_life_go_over_a_silent_link_and_what_is_missing_is_asked_for_when_it_is_back() -> None:
    mesh = Mesh("A-B").linked()
    speaking(mesh)
    silenced(mesh, "A", "B")
    before = len(mesh.chunks("A", "B"))
    mesh.publish("A", b"1")
    mesh.publish("A", b"2")
    mesh.run(1.0)
    assert len(mesh.chunks("A", "B")) == before
    mesh.cut.clear()
    mesh.until(lambda: mesh.payloads("B") == [b"0", b"1", b"2"], within=0.3)
    assert mesh.chunks("A", "B")[before:] == [2, 3]
    assert mesh.chunks("A", "B", PacketType.DATA) == [1]


def test_what_left_before_a_link_fell_silent_is_not_sent_again_beside_what_is_asked_for() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(2_000 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.chunks("A", "B")) > 300)
    silenced(mesh, "A", "B")
    mesh.cut.clear()
    before = len(mesh.crossings)
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    again = [chunk.number for each in mesh.crossings[before:] if (chunk := peek_chunk(each.datagram)) is not None]
    assert len(again) == len(set(again))


def test_a_peer_that_did_not_notice_is_told_that_something_was_dropped_for_it() -> None:
    mesh = Mesh("A-B").linked()
    speaking(mesh)
    # B is heard no more, but goes on hearing A's probes.
    mesh.drop = lambda crossing: crossing.source == "B" or peek_chunk(crossing.datagram) is not None
    mesh.publish("A", b"1")
    mesh.until(lambda: mesh.node("A").peers.links["B"].state is LinkState.SUSPECT, within=3.0)
    assert mesh.node("B").peers.links["A"].state is LinkState.OPEN
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.node("A").peers.links["B"].state is LinkState.OPEN)
    mesh.run(SOON_S)
    assert mesh.payloads("B") == [b"0", b"1"]


def test_the_word_of_a_peer_that_brought_nothing_is_passed_over() -> None:
    mesh = Mesh("A-B B-C B-D").linked()
    stream = speaking(mesh)
    mesh.say("C", "B", Interrupted(int(stream[:8], 16), delivering=True))
    mesh.run(0.1)
    assert mesh.stream("B", stream).supply.bringer == "A"
    assert mesh.stream("D", stream).supply.bringer == "B"


@pytest.mark.parametrize("complete", [True, False])
def test_who_is_complete_needs_nobody_to_bring_it_more(complete: bool) -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10 * PIECE_BYTES if complete else 4_000 * PIECE_BYTES))
    mesh.run(0.1)
    assert mesh.stream("B", stream).complete is complete
    mesh.say("A", "B", Interrupted(int(stream[:8], 16), delivering=True))
    assert (mesh.stream("B", stream).supply.bringer is None) is not complete


def test_a_stream_that_is_not_the_silent_neighbours_is_left_alone() -> None:
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C").linked()
    stream = speaking(mesh)
    silenced(mesh, "A", "C")
    mesh.cut.clear()
    mesh.until(lambda: mesh.node("C").peers.links["A"].state is LinkState.OPEN)
    mesh.run(0.1)
    assert mesh.stream("C", stream).supply.bringer == "B"
    assert mesh.chunks("A", "C") == []


def test_what_a_peer_still_delivers_is_left_to_it_while_the_rest_is_asked_of_others() -> None:
    mesh = Mesh("A-B B-C C-D A-D", edges="A-B B-C C-D").linked()
    stream = mesh.send_file("A", data(800 * PIECE_BYTES))
    mesh.until(lambda: int(stream[:8], 16) in mesh.node("D").streams.by_short)
    held_up = True
    mesh.drop = lambda crossing: (
        held_up and crossing.source == "C" and crossing.target == "D" and peek_chunk(crossing.datagram) is not None
    )
    mesh.until(lambda: len(mesh.stream("C", stream).held) > 400)
    silenced(mesh, "B", "C")
    there = mesh.stream("D", stream)
    mesh.run(SOON_S)
    assert (there.supply.bringer, there.supply.left_to) == (None, "C")
    mesh.plan("A-B A-D C-D")
    held_up = False
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    from_c, from_a = mesh.chunks("C", "D"), mesh.chunks("A", "D")
    assert set(from_a) & set(from_c) == set()
    assert mesh.hop("D", "C").counters.repairs_received == 0


def test_who_stays_silent_has_nothing_left_to_it() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = speaking(mesh)
    there = mesh.stream("C", stream)
    mesh.say("B", "C", Interrupted(int(stream[:8], 16), delivering=True))
    assert there.supply.left_to == "B"
    mesh.say("B", "C", Bye())
    assert there.supply.left_to is None


def test_what_was_asked_of_a_neighbour_in_the_hope_that_it_passes_it_on_is_asked_of_who_has_it() -> None:
    mesh = Mesh("A-B B-C C-D A-D", edges="A-B B-C C-D").linked()
    stream = mesh.send_file("A", data(800 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.chunks("B", "C")) > 300)
    short = int(stream[:8], 16)
    silenced(mesh, "B", "C")
    mesh.until(lambda: mesh.hop("D", "C").cursors[short].asked)
    mesh.plan("A-B A-D C-D")
    mesh.run(SOON_S)
    assert not mesh.hop("D", "C").cursors[short].asked
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"], within=0.2)


def test_what_was_so_asked_before_the_neighbour_was_interrupted_is_expected_of_it_no_more() -> None:
    mesh = Mesh("A-B B-C C-D").linked()
    stream = mesh.send_file("A", data(800 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.chunks("B", "C")) > 300)
    short = int(stream[:8], 16)
    mesh.drop = lambda crossing: crossing.source == "B" and peek_chunk(crossing.datagram) is not None
    mesh.until(lambda: mesh.hop("D", "C").cursors[short].asked)
    mesh.say("C", "D", Interrupted(short, delivering=True))
    assert not mesh.hop("D", "C").cursors[short].asked


def test_what_an_interrupted_neighbour_was_asked_for_and_has_is_waited_for() -> None:
    mesh = Mesh("A-B B-C", edges="A-B", absent="C").linked()
    stream = mesh.send_file("A", data(30 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.start("C")
    mesh.linked()
    mesh.drop = lambda crossing: crossing.target == "C" and peek_chunk(crossing.datagram) is not None
    mesh.plan("A-B B-C")
    short = int(stream[:8], 16)
    mesh.until(lambda: short in mesh.hop("C", "B").cursors and mesh.hop("C", "B").cursors[short].asked)
    mesh.say("B", "C", Interrupted(short, delivering=True))
    assert mesh.hop("C", "B").cursors[short].asked


def test_a_device_that_restarts_asks_for_what_it_misses_as_soon_as_a_neighbour_speaks() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(600 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.chunks("A", "B")) > 300)
    mesh.kill("B")
    mesh.until(lambda: mesh.node("A").peers.links["B"].state is LinkState.SUSPECT)
    mesh.run(1.0)
    mesh.start("B")
    mesh.until(lambda: "A" in mesh.node("B").peers.hops)
    mesh.until(lambda: mesh.verified(stream) == ["B"], within=0.15)


def test_a_peer_that_is_evicted_while_it_is_silent_leaves_nothing_behind() -> None:
    mesh = Mesh("A-B A-C", edges="A-B A-C").linked()
    silenced(mesh, "A", "B")
    mending = mesh.node("A")._upkeep.mending
    assert list(mending._silent) == ["B"]
    left = [entry for entry in mesh.roster.devices if entry.device != "B"]
    mesh.control("A", mesh.roster.model_copy(update={"version": mesh.roster.version + 1, "devices": tuple(left)}))
    mesh.run(0.1)
    assert "B" not in mesh.node("A").peers.links
    assert mending._silent == {}


def test_news_that_come_late_go_on_to_who_was_behind_and_now_is_before() -> None:
    mesh = Mesh("A-B A-C B-E C-D D-E", edges="A-B A-C C-D D-E").linked()
    speaking(mesh)
    mesh.drop = lambda crossing: {crossing.source, crossing.target} == {"A", "C"} and crossing.source == "A"
    mesh.publish("A", b"1")
    mesh.run(0.01)
    # The server has heard of it from A, before C knows.
    mesh.plan("A-B B-E C-D D-E")
    mesh.publish("A", b"2")
    mesh.run(0.01)
    assert [mesh.payloads(name) for name in "CDE"] == [[b"0"]] * 3, "2 is there, and 1 is not"
    mesh.until(lambda: mesh.node("C").peers.links["A"].state is LinkState.SUSPECT)
    mesh.run(2 * SOON_S)
    assert [mesh.payloads(name) for name in "CDE"] == [[b"0", b"1", b"2"]] * 3
