"""What a device tells of itself."""

import ipaddress
import json
from dataclasses import asdict

from agent.core.policy import PeerPolicy
from agent.core.status import LinkStatus, MissingLink
from common import stun
from common.fields import encode_key
from common.messages import Channels, RosterEntry
from common.sealing import public_key_of
from tests.harness.mesh import FILES, FIRST_EPOCH, MESSAGES, PIECE_BYTES, RATE_BPS, Mesh, data


def test_a_device_alone_has_little_to_tell() -> None:
    mesh = Mesh("A-B", edges=None, absent="B")
    status = mesh.node("A").status(now=mesh.now)
    assert (status.device, status.group, status.epoch, status.connected) == ("A", "lab", None, True)
    assert status.neighbours == {}
    assert status.streams == ()
    assert [(link.peer, link.state, link.address, link.rtt_s) for link in status.links] == [("B", "probing", "", None)]


def test_links_streams_and_the_graph_are_told() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(10 * PIECE_BYTES), file="model.bin")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.run(1.0)
    status = mesh.node("B").status(now=mesh.now)
    assert (status.epoch, status.members) == (FIRST_EPOCH, ("A", "B", "C"))
    assert status.neighbours == {"throughput": ("A", "C")}
    up, down = status.links
    assert (up.peer, up.state, up.in_tree, up.address) == ("A", "open", True, "10.0.0.1:4000")
    assert up.bandwidth_bps == RATE_BPS
    assert (up.chunks_received, up.chunks_sent, up.duplicates_received) == (11, 0, 0)
    assert (down.chunks_received, down.chunks_sent, down.repeats_sent, down.pulled_sent) == (0, 11, 0, 0)
    assert down.data_bytes_sent < down.bytes_sent
    assert up.rtt_s is not None
    (told,) = status.streams
    assert (told.stream, told.name, told.role, told.held_chunks, told.known_chunks) == (
        stream,
        "model.bin",
        "done",
        11,
        11,
    )
    assert (told.held_bytes, told.size_bytes, told.refused) == (10 * PIECE_BYTES, 10 * PIECE_BYTES, None)
    assert status.requests["Subscribe"] == 1
    assert status.drops == {}


def test_the_status_can_be_written_as_json() -> None:
    mesh = Mesh("A-B").linked()
    mesh.publish("A", b"hello")
    mesh.run(0.1)
    written = json.loads(json.dumps(asdict(mesh.node("B").status(now=mesh.now))))
    assert written["streams"][0]["size_bytes"] is None
    assert set(written["links"][0]) == set(LinkStatus.__slots__)


def test_a_link_without_declared_figures_has_no_bandwidth_to_tell() -> None:
    mesh = Mesh("A-B").linked()
    declared = mesh.node("A").config.declared
    assert isinstance(declared, dict)
    declared.clear()
    mesh.control("A", Channels(version=2, channels=(FILES, MESSAGES)))
    assert mesh.node("A").status(now=mesh.now).links[0].bandwidth_bps is None


def test_a_device_tells_where_it_is_and_what_its_nat_does() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    status = node.status(now=mesh.now)
    assert (status.candidates, status.reflexive, status.mapping, status.missing) == ((), (), "unknown", ())
    node.set_candidates([("192.0.2.1", 4000)], now=mesh.now)
    node.set_stun_servers([("203.0.113.1", 1)], now=mesh.now)
    node.handle_timeout(now=mesh.now)
    (question,) = [train for train in node.poll_transmit(now=mesh.now) if train.address == ("203.0.113.1", 1)]
    request = stun.decode_untrusted(question.datagrams[0])
    assert isinstance(request, stun.BindingRequest)
    mesh.inject("A", stun.encode_answer(request, ("2001:db8::1", 9)), source=("203.0.113.1", 1))
    status = node.status(now=mesh.now)
    assert status.candidates == ("192.0.2.1:4000", "[2001:db8::1]:9")
    assert (status.reflexive, status.mapping) == (("[2001:db8::1]:9",), "unknown")


def test_every_member_without_a_link_has_its_reason() -> None:
    mesh = Mesh("A-B", edges=None, absent="B")
    node = mesh.node("A")
    strangers = tuple(
        RosterEntry(
            device=name,
            public_key=encode_key(public_key_of(bytes([number]) * 32)),
            signing_key=encode_key(public_key_of(bytes([number]) * 32)),
        )
        for number, name in enumerate(("X", "Y"), 1)
    )
    mesh.control("A", mesh.roster.model_copy(update={"version": 2, "devices": (*mesh.roster.devices, *strangers)}))
    mesh.run(20.0)
    assert node.status(now=mesh.now).missing == (
        MissingLink("B", "no answer from 1 address for 20 s"),
        MissingLink("X", "not in --only-peer"),
        MissingLink("Y", "not in --only-peer"),
    )
    node.set_candidates([("2001:db8::1", 4000)], now=mesh.now)
    assert node.status(now=mesh.now).missing[0].reason == "it has addresses of another IP version than this device"
    node.peers._policy = PeerPolicy(None, {"Y": ("10.9.0.1", 1)}, {}, denied=(ipaddress.ip_network("10.9.0.0/16"),))
    mesh.control("A", mesh.roster.model_copy(update={"version": 3, "devices": strangers}))
    assert node.status(now=mesh.now).missing == (
        MissingLink("X", "it told no address"),
        MissingLink("Y", "its addresses are all denied"),
    )


def test_the_search_for_a_peer_begins_with_its_addresses_and_again_when_the_link_closed() -> None:
    mesh = Mesh("A-B").linked()
    mesh.cut.add(("A", "B"))
    mesh.run(1.6)
    assert mesh.node("A").status(now=mesh.now).missing == (MissingLink("B", "it fell silent"),)
    mesh.until(lambda: mesh.node("A").peers.links["B"].session is None)
    mesh.run(3.0)
    assert mesh.node("A").status(now=mesh.now).missing == (MissingLink("B", "no answer from 1 address for 3 s"),)
    moved = mesh.roster.devices[1].model_copy(update={"candidates": ("10.0.0.2:4009", "10.0.0.3:4000")})
    mesh.control("A", mesh.roster.model_copy(update={"version": 2, "devices": (mesh.roster.devices[0], moved)}))
    assert mesh.node("A").status(now=mesh.now).missing == (MissingLink("B", "no answer from 2 addresses for 0 s"),)


def test_it_is_told_for_how_long_a_device_does_without_which_edges_and_what_that_took() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C").linked()
    mesh.run(0.5)
    before = mesh.node("C").status(now=mesh.now).degraded
    assert (before.active, before.for_s, before.lost_edges) == (False, None, ())
    mesh.lose_server()
    mesh.cut.add(("A", "C"))
    mesh.until(lambda: mesh.node("C").degraded.since is not None)
    mesh.publish("A", b"hello")
    stream = mesh.send_file("A", data(10 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.run(3.0)
    status = mesh.node("C").status(now=mesh.now).degraded
    assert status.active
    assert status.for_s is not None
    assert 3.0 <= status.for_s < 5.0
    assert status.lost_edges == (("A", "C"),)
    assert status.chunks_pulled >= 11
    assert mesh.node("B").status(now=mesh.now).degraded.messages_flooded == 1
    assert json.loads(json.dumps(asdict(status)))["lost_edges"] == [["A", "C"]]
