"""Datagrams of every kind, in batches, from peers and strangers: what is taken, what is counted and dropped."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.events import Address
from common.datagrams import CHUNK_OVERHEAD_BYTES, PacketType, peek_chunk
from common.frames import encode_frame
from common.ids import DeviceId
from common.link_frames import Bye, ChannelPort
from common.messages import ChannelSpec
from common.stream_frames import AskOpening
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Crossing, Mesh, data, forged
from tests.unit.agent.core.parts import Datagram, run_at

OWN = ChannelSpec(name="own", kind="file", sockets="per-channel")
RUNNING = Mesh("A-B").linked()


def untouched(mesh: Mesh, name: str) -> tuple[object, ...]:
    """Return all that a bad datagram must leave as it is."""
    node = mesh.node(name)
    hops = {peer: (hop.session, hop._anchor, len(hop.frames.reliable)) for peer, hop in node.peers.hops.items()}
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


@given(garbage=st.binary(max_size=64))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_garbage_is_counted_and_touches_nothing_else(garbage: bytes) -> None:
    mesh = RUNNING
    before, dropped = untouched(mesh, "B"), sum(mesh.drops("B").values())
    mesh.inject("B", garbage, source="A")
    mesh.inject("B", garbage, source=("192.0.2.1", 9))
    assert untouched(mesh, "B") == before
    assert sum(mesh.drops("B").values()) == dropped + 2


@pytest.mark.parametrize("kind", range(16))
def test_a_datagram_of_any_kind_may_end_anywhere(kind: int) -> None:
    mesh = RUNNING
    session = mesh.hop("B", "A").session.local[0]
    before, dropped = untouched(mesh, "B"), sum(mesh.drops("B").values())
    for length in range(1, CHUNK_OVERHEAD_BYTES):
        mesh.inject("B", (bytes([kind << 4, session]) + bytes(CHUNK_OVERHEAD_BYTES))[:length], source="A")
        assert untouched(mesh, "B") == before
    assert sum(mesh.drops("B").values()) == dropped + CHUNK_OVERHEAD_BYTES - 1


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


def test_a_batch_of_runs_control_and_garbage_is_taken_whole() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "A" and peek_chunk(crossing.datagram) is not None
    one, other = (mesh.send_file("A", data(9 * PIECE_BYTES, seed=seed)) for seed in (1, 2))
    mesh.until(lambda: len(mesh.node("B").streams.by_short) == 2, within=0.1)
    before = mesh.node("B").peers.counters["A"].chunks_received

    def run(stream: str, start: int, stop: int) -> list[bytes]:
        plains = mesh.stream("A", stream).store.read_run(start, stop - start)
        return [mesh.chunk_to("A", "B", chunk) for chunk in mesh.stream("A", stream).seal(start, 0, plains)]

    mesh.inject(
        "B",
        *run(one, 1, 5),
        mesh.sealed("A", "B", encode_frame(AskOpening(5))),
        *run(other, 1, 3),
        *run(one, 5, 6),
        b"",
        run(other, 9, 10)[0][: CHUNK_OVERHEAD_BYTES - 1],
        *run(one, 6, 9),
        b"\x00garbage",
        *run(other, 4, 9),
        source="A",
    )
    assert list(mesh.stream("B", one).held) == [(1, 9)]
    assert list(mesh.stream("B", other).held) == [(1, 3), (4, 9)]
    assert mesh.node("B").peers.counters["A"].chunks_received - before == 15
    assert mesh.drops("B") == {"datagram-not-understood": 2, "stun-not-understood": 1}


def test_what_is_too_large_for_stun_is_dropped_as_such() -> None:
    mesh = Mesh("A-B").linked()
    mesh.inject("B", b"\1\1" + bytes(8_000), source="A")
    assert mesh.drops("B") == {"stun-not-understood": 1}


def test_a_run_from_a_stranger_or_from_another_host_is_counted_by_its_chunks() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    socket = next(iter(mesh.node("B").channels.by_socket))
    before = untouched(mesh, "B")
    run = [datagram for datagram, _ in run_at(7, 100, 6)]
    mesh.inject("B", *run, source=("192.0.2.1", 9))
    mesh.inject("B", *run[:4], source=("192.0.2.1", 9), socket=socket)
    assert mesh.drops("B") == {"chunk-from-stranger": 6, "chunk-from-wrong-host": 4}
    assert untouched(mesh, "B") == before


def test_what_several_peers_sent_in_one_batch_is_taken_from_each() -> None:
    mesh = Mesh("A-B B-C").linked()
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None
    streams = {name: mesh.send_file(name, data(4 * PIECE_BYTES, seed=ord(name))) for name in "AC"}
    mesh.until(lambda: len(mesh.node("B").streams.by_short) == 2, within=0.1)
    batch: list[Datagram] = []
    for start in (1, 3):
        for name, stream in streams.items():
            there = mesh.stream(name, stream)
            chunks = there.seal(start, 0, there.store.read_run(start, 2))
            batch += [(mesh.chunk_to(name, "B", chunk), mesh.address(name)) for chunk in chunks]
    mesh.node("B").receive_datagrams(batch, now=mesh.now)
    for name, stream in streams.items():
        assert list(mesh.stream("B", stream).held) == [(1, 5)]
        assert mesh.node("B").peers.counters[name].chunks_received == 4


class Batches(Mesh):
    """A mesh whose trains arrive in one batch each, less what was lost, and some of it twice or out of order."""

    rng = random.Random(1)
    loss = 0.0
    twice = 0.0
    swapped = 0.0

    def _send(self, name: DeviceId, socket: int, address: Address, datagrams: list[bytes]) -> None:
        target = self.names[int(address[0].rpartition(".")[2]) - 1]
        batch: list[Datagram] = []
        for datagram in datagrams:
            self.crossings.append(Crossing(self.now, name, target, socket, datagram))
            if self.rng.random() >= self.loss:
                batch += [(datagram, self.address(name, socket))] * (2 if self.rng.random() < self.twice else 1)
        for at in range(1, len(batch)):
            if self.rng.random() < self.swapped:
                batch[at - 1], batch[at] = batch[at], batch[at - 1]
        self._after(0.001, lambda: self._take(target, batch, address[1] - 4000))

    def _take(self, target: DeviceId, batch: list[Datagram], socket: int) -> None:
        self.node(target).receive_datagrams(batch, socket=socket, now=self.now)
        self._drain(target)


@pytest.mark.parametrize("repeat", ["ranges", "window", "last"])
@pytest.mark.parametrize(("loss", "twice", "swapped"), [(0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.05, 0.05, 0.05)])
def test_what_comes_in_batches_arrives_whole_and_is_taken_once(
    repeat: str, loss: float, twice: float, swapped: float
) -> None:
    channels = tuple(each.model_copy(update={"repeat": repeat}) for each in (FILES, MESSAGES))
    mesh = Batches("A-B B-C", channels=channels)
    mesh.linked()
    mesh.rng = random.Random(f"{repeat} {loss}")
    mesh.loss, mesh.twice, mesh.swapped = loss, twice, swapped
    down = mesh.send_file("A", data(150 * PIECE_BYTES - 7, seed=1))
    up = mesh.send_file("C", data(150 * PIECE_BYTES - 7, seed=2))
    said = [b"%d" % number * (number % 700) for number in range(60)]
    for payload in said:
        mesh.publish("A", payload)
    mesh.until(lambda: mesh.verified(down) == ["B", "C"] and mesh.verified(up) == ["A", "B"])
    mesh.until(lambda: mesh.payloads("B") == mesh.payloads("C") == said)
    assert mesh.content("C", down) == data(150 * PIECE_BYTES - 7, seed=1)
    assert mesh.content("A", up) == data(150 * PIECE_BYTES - 7, seed=2)
    received = {name: sum(each.chunks_received for each in mesh.node(name).peers.counters.values()) for name in "ABC"}
    assert received["A"] == 151
    assert received["B"] - 302 == received["C"] - 151 == len(mesh.stream("C", mesh.publish("A", b"")[0]).held)
    if not loss:
        assert [mesh.hop(a, b).recovery.packets_lost for a, b in ("AB", "BC", "CB", "BA")] == [0] * 4
    # The second copy of a control datagram is a replay; nothing else was refused.
    assert all(set(mesh.drops(name)) <= {"control-not-authentic"} for name in "ABC")
    assert twice or not any(mesh.drops(name) for name in "ABC")


def test_what_comes_after_a_farewell_in_its_datagram_is_nobodys() -> None:
    mesh = Mesh("A-B", channels=(FILES, OWN)).linked()
    hop, told = mesh.hop("B", "A"), dict(mesh.hop("B", "A").ports)
    mesh.inject("B", mesh.sealed("A", "B", encode_frame(Bye()) + encode_frame(ChannelPort("own", 4_009))), source="A")
    assert mesh.node("B").peers.hops == {}
    assert hop.ports == told
