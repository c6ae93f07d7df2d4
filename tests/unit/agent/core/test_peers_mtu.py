"""What the path to each peer takes: probed when a link opens, told to the server, and used for new streams."""

import pytest

from agent.core.events import LinkChanged
from agent.core.mtu import TRIES
from agent.core.node import SETTLE_S
from common.datagrams import CHUNK_OVERHEAD_BYTES, FRAGMENT_HEADERS_BYTES, PacketType
from common.frames import encode_frame
from common.messages import AdjacencyReport, MtuUpdate, QosReport
from common.path_frames import MtuAnswer, MtuProbe
from tests.harness.mesh import FILES, Crossing, Mesh, data

WIDE = 1_472
FRAGMENT = PacketType.FRAGMENT


def narrow(mesh: Mesh, most: int) -> None:
    """Let every path take so much from now on."""
    mesh.drop = lambda crossing: len(crossing.datagram) > most


def probes(mesh: Mesh, source: str) -> list[int]:
    """Return the sizes of the probes that a device sent."""
    found = (crossing for crossing in mesh.crossings if crossing.source == source)
    return [len(c.datagram) for c in found if c.kind == PacketType.CONTROL and len(c.datagram) > 1_200]


def fragments(mesh: Mesh, source: str) -> list[bytes]:
    return [c.datagram for c in mesh.crossings if c.source == source and c.kind == FRAGMENT]


def takes(mesh: Mesh, name: str, peer: str) -> int | None:
    return mesh.node(name).peers.links[peer].mtu_bytes


def last_figures(mesh: Mesh, name: str) -> dict[str, int | None]:
    return {peer: each.mtu_bytes for peer, each in mesh.requests(name, QosReport)[-1].links.items()}


def test_a_link_is_reported_with_its_size_once_that_is_measured() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE).linked()
    assert (takes(mesh, "A", "B"), takes(mesh, "B", "A")) == (WIDE, WIDE)
    assert probes(mesh, "A") == [1_472, 1_464, 1_432, 1_422, 1_392, 1_372, 1_252]
    assert last_figures(mesh, "A") == {"B": WIDE}
    told = [request.peers for request in mesh.requests("A", AdjacencyReport)]
    assert told == [(), ("B",)]
    assert [event.state for event in mesh.events("A", LinkChanged)] == ["open"]


def test_a_link_whose_probes_all_get_lost_counts_after_three_tries_at_the_least_size() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE)
    narrow(mesh, 1_200)
    mesh.linked()
    assert mesh.node("A").peers.usable() == ()
    mesh.run(5.0)
    assert mesh.node("A").peers.usable() == ("B",)
    assert takes(mesh, "A", "B") == 1_200
    assert probes(mesh, "A").count(WIDE) == TRIES


def test_a_lost_answer_is_asked_for_again_and_a_higher_result_is_told_at_once() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE)
    narrow(mesh, 1_400)
    mesh.linked()
    assert takes(mesh, "A", "B") == 1_392
    assert last_figures(mesh, "A") == {"B": 1_392}
    reports = len(mesh.requests("A", AdjacencyReport))
    events = len(mesh.events("A", LinkChanged))
    mesh.drop = lambda _: False
    mesh.until(lambda: takes(mesh, "A", "B") == WIDE, within=4.0)
    mesh.run(0.01)
    assert last_figures(mesh, "A") == {"B": WIDE}
    assert len(mesh.requests("A", AdjacencyReport)) == reports + 1
    assert len(mesh.events("A", LinkChanged)) == events


@pytest.mark.parametrize("size", [1_300, 9_000])
def test_an_answer_to_a_probe_that_was_not_sent_is_counted_and_changes_nothing(size: int) -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE)
    narrow(mesh, 1_400)
    mesh.linked()
    mesh.say("B", "A", MtuAnswer(size))
    assert mesh.drops("A") == {"mtuanswer-refused": 1}
    assert takes(mesh, "A", "B") == 1_392


def test_an_answer_that_is_not_the_peers_is_counted_and_changes_nothing() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE)
    narrow(mesh, 1_400)
    mesh.linked()
    answer = mesh.sealed(
        "A", "B", encode_frame(MtuAnswer(WIDE))
    )  # Under A's own key: what came from A is no answer to A.
    mesh.inject("A", answer, source="B")
    assert mesh.drops("A") == {"control-not-authentic": 1}
    assert takes(mesh, "A", "B") == 1_392


def test_a_probe_is_answered_with_its_size() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE).linked()
    mesh.hop("A", "B").mtu._probed[1_300] = None
    mesh.say("A", "B", MtuProbe(1_300))
    mesh.run(0.01)
    assert mesh.drops("A") == {}


