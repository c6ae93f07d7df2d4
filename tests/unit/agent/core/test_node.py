"""A device as its shell sees it: inputs, outputs, and what comes of bad ones."""

import random

import pytest

from agent.core.events import GraphChanged, LinkChanged
from agent.core.node import TICK_VERIFYING_S
from agent.core.rangeset import RangeSet
from common import stun
from common.datagrams import CHUNK_OVERHEAD_BYTES
from common.messages import CandidatesReport
from tests.harness.mesh import PIECE_BYTES, Mesh, data


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
