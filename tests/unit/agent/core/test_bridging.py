"""Doing without a lost edge: others are told, and streams use every open link until it is replaced."""

from typing import Literal

import pytest

from agent.core.allowance import Allowance
from agent.core.degraded import AWAY_WAIT_S, FORGET_S, GRAPH_WAIT_S
from agent.core.events import MessageGap, ReceiptsChanged, StreamCancelled
from agent.core.rhythm import PROBE_IN_TREE_S, SILENT_PROBES, SLACK_S
from common.datagrams import PacketType
from common.graph_frames import LostEdges
from common.limits import EMBEDDED_REST_S, LOST_WORDS_PER_S, MAX_LOST_WORDS
from common.messages import ChannelSpec
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Mesh, data

NOTICED_S = SILENT_PROBES * PROBE_IN_TREE_S + SLACK_S + 0.3
"""A link is silent for a while before anybody can know of it."""
Routing = Literal["subscribe", "query", "overflow", "embedded"]
ROUTINGS: tuple[Routing, ...] = ("subscribe", "query", "overflow", "embedded")


def degraded(mesh: Mesh) -> list[str]:
    """Return the devices that know of a lost edge."""
    return [name for name in mesh.names if mesh.devices[name].up and mesh.node(name).degraded.since is not None]


def severed(links: str, edges: str, *cuts: str, **more: object) -> Mesh:
    """Return a mesh without its server, of whose tree some edges are lost."""
    mesh = Mesh(links, edges=edges, **more).linked()  # type: ignore[arg-type]
    mesh.run(1.0)
    mesh.lose_server()
    mesh.cut |= {(cut[0], cut[-1]) for cut in cuts}
    running = [name for name in mesh.names if mesh.devices[name].up]
    lost = {(cut[0], cut[-1]) for cut in cuts}
    mesh.until(
        lambda: all(lost <= set(mesh.node(name).degraded.edges()) for name in running),
        within=NOTICED_S + AWAY_WAIT_S + 0.1,
    )
    return mesh


def test_everybody_hears_of_a_lost_edge_over_whatever_links_are_left() -> None:
    mesh = severed("A-B B-C C-D D-E A-E", "A-B B-C C-D D-E", "C-D")
    assert all(mesh.node(name).degraded.edges() == (("C", "D"),) for name in mesh.names)


def test_a_server_that_is_there_has_a_moment_to_replace_the_edge() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C").linked()
    mesh.run(1.0)
    mesh.cut.add(("A", "C"))
    mesh.run(NOTICED_S + GRAPH_WAIT_S - 0.4)
    assert degraded(mesh) == []
    mesh.run(0.5)
    assert degraded(mesh) == ["A", "B", "C"]
    mesh.plan("A-B B-C", to="C")
    assert degraded(mesh) == ["A", "B"]
    mesh.plan("A-B B-C", to="AB")
    assert degraded(mesh) == []


def test_it_ends_for_all_when_the_edge_is_back() -> None:
    mesh = severed("A-B B-C A-C", "A-B B-C", "A-B")
    mesh.cut.clear()
    mesh.until(lambda: degraded(mesh) == [], within=1.0)


@pytest.mark.parametrize("cut", ["A-B", "B-C", "C-D"])
def test_a_file_and_its_receipts_pass_round_the_gap_at_source_relay_and_leaf(cut: str) -> None:
    mesh = Mesh("A-B B-C C-D A-C B-D", edges="A-B B-C C-D").linked()
    mesh.run(0.5)
    stream = mesh.send_file("A", data(3_000 * PIECE_BYTES))
    mesh.run(0.05)
    assert not mesh.verified(stream)
    mesh.lose_server()
    mesh.cut.add((cut[0], cut[-1]))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"], within=4.0)
    mesh.run(1.0)
    receipts = mesh.events("A", ReceiptsChanged)[-1].receipts
    assert {name: receipts[name].state for name in "BCD"} == dict.fromkeys("BCD", "verified")
    assert sum(mesh.node(name).degraded.chunks_pulled for name in "BCD") > 0


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("cut", ["A-B", "B-C", "C-D"])
def test_streams_that_begin_in_the_meantime_reach_all_behind_the_gap(cut: str, routing: Routing) -> None:
    channels = (
        ChannelSpec(name="files", kind="file", routing=routing),
        ChannelSpec(name="messages", kind="message", routing=routing),
    )
    mesh = Mesh("A-B B-C C-D A-C B-D", edges="A-B B-C C-D", channels=channels).linked()
    mesh.publish("A", b"before")
    mesh.until(lambda: [mesh.payloads(name) for name in "BCD"] == [[b"before"]] * 3)
    mesh.lose_server()
    mesh.cut.add((cut[0], cut[-1]))
    mesh.until(lambda: degraded(mesh) == list("ABCD"))
    stream = mesh.send_file("A", data(40 * PIECE_BYTES))
    mesh.publish("A", b"after")
    more = []
    if routing != "embedded":  # The source of a first stream has to be given a graph to embed.
        mesh.publish("D", b"from the other end")
        more = [b"from the other end"]
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"], within=2.0)
    mesh.run(1.0)
    assert all(sorted(mesh.payloads(name)) == [b"after", b"before", *more] for name in "BC")
    assert mesh.payloads("D") == [b"before", b"after"]
    assert mesh.payloads("A") == more
    assert all(mesh.events(name, MessageGap) == [] for name in "ABCD")


