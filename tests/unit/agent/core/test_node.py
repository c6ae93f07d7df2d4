"""A device as its shell sees it: inputs, outputs, and what comes of bad ones."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.events import Address, GraphChanged, LinkChanged, OpenSocket
from agent.core.node import TICK_VERIFYING_S, NodeConfig, run_length
from agent.core.rangeset import RangeSet
from common import stun
from common.datagrams import (
    BOTH_HEADERS,
    CHUNK_OVERHEAD_BYTES,
    FLAG_CLOSING,
    HEADERS_BYTES,
    NUMBER_MASK,
    PacketType,
    peek_chunk,
)
from common.errors import ConfigError
from common.frames import encode_frame
from common.ids import DeviceId
from common.limits import MIN_STREAM_MEMORY_BYTES
from common.messages import CandidatesReport, Channels, ChannelSpec
from common.stream_frames import AskOpening
from tests.harness.mesh import FILES, MESSAGES, PIECE_BYTES, Crossing, Mesh, data, forged

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
    [
        ({"device": "-A"}, "device"),
        ({"group": "no group"}, "group"),
        ({"datagram_bytes": 1_199}, "1200 to 9000"),
        ({"stream_memory_bytes": MIN_STREAM_MEMORY_BYTES - 1}, str(MIN_STREAM_MEMORY_BYTES)),
    ],
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


def test_a_graph_comes_with_this_devices_neighbours_in_it() -> None:
    mesh = Mesh("A-B B-C").linked()
    assert mesh.events("B", GraphChanged)[-1].neighbours["throughput"] == ("A", "C")
    assert mesh.events("C", GraphChanged)[-1].neighbours["throughput"] == ("B",)


def test_a_stream_tells_when_it_was_silent() -> None:
    mesh = Mesh("A-B").linked()
    stream, _ = mesh.publish("A", b"one")
    mesh.until(lambda: mesh.payloads("B") == [b"one"])
    began = mesh.node("B").arrivals()[stream].last_at
    mesh.run(1.0)
    mesh.publish("A", b"two")
    mesh.until(lambda: mesh.payloads("B") == [b"one", b"two"])
    arrivals = mesh.node("B").arrivals()[stream]
    assert arrivals.silences[-1] == (began, arrivals.last_at)
    assert arrivals.last_at >= began + 1.0
    assert mesh.node("A").arrivals()[stream].silences == (), "its source is never silent to itself"


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


# --- runs ---------------------------------------------------------------------------------------------------------

Datagram = tuple[bytes, Address]
HERE = ("10.0.0.1", 4_000)


def a_chunk(
    hop_number: int,
    number: int,
    *,
    kind: PacketType = PacketType.DATA,
    tree: int = 3,
    session: int = 0x61,
    epoch: int = 0xFFFFFFFF,
    age: int = 0,
    stream: int = 0xFFFFFFFF,
    flags: int = 0,
    size: int = 100,
    source: Address = HERE,
) -> Datagram:
    """Return what claims to be a chunk, with the address it came from."""
    header = BOTH_HEADERS.pack(kind << 4 | tree, session, hop_number, epoch, age, stream, flags << 56 | number)
    return header + bytes(size - len(header)), source


def run_at(hop_number: int, number: int, count: int) -> list[Datagram]:
    """Return consecutive chunks."""
    return [a_chunk(hop_number + step, number + step) for step in range(count)]


def test_consecutive_chunks_are_one_run_whatever_their_size() -> None:
    batch = run_at(7, 100, 30)
    batch[4] = a_chunk(11, 104, size=CHUNK_OVERHEAD_BYTES)
    batch[9] = a_chunk(16, 109, size=9_000)
    assert [run_length(batch, at) for at in (0, 1, 29)] == [30, 29, 1]
    assert run_length(batch[:5], 0) == 5


@pytest.mark.parametrize(
    "other",
    [
        {"hop_number": 13},
        {"hop_number": 11},
        {"hop_number": 1 << 31},
        {"number": 106},
        {"number": 104},
        {"number": 0},
        {"kind": PacketType.REPEAT},
        {"kind": PacketType.CONTROL},
        {"tree": 2},
        {"session": 0x62},
        {"epoch": 0xFFFFFFFE},
        {"epoch": 0},
        {"age": 1},
        {"stream": 0xFFFFFFFE},
        {"stream": 0},
        {"flags": FLAG_CLOSING},
        {"source": ("10.0.0.1", 4_001)},
        {"source": ("10.0.0.2", 4_000)},
        {"size": CHUNK_OVERHEAD_BYTES - 1},
        {"size": HEADERS_BYTES},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_run_ends_before_what_differs_in_anything_but_the_next_numbers(other: dict[str, Any]) -> None:
    batch = run_at(7, 100, 10)
    batch[5] = a_chunk(**{"hop_number": 12, "number": 105, **other})
    assert run_length(batch, 0) == 5
    assert run_length(batch, 6) == 4


@pytest.mark.parametrize("length", range(CHUNK_OVERHEAD_BYTES))
def test_a_run_ends_before_a_datagram_that_is_too_short_for_a_chunk(length: int) -> None:
    batch = run_at(7, 100, 3)
    batch[1] = (batch[1][0][:length], HERE)
    assert run_length(batch, 0) == 1


def test_a_run_ends_where_the_low_32_bits_of_the_hop_number_begin_anew() -> None:
    """Both numbers go on, but what is written does not: the next run begins there."""
    batch = [a_chunk((0xFFFFFFFC + step) & 0xFFFFFFFF, 100 + step) for step in range(10)]
    assert run_length(batch, 0) == 4
    assert run_length(batch, 4) == 6


def test_a_run_ends_with_the_highest_chunk_number() -> None:
    batch = [a_chunk(7, NUMBER_MASK), a_chunk(8, 0)]
    assert run_length(batch, 0) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([0, 1]), st.sampled_from([100, 100, 100, 39])),
        max_size=12,
    )
)
def test_the_runs_of_a_batch_are_told_apart_as_by_their_fields(steps: list[tuple[int, int, int, int]]) -> None:
    hop_number, number = 5, 50
    batch, fields = [], []
    for hop_step, step, stream, size in steps:
        hop_number, number = hop_number + hop_step, number + step
        batch.append(a_chunk(hop_number, number, stream=stream, size=size))
        fields.append((hop_number - len(batch), number - len(batch), stream, size >= CHUNK_OVERHEAD_BYTES))
    at = 0
    while at < len(batch):
        length = run_length(batch, at)
        assert all(each == fields[at] for each in fields[at + 1 : at + length] if fields[at][3])
        if at + length < len(batch) and fields[at][3]:
            assert fields[at + length] != fields[at]
        at += length


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


def test_the_shared_socket_asks_stun_servers_and_what_they_saw_is_told() -> None:
    mesh = Mesh("A-B").linked()
    node, server, seen = mesh.node("A"), ("203.0.113.1", 8640), ("198.51.100.7", 40_000)
    node.set_stun_servers([server], now=mesh.now)
    assert node.poll_timeout() == mesh.now
    node.handle_timeout(now=mesh.now)
    sent = [train for train in node.poll_transmit(now=mesh.now) if train.address == server]
    assert [(train.socket, len(train.datagrams)) for train in sent] == [(0, 1)]
    request = stun.decode_untrusted(sent[0].datagrams[0])
    assert isinstance(request, stun.BindingRequest)
    answer = stun.encode_answer(request, seen)
    mesh.inject("A", answer, source=server, socket=1)
    assert mesh.drops("A") == {"datagram-not-understood": 1}
    assert mesh.requests("A", CandidatesReport)[-1] == CandidatesReport(candidates=())
    mesh.inject("A", answer, source=server)
    assert mesh.requests("A", CandidatesReport)[-1] == CandidatesReport(candidates=("198.51.100.7:40000",))
    node.set_candidates([seen], now=mesh.now)
    mesh._drain("A")
    mesh.inject("A", answer, source=server)
    assert mesh.drops("A") == {"datagram-not-understood": 1, "stun-not-asked": 1}


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
