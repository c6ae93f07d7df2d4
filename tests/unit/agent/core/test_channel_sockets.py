"""Sockets of a channel's own: asked for once, told, and used when both ends have one."""

from agent.core.events import OpenSocket
from common.datagrams import peek_chunk
from common.messages import Channels, ChannelSpec
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Mesh, data

OWN = ChannelSpec(name="own", kind="file", sockets="per-channel")


def test_a_socket_is_asked_for_once_for_each_channel_of_its_own_and_peer() -> None:
    mesh = Mesh("A-B A-C", channels=(FILES, OWN)).linked()
    asked = mesh.events("A", OpenSocket)
    assert asked == [OpenSocket("own", "B"), OpenSocket("own", "C")]
    assert mesh.hop("A", "B").ports == {"own": 4001}
    mesh.kill("B")
    mesh.start("B")
    mesh.linked()
    mesh.run(0.5)
    assert mesh.events("A", OpenSocket) == asked
    stream = mesh.send_file("A", data(3 * PIECE_BYTES), channel="own")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert {c.socket for c in mesh.crossings if peek_chunk(c.datagram) is not None} == {1, 2}


def test_a_channel_that_comes_later_gets_its_sockets_too() -> None:
    mesh = Mesh("A-B").linked()
    for name in "AB":
        mesh.control(name, Channels(version=2, channels=(FILES, OWN)))
    mesh.run(0.1)
    assert mesh.events("A", OpenSocket) == [OpenSocket("own", "B")]
    stream = mesh.send_file("A", data(10), channel="own")
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert {c.socket for c in mesh.crossings if peek_chunk(c.datagram) is not None} == {1}


def test_a_socket_for_a_channel_or_peer_that_is_gone_is_not_announced() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    node = mesh.node("A")
    node.socket_opened(OpenSocket("gone", "B"), 7, 4007, now=mesh.now)
    assert 7 not in node.channels.by_socket
    node.socket_opened(OpenSocket("own", "gone"), 8, 4008, now=mesh.now)
    assert node.channels.by_socket[8] == ("own", "gone")


def test_a_chunk_goes_by_the_shared_socket_until_the_peer_has_told_its_port() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    mesh.hop("A", "B").ports.clear()
    stream = mesh.send_file("A", data(10), channel="own")
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert {c.socket for c in mesh.crossings if peek_chunk(c.datagram) is not None} == {0}


def test_a_chunk_of_a_channel_that_was_dropped_goes_by_the_shared_socket() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    stream = mesh.send_file("A", data(300 * PIECE_BYTES), channel="own")
    mesh.run(0.01)
    for name in "AB":
        mesh.control(name, Channels(version=2, channels=(FILES, MESSAGES)))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.crossings[-1].socket == 0


def test_a_socket_that_the_shell_could_not_open_is_not_asked_for_again() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    mesh.node("A").channels.by_name["own"].sockets.clear()
    before = len(mesh.events("A", OpenSocket))
    mesh.control("A", Channels(version=2, channels=(FILES, OWN)))
    assert len(mesh.events("A", OpenSocket)) == before