def test_a_source_without_a_neighbour_left_cuts_no_further_ahead_than_is_pulled() -> None:
    mesh = severed("A-B A-C B-C", "A-B B-C", "A-B")
    mesh.drop = lambda crossing: crossing.target == "C" and crossing.kind == PacketType.PULLED
    stream = mesh.send_file("A", data(8_000 * PIECE_BYTES))
    mesh.run(1.0)
    most = 4 * 1024 * 1024 // PIECE_BYTES
    assert len(mesh.stream("A", stream).held) == most
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"], within=10.0)


def test_the_graph_of_a_file_that_is_whole_is_no_matter_of_anybody_when_its_source_has_gone() -> None:
    channels = (ChannelSpec(name="files", kind="file", routing="embedded"),)
    mesh = Mesh("A-B B-C", channels=channels).linked()
    stream = mesh.send_file("A", data(10 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.kill("A")
    mesh.run(3.0)
    mesh.plan("B-C")
    mesh.run(FORGET_S + 1.0)
    assert degraded(mesh) == []


def test_the_graph_of_messages_that_rest_is_no_matter_of_anybody_when_their_source_has_gone() -> None:
    channels = (ChannelSpec(name="messages", kind="message", routing="embedded", retention_s=3_600.0),)
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C", channels=channels).linked()
    mesh.run(0.5)
    mesh.publish("A", b"last words")
    mesh.run(0.5)
    mesh.kill("A")
    mesh.plan("B-C", to="BC")
    mesh.run(NOTICED_S + GRAPH_WAIT_S)
    assert degraded(mesh) == ["B", "C"]
    mesh.run(EMBEDDED_REST_S + FORGET_S)
    assert degraded(mesh) == []


def test_messages_that_rested_pass_round_the_gap_when_they_go_on() -> None:
    channels = (ChannelSpec(name="messages", kind="message", routing="embedded", retention_s=3_600.0),)
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C", channels=channels).linked()
    mesh.run(0.5)
    mesh.publish("A", b"first")
    mesh.run(0.5)
    mesh.lose_server()
    mesh.cut.add(("A", "B"))
    mesh.run(EMBEDDED_REST_S + FORGET_S)
    mesh.publish("A", b"second")
    mesh.until(lambda: all(mesh.payloads(name) == [b"first", b"second"] for name in "BC"), within=3.0)


def test_messages_of_which_nothing_is_kept_any_more_are_at_rest() -> None:
    channels = (ChannelSpec(name="messages", kind="message", routing="embedded", retention_s=1.0),)
    mesh = Mesh("A-B B-C A-C", edges="A-B B-C", channels=channels).linked()
    mesh.run(0.5)
    mesh.publish("A", b"last words")
    mesh.run(5.0)
    mesh.kill("A")
    mesh.plan("B-C", to="BC")
    mesh.run(EMBEDDED_REST_S + FORGET_S)
    assert degraded(mesh) == []


def test_a_source_without_any_link_waits() -> None:
    mesh = Mesh("A-B").linked()
    mesh.run(0.5)
    mesh.lose_server()
    mesh.cut.add(("A", "B"))
    mesh.run(NOTICED_S + AWAY_WAIT_S)
    stream = mesh.send_file("A", data(10))
    mesh.run(0.5)
    assert len(mesh.stream("A", stream).held) == 0
    mesh.cut.clear()
    mesh.until(lambda: mesh.verified(stream) == ["B"], within=8.0)


def test_a_cancel_reaches_those_behind_the_gap() -> None:
    mesh = severed("A-B A-C B-C", "A-B B-C", "A-B")
    mesh.drop = lambda crossing: crossing.kind == PacketType.PULLED
    stream = mesh.send_file("A", data(40 * PIECE_BYTES))
    mesh.until(lambda: all(int(stream[:8], 16) in mesh.node(name).streams.by_short for name in "BC"))
    mesh.cancel("A", stream)
    mesh.run(0.1)
    assert all(len(mesh.events(name, StreamCancelled)) == 1 for name in "BC")


def test_two_gaps_at_once_are_bridged() -> None:
    mesh = severed("A-B B-C C-D A-C B-D A-D", "A-B B-C C-D", "A-B", "C-D")
    stream = mesh.send_file("A", data(100 * PIECE_BYTES))
    mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"], within=2.0)
    assert [mesh.payloads(name) for name in "BCD"] == [[b"hello"]] * 3


def test_who_opens_a_link_in_the_meantime_hears_of_it_and_gets_what_there_is() -> None:
    mesh = severed("A-B B-C A-C C-D B-D", "A-B B-C C-D", "A-B", absent="D")
    mesh.publish("A", b"hello")
    mesh.run(0.1)
    mesh.start("D")
    mesh.control("D", mesh.roster)
    mesh.control("D", mesh.graph_update())
    mesh.until(lambda: mesh.payloads("D") == [b"hello"], within=1.0)
    assert ("A", "B") in mesh.node("D").degraded.edges()


def test_a_device_that_restarts_while_the_server_is_gone_goes_on_round_the_gap_from_its_disk() -> None:
    mesh = severed("A-B A-C B-C", "A-B B-C", "A-B")
    stream = mesh.send_file("A", data(2_000 * PIECE_BYTES))
    mesh.until(lambda: int(stream[:8], 16) in mesh.node("C").streams.by_short)
    mesh.until(lambda: 200 < len(mesh.stream("C", stream).held) < 1_900)
    mesh.kill("C")
    mesh.run(0.5)
    mesh.start("C")
    mesh.control("C", mesh.graph_update())
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"], within=15.0)
    assert mesh.content("C", stream) == data(2_000 * PIECE_BYTES)


def test_the_word_of_who_is_no_member_is_refused_and_no_word_outlives_who_said_it() -> None:
    mesh = Mesh("A-B B-C").linked()
    epoch = mesh.node("B").table.epoch or 0
    mesh.say("A", "B", LostEdges("stranger", 1, epoch, ("A",)))
    assert mesh.drops("B") == {"lostedges-refused": 1}
    assert degraded(mesh) == []
    mesh.say("A", "B", LostEdges("A", 1, epoch, ("C",)))
    mesh.run(0.1)
    assert degraded(mesh) == ["B", "C"]
    mesh.run(FORGET_S)
    assert degraded(mesh) == []


@pytest.mark.parametrize("ahead", [(0, 1), (1, 0)])
def test_a_word_of_a_time_that_has_not_come_is_refused(ahead: tuple[int, int]) -> None:
    mesh = Mesh("A-B B-C").linked()
    latest = mesh.node("B").degraded.latest(mesh.now)
    stamp, epoch = (latest + more for more in ahead)
    mesh.say("A", "B", LostEdges("A", stamp, epoch, ("C",)))
    assert mesh.drops("B") == {"lostedges-refused": 1}
    assert degraded(mesh) == []
    mesh.say("A", "B", LostEdges("A", latest, latest, ("C",)))
    assert mesh.drops("B") == {"lostedges-refused": 1}


def test_one_peer_brings_no_more_words_than_it_is_allowed_and_what_is_true_comes_again() -> None:
    mesh = Mesh("A-B B-C").linked()
    epoch = mesh.node("B").table.epoch or 0
    stamp = mesh.node("B").degraded.latest(mesh.now) - 10**6
    mesh.hop("B", "A").news = Allowance(MAX_LOST_WORDS, LOST_WORDS_PER_S, mesh.now)
    for number in range(MAX_LOST_WORDS):
        mesh.say("A", "B", LostEdges("C", stamp + number, epoch, ("B",)))
    assert mesh.drops("B") == {}
    mesh.say("A", "B", LostEdges("C", stamp + MAX_LOST_WORDS, epoch, ()))
    assert mesh.drops("B") == {"lostedges-refused": 1}
    assert mesh.node("B").degraded.edges() == (("B", "C"),)
    mesh.run(0.1)
    # Known words cost nothing.
    for _ in range(10):
        mesh.say("A", "B", LostEdges("C", stamp, epoch, ("B",)))
    mesh.say("A", "B", LostEdges("C", stamp + MAX_LOST_WORDS, epoch, ()))
    assert mesh.node("B").degraded.edges() == ()


@pytest.mark.parametrize("routing", ["query", "overflow", "embedded"])
def test_manners_that_are_told_nothing_ask_the_server_when_they_hear_of_a_lost_edge(routing: str) -> None:
    channels = (FILES.model_copy(update={"routing": routing}), MESSAGES.model_copy(update={"routing": routing}))
    mesh = Mesh("A-B B-C C-D B-D", edges="A-B B-C C-D", channels=channels).linked()
    mesh.publish("A", b"one")
    mesh.until(lambda: mesh.payloads("D") == [b"one"])
    mesh.cut.add(("C", "D"))
    mesh.plan("A-B B-C B-D", to=())
    mesh.publish("A", b"two")
    mesh.until(lambda: mesh.payloads("D") == [b"one", b"two"], within=NOTICED_S + GRAPH_WAIT_S + 1.0)
    mesh.until(lambda: degraded(mesh) == [], within=3.0)
