"""A device as its shell sees it: inputs, outputs, and what comes of bad ones."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.events import GraphChanged, LinkChanged, OpenSocket
from agent.core.node import TICK_VERIFYING_S, NodeConfig
from agent.core.rangeset import RangeSet
from common.datagrams import CHUNK_OVERHEAD_BYTES, PacketType, peek_chunk
from common.errors import ConfigError
from common.messages import Channels, ChannelSpec
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Mesh, data, forged

OWN = ChannelSpec(name="own", kind="file", sockets="per-channel")


def untouched(mesh: Mesh, name: str) -> tuple[object, ...]:
    """Return all that a bad datagram must leave as it is."""
    node = mesh.node(name)
    hops = {peer: (hop.session, hop._anchor, len(hop._frames)) for peer, hop in node.peers.hops.items()}
    streams = {short: (list(entry.stream.held), entry.stream.stop) for short, entry in node.streams.by_short.items()}
    return (
        hops,
        streams,
        {peer: link.state for peer, link in node.peers.links.items()},
        node.table.epoch,
        node.forwarder.orphans.waiting(),
        len(mesh.devices[name].events),
        len(mesh.devices[name].requests),
        len(mesh.crossings),
    )


@pytest.mark.parametrize(
    ("settings_", "what"),
    [({"device": "-A"}, "device"), ({"group": "no group"}, "group"), ({"datagram_bytes": 1_199}, "1200 to 9000")],
)
def test_settings_out_of_bounds_are_refused(settings_: dict[str, object], what: str) -> None:
    good: dict[str, object] = {"device": "A", "group": "lab", "private_key": bytes(32)}
    with pytest.raises(ConfigError, match=what):
        NodeConfig(**{**good, **settings_})  # type: ignore[arg-type]


def test_the_private_key_is_not_shown() -> None:
    assert "private" not in repr(NodeConfig(device="A", group="lab", private_key=bytes(32)))


@given(garbage=st.binary(max_size=64))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_garbage_is_counted_and_touches_nothing_else(garbage: bytes) -> None:
    mesh = RUNNING
    before, dropped = untouched(mesh, "B"), sum(mesh.drops("B").values())
    mesh.inject("B", garbage, source="A")
    mesh.inject("B", garbage, source=("192.0.2.1", 9))
    assert untouched(mesh, "B") == before
    assert sum(mesh.drops("B").values()) == dropped + 2


RUNNING = Mesh("A-B").linked()


def test_every_truncated_datagram_is_counted_and_touches_nothing_else() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    kinds: dict[int, bytes] = {}
    for crossing in mesh.crossings:
        if crossing.source == "A":
            kinds.setdefault(crossing.kind, crossing.datagram)
    assert sorted(kinds) == [PacketType.HELLO, PacketType.CONTROL, PacketType.DATA]
    # The chunk is one that is not held yet, or its number alone would tell it for a repeat.
    there = mesh.stream("B", stream)
    there.held.discard(1)
    before, count = untouched(mesh, "B"), 0
    for datagram in kinds.values():
        for length in range(len(datagram)):
            mesh.inject("B", datagram[:length], source="A")
            count += 1
            assert untouched(mesh, "B") == before
    assert sum(mesh.drops("B").values()) == count


def test_a_chunk_from_a_stranger_is_counted_and_dropped() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    chunk = next(crossing.datagram for crossing in mesh.crossings if peek_chunk(crossing.datagram) is not None)
    before = untouched(mesh, "B")
    mesh.inject("B", chunk, source=("192.0.2.1", 9))
    assert mesh.drops("B") == {"chunk-from-stranger": 1}
    assert untouched(mesh, "B") == before


def test_a_chunk_on_a_peers_own_socket_from_another_host_is_counted_and_dropped() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    socket = next(iter(mesh.node("B").channels.by_socket))
    stream = mesh.send_file("A", data(10), channel="own")
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    chunk = next(crossing.datagram for crossing in mesh.crossings if peek_chunk(crossing.datagram) is not None)
    mesh.inject("B", chunk, source=("192.0.2.1", 4000), socket=socket)
    assert mesh.drops("B") == {"chunk-from-wrong-host": 1}


def test_replayed_and_forged_control_is_counted_and_dropped() -> None:
    mesh = Mesh("A-B").linked()
    control = next(
        crossing.datagram
        for crossing in mesh.crossings
        if crossing.kind == PacketType.CONTROL and crossing.source == "A"
    )
    before = untouched(mesh, "B")
    mesh.inject("B", control, forged(control), forged(mesh.sealed("A", "B", b"\xff")), source="A")
    mesh.inject("B", mesh.sealed("A", "B", b"\xff\x00\x00"), source="A")
    assert mesh.drops("B") == {"control-not-authentic": 4}
    assert untouched(mesh, "B")[1:] == before[1:]


def test_hellos_are_taken_on_the_shared_socket_alone() -> None:
    mesh = Mesh("A-B", channels=(OWN,)).linked()
    hello = next(crossing.datagram for crossing in mesh.crossings if crossing.kind == PacketType.HELLO)
    mesh.inject("B", hello, source="A", socket=1)
    assert mesh.drops("B") == {"datagram-not-understood": 1}


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


def test_a_device_that_leaves_says_so_and_its_links_close_at_once() -> None:
    mesh = Mesh("A-B").linked()
    mesh.node("A").leave(now=mesh.now)
    mesh._drain("A")
    mesh.kill("A")
    mesh.run(0.01)
    assert mesh.node("B").peers.hops == {}
    assert mesh.events("B", LinkChanged)[-1].peer == "A"


def test_the_timer_is_quick_while_anything_moves_and_slow_otherwise() -> None:
    mesh = Mesh("A-B").linked()
    mesh.run(3.0)
    node = mesh.node("A")
    assert node._pause(mesh.now) == 0.5
    mesh.publish("A", b"hello")
    assert node._pause(mesh.now) == 0.05
    node.streams.verification.add(next(iter(node.streams.by_short.values())), RangeSet([(1, 2)]))
    assert node._pause(mesh.now) == TICK_VERIFYING_S


def test_a_graph_that_a_previous_hop_told_is_news_for_the_shell_too() -> None:
    mesh = Mesh("A-B B-C").linked()
    mesh.devices["B"].connected = False
    mesh.node("B").control_lost(now=mesh.now)
    epoch = mesh.plan("A-B B-C", to="A")
    mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("C") == [b"hello"])
    assert mesh.events("B", GraphChanged)[-1].epoch == epoch


def test_datagrams_of_other_sizes_pass() -> None:
    mesh = Mesh("A-B", datagram_bytes=9_000).linked()
    stream = mesh.send_file("A", data(100_000))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert max(len(crossing.datagram) for crossing in mesh.crossings) == 9_000
    assert mesh.stream("B", stream).opening.piece_bytes == 9_000 - CHUNK_OVERHEAD_BYTES


@pytest.mark.parametrize("seed", range(3))
def test_files_pass_both_ways_over_a_link_that_loses_a_tenth(seed: int) -> None:
    mesh = Mesh("A-B B-C", seed=seed).linked()
    rng = random.Random(seed)
    mesh.drop = lambda _: rng.random() < 0.1
    down = mesh.send_file("A", data(100 * PIECE_BYTES, seed=1))
    up = mesh.send_file("C", data(100 * PIECE_BYTES, seed=2))
    mesh.until(lambda: mesh.verified(down) == ["B", "C"] and mesh.verified(up) == ["A", "B"])
    assert mesh.content("C", down) == data(100 * PIECE_BYTES, seed=1)
    assert mesh.content("A", up) == data(100 * PIECE_BYTES, seed=2)


def test_a_socket_that_the_shell_could_not_open_is_not_asked_for_again() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    mesh.node("A").channels.by_name["own"].sockets.clear()
    before = len(mesh.events("A", OpenSocket))
    mesh.control("A", Channels(version=2, channels=(FILES, OWN)))
    assert len(mesh.events("A", OpenSocket)) == before