def test_a_renewed_session_measures_anew_while_the_link_goes_on_to_count() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE).linked()
    narrow(mesh, 1_400)
    mesh.kill("B")
    mesh.start("B")
    mesh.until(lambda: takes(mesh, "A", "B") == 1_392, within=5.0)
    assert [event.state for event in mesh.events("A", LinkChanged)] == ["open", "open"]
    assert all(report.peers == ("B",) for report in mesh.requests("A", AdjacencyReport)[1:])


def test_a_new_stream_takes_what_the_server_said_or_else_what_its_own_links_take() -> None:
    mesh = Mesh("A-B B-C", datagram_bytes=WIDE)
    node = mesh.node("A")
    assert node.streams.datagram_bytes == 1_200
    mesh.linked()
    assert node.streams.datagram_bytes == WIDE
    mesh.control("A", MtuUpdate(mtu_bytes=1_300))
    assert node.streams.datagram_bytes == 1_300
    stream = mesh.send_file("A", data(5_000))
    mesh.control("A", MtuUpdate(mtu_bytes=9_000))
    assert node.streams.datagram_bytes == WIDE
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.stream("C", stream).opening.piece_bytes == 1_300 - CHUNK_OVERHEAD_BYTES


def test_a_device_settles_when_the_server_has_spoken_or_soon_after_its_start() -> None:
    mesh = Mesh("A-B")
    node = mesh.node("A")
    assert node.settling(now=mesh.now)
    assert not node.settling(now=mesh.now + SETTLE_S)
    mesh.control("A", MtuUpdate(mtu_bytes=1_300))
    assert not node.settling(now=mesh.now)


def test_chunks_larger_than_the_path_go_in_fragments_and_are_relayed_whole() -> None:
    mesh = Mesh("A-B B-C", datagram_bytes=WIDE)
    mesh.drop = lambda crossing: {crossing.source, crossing.target} == {"A", "B"} and len(crossing.datagram) > 1_400
    mesh.linked()
    mesh.control("A", MtuUpdate(mtu_bytes=WIDE))
    stream = mesh.send_file("A", data(50_000))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert len(fragments(mesh, "A")) == 2 * 34  # Those that are full; the rest and the closing record fit.
    assert fragments(mesh, "B") == []
    assert len(mesh.chunks("B", "C", PacketType.DATA)) == 36
    mesh.run(1.0)
    assert mesh.hop("A", "B").recovery.in_flight == 0
    assert mesh.hop("A", "B").counters.repeats_sent == 0
    assert mesh.hop("B", "A").counters.chunks_received == 36


def test_fragments_may_come_before_their_streams_opening() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE)
    narrow(mesh, 1_400)
    mesh.linked()
    mesh.control("A", MtuUpdate(mtu_bytes=WIDE))
    hidden = [True]

    def lose_the_first_opening(crossing: Crossing) -> bool:
        if len(crossing.datagram) > 1_400:
            return True
        large = crossing.source == "A" and crossing.kind == PacketType.CONTROL and len(crossing.datagram) > 200
        return large and hidden.pop() if hidden and large else False

    mesh.drop = lose_the_first_opening
    stream = mesh.send_file("A", data(5_000))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    assert mesh.hop("A", "B").recovery.in_flight == 0


def test_a_fragment_that_cannot_be_is_counted_and_gets_no_answer() -> None:
    mesh = Mesh("A-B", datagram_bytes=WIDE).linked()
    session = mesh.hop("A", "B").session.local[0]
    before = len(mesh.crossings)
    mesh.inject("A", bytes([FRAGMENT << 4, session]).ljust(FRAGMENT_HEADERS_BYTES + 1, b"\0"), source="B")
    mesh.inject("A", bytes([FRAGMENT << 4]), source="B")
    assert mesh.drops("A") == {"fragment-refused": 2}
    mesh.inject("A", bytes([FRAGMENT << 4, session]).ljust(100, b"\0"), source=("10.0.0.9", 1))
    assert mesh.drops("A") == {"fragment-refused": 2, "datagram-not-understood": 1}
    assert len(mesh.crossings) == before


def test_m7_fragments_on_a_channels_own_socket_are_its_channels_and_of_the_right_host_alone() -> None:
    channel = FILES.model_copy(update={"sockets": "per-channel"})
    mesh = Mesh("A-B", datagram_bytes=WIDE, channels=(channel,))
    narrow(mesh, 1_400)
    mesh.linked()
    mesh.control("A", MtuUpdate(mtu_bytes=WIDE))
    stream = mesh.send_file("A", data(5_000))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert {crossing.socket for crossing in mesh.crossings if crossing.kind == FRAGMENT} == {1}
    mesh.inject("B", fragments(mesh, "A")[0], source=("10.0.0.9", 4001), socket=1)
    assert mesh.drops("B") == {"fragment-from-wrong-host": 1}
