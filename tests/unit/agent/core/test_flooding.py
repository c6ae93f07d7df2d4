"""Small messages over every open link, while an edge of the tree is lost."""

import pytest

from agent.core.flooding import whole_messages
from common.datagrams import PacketType
from common.limits import MAX_FLOODED_BYTES, MAX_MESSAGE_BYTES
from common.signing import SIGNATURE_BYTES
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Mesh, data

QUIET = MESSAGES.model_copy(update={"distribute": False})


def bridged(links: str, edges: str, cut: str, **more: object) -> Mesh:
    """Return a mesh whose server is gone, and of whose tree an edge is lost."""
    mesh = Mesh(links, edges=edges, **more).linked()  # type: ignore[arg-type]
    mesh.run(0.5)
    mesh.lose_server()
    mesh.cut.add((cut[0], cut[-1]))
    mesh.until(lambda: all(mesh.node(name).degraded.since is not None for name in mesh.names))
    return mesh


def test_a_small_message_goes_over_every_open_link_at_once_and_nobody_counts_it_as_a_first_crossing() -> None:
    mesh = bridged("A-B A-C B-C", "A-B A-C", "A-C")
    mesh.publish("A", b"hello")
    mesh.run(0.004)
    assert mesh.payloads("B") == mesh.payloads("C") == [b"hello"]
    assert mesh.chunks("A", "B", PacketType.DATA) == [1]
    assert mesh.chunks("B", "C") == mesh.chunks("B", "C", PacketType.PULLED) == [1]
    counts = [mesh.node(name).degraded.messages_flooded for name in "ABC"]
    assert counts == [0, 1, 0], "A's only open link is in the tree, and C has nobody left who lacks it"


@pytest.mark.parametrize("cut", ["A-B", "B-C", "C-D", "D-E"])
def test_it_comes_once_to_every_application_wherever_the_gap_and_the_way_round_it_are(cut: str) -> None:
    mesh = bridged("A-B B-C C-D D-E A-D C-E B-E", "A-B B-C C-D D-E", cut)
    for number in range(5):
        mesh.publish("A", b"%d" % number)
        mesh.publish("E", b"%d" % number)
        mesh.run(0.02)
    expected = [b"%d" % number for number in range(5)]
    assert [mesh.payloads(name) for name in "AE"] == [expected] * 2
    assert [sorted(mesh.payloads(name)) for name in "BCD"] == [sorted(2 * expected)] * 3


def test_a_message_of_many_chunks_is_flooded_when_it_is_whole() -> None:
    mesh = bridged("A-B A-C B-C", "A-B A-C", "A-C")
    mesh.publish("A", data(5 * PIECE_BYTES))
    mesh.run(0.01)
    assert mesh.payloads("C") == [data(5 * PIECE_BYTES)]
    assert mesh.node("B").degraded.messages_flooded == 1
    assert mesh.chunks("B", "C") == [1, 2, 3, 4, 5, 6], "the signature takes one more"


@pytest.mark.parametrize(("size_bytes", "flooded"), [(MAX_FLOODED_BYTES, 1), (MAX_FLOODED_BYTES + 1, 0)])
def test_the_largest_message_that_is_flooded_has_64_kib(size_bytes: int, flooded: int) -> None:
    mesh = bridged("A-B A-C B-C", "A-B A-C", "A-C")
    mesh.publish("A", data(size_bytes))
    mesh.until(lambda: mesh.payloads("C") == [data(size_bytes)], within=2.0)
    assert mesh.node("B").degraded.messages_flooded == flooded
    assert flooded or mesh.node("C").degraded.chunks_pulled > 0


def test_a_file_is_never_flooded() -> None:
    mesh = bridged("A-B A-C B-C", "A-B A-C", "A-C")
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"], within=2.0)
    assert [mesh.node(name).degraded.messages_flooded for name in "ABC"] == [0, 0, 0]
    assert mesh.node("C").degraded.chunks_pulled == 2


def test_what_a_channel_does_not_distribute_stays_with_its_sources_neighbours() -> None:
    mesh = bridged("A-B A-C B-C", "A-B A-C", "A-C", channels=(FILES, QUIET))
    mesh.publish("A", b"hello")
    mesh.run(1.0)
    assert [mesh.payloads(name) for name in "BC"] == [[b"hello"], []]


def test_only_whole_small_messages_are_found_round_some_chunks() -> None:
    mesh = Mesh("A-B").linked()
    whole = PIECE_BYTES - SIGNATURE_BYTES
    sizes = [10, 2 * PIECE_BYTES + whole, 10, MAX_MESSAGE_BYTES, 10, PIECE_BYTES + whole]
    (name,) = {mesh.publish("A", data(size))[0] for size in sizes}
    mesh.run(1.0)
    stream = mesh.stream("A", name)
    large = -(-(MAX_MESSAGE_BYTES + SIGNATURE_BYTES) // PIECE_BYTES)
    small = [(1, 2), (2, 5), (5, 6), (6 + large, 7 + large), (7 + large, 9 + large)]
    assert list(whole_messages(stream, 1, 9 + large)) == small
    assert list(whole_messages(stream, 3, 4)) == [(2, 5)]
    assert list(whole_messages(stream, 3, 6)) == [(2, 5), (5, 6)]
    assert list(whole_messages(stream, 100, 101)) == [], "inside of a large one"
    stream.held.discard(3)
    assert list(whole_messages(stream, 1, 6)) == [(1, 2), (5, 6)], "one has a hole"
    stream.held.discard(1)
    assert list(whole_messages(stream, 1, 6)) == [(5, 6)]
    assert list(whole_messages(stream, 4, 5)) == []


def test_what_can_be_read_no_more_is_not_flooded() -> None:
    mesh = Mesh("A-B").linked()
    name, _ = mesh.publish("A", b"hello")
    mesh.run(0.1)
    stream = mesh.stream("A", name)
    stream.sealed = lambda start, stop: []  # type: ignore[method-assign]
    assert list(whole_messages(stream, 1, 2)) == []
