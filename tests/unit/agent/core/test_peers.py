"""The roster, hellos, and a hop over each open link."""

import ipaddress
import random

import pytest

from agent.core.events import LinkChanged
from agent.core.policy import DeclaredQos, PeerPolicy
from common.datagrams import HELLO_BYTES, WIRE_VERSION, Hello
from common.fields import encode_key
from common.limits import MAX_FRAMES_QUEUED, MAX_PEERS
from common.link_frames import Probe
from common.messages import QosFigures, Roster, RosterEntry
from common.sealing import Sealer, hello_key, key_id, pair_secret, public_key_of
from common.stream_frames import AskOpening
from tests.harness.mesh import GROUP, RATE_BPS, Mesh, data, forged


def roster(mesh: Mesh, *entries: RosterEntry) -> Roster:
    return Roster(version=2, devices=entries, key_epoch=1, group_keys={})


def member(name: str, key: bytes | None = None, *candidates: str) -> RosterEntry:
    made = random.Random(name).randbytes(32) if key is None else key
    return RosterEntry(
        device=name,
        public_key=encode_key(public_key_of(made)),
        signing_key=encode_key(public_key_of(made)),
        candidates=candidates,
    )


def hello_of(mesh: Mesh, private_key: bytes, group: str, *, datagram_bytes: int = 1200) -> bytes:
    """Return the hello of somebody who knows B's public key."""
    secret = pair_secret(private_key, mesh.node("B").config.public_key)
    hello = Hello(bytes(range(16)), bytes(16), datagram_bytes)
    return hello.encode(key_id(public_key_of(private_key)), Sealer(hello_key(secret, group)), bytes(12))


def test_a_hello_under_an_unknown_key_is_counted_and_gets_no_answer() -> None:
    mesh = Mesh("A-B").linked()
    before = len(mesh.crossings)
    mesh.inject("B", hello_of(mesh, bytes(range(32)), GROUP), source=("10.0.0.1", 9999))
    assert mesh.drops("B") == {"hello-unknown-key": 1}
    assert len(mesh.crossings) == before


@pytest.mark.parametrize("wrong", ["group", "length", "size", "seal"])
def test_a_hello_that_is_not_authentic_is_counted_and_gets_no_answer(wrong: str) -> None:
    mesh = Mesh("A-B").linked()
    key = mesh.node("A").config.private_key
    size = 99 if wrong == "size" else 1200
    hello = hello_of(mesh, key, "other" if wrong == "group" else GROUP, datagram_bytes=size)
    assert len(hello) == HELLO_BYTES
    hello = {"length": hello[:-1], "seal": forged(hello)}.get(wrong, hello)
    before, hop = len(mesh.crossings), mesh.hop("B", "A")
    mesh.inject("B", hello, source="A")
    assert mesh.drops("B") == {"hello-not-authentic": 1}
    assert len(mesh.crossings) == before
    assert mesh.hop("B", "A") is hop


def test_a_peer_that_speaks_another_wire_version_is_named_until_it_speaks_ours() -> None:
    mesh = Mesh("A-B")
    hello = hello_of(mesh, mesh.node("A").config.private_key, GROUP)
    mesh.inject("B", bytes([hello[0] + 1]) + hello[1:40], source=("10.0.0.1", 9999))
    mesh.inject("B", bytes([hello[0] + 1]) + bytes(8), source=("10.0.0.1", 9999))
    assert mesh.drops("B") == {"hello-of-other-wire-version": 2}
    assert mesh.node("B").peers.links["A"].other_wire == WIRE_VERSION + 1
    mesh.linked()
    assert mesh.node("B").peers.links["A"].other_wire is None


def test_a_new_session_replaces_the_hop_and_keeps_the_links_counters() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    hop = mesh.hop("A", "B")
    mesh.kill("B")
    mesh.start("B")
    mesh.until(lambda: mesh.node("A").peers.hops.get("B") is not hop)
    assert mesh.hop("A", "B").counters is hop.counters
    assert mesh.hop("A", "B").counters.chunks_sent == 2
    assert mesh.node("A").peers.by_address[mesh.address("B")] is mesh.hop("A", "B")


def test_a_silent_link_becomes_suspect_comes_back_and_is_closed_when_it_stays_silent() -> None:
    mesh = Mesh("A-B").linked()
    mesh.cut.add(("A", "B"))
    mesh.run(1.6)
    assert mesh.events("A", LinkChanged)[-1].state == "suspect"
    assert mesh.node("A").peers.usable() == ()
    mesh.cut.clear()
    mesh.run(1.0)
    assert mesh.events("A", LinkChanged)[-1].state == "open"
    assert mesh.node("A").peers.usable() == ("B",)
    mesh.cut.add(("A", "B"))
    mesh.run(8.0)
    assert "B" not in mesh.node("A").peers.hops
    assert mesh.node("A").peers.by_address == {}
    mesh.cut.clear()
    mesh.linked()
    assert mesh.node("A").peers.usable() == ("B",)


def test_a_member_that_leaves_the_roster_is_forgotten_with_its_link() -> None:
    mesh = Mesh("A-B").linked()
    mesh.control("A", roster(mesh, *[entry for entry in mesh.roster.devices if entry.device == "A"]))
    peers = mesh.node("A").peers
    assert (peers.links, peers.hops, peers.by_address) == ({}, {}, {})
    assert mesh.events("A", LinkChanged)[-1] == LinkChanged("B", "closed")
    assert peers.members == ("A",)
    mesh.say("B", "A", Probe(1, 0, 0, 1, 0, 250, 0))
    assert mesh.drops("A") == {"control-from-stranger": 1}


def test_a_member_with_a_new_key_begins_anew() -> None:
    mesh = Mesh("A-B").linked()
    link = mesh.node("A").peers.links["B"]
    mesh.control("A", roster(mesh, mesh.roster.devices[0], member("B", None, "10.0.0.2:4000")))
    assert mesh.node("A").peers.links["B"] is not link
    assert mesh.node("A").peers.hops == {}


def test_a_member_with_an_unusable_key_is_counted_and_left_out() -> None:
    mesh = Mesh("A-B").linked()
    mesh.devices["A"].node.peers._policy = type(mesh.node("A").peers._policy)(None, {}, {})
    bad = RosterEntry(device="Z", public_key=encode_key(bytes(32)), signing_key=encode_key(bytes(32)))
    mesh.control("A", roster(mesh, *mesh.roster.devices, bad))
    assert mesh.drops("A") == {"roster-unusable-key": 1}
    assert sorted(mesh.node("A").peers.links) == ["B"]


def test_a_member_with_another_ones_key_is_left_out_and_takes_nobodys_hellos() -> None:
    mesh = Mesh("A-B").linked()
    mesh.devices["A"].node.peers._policy = type(mesh.node("A").peers._policy)(None, {}, {})
    twin = RosterEntry(
        device="Z", public_key=mesh.roster.devices[1].public_key, signing_key=mesh.roster.devices[1].public_key
    )
    mesh.control("A", roster(mesh, *mesh.roster.devices, twin))
    assert mesh.drops("A") == {"roster-key-twice": 1}
    assert sorted(mesh.node("A").peers.links) == ["B"]
    mesh.start("B")
    mesh.linked()


def test_more_peers_than_the_limit_are_counted_and_left_out() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    node.peers._policy = type(node.peers._policy)(None, {"p000": ("10.0.0.2", 4001)}, {})
    node.peers.links.update({f"x{index}": node.peers.links["B"] for index in range(MAX_PEERS - 2)})
    members = [*mesh.roster.devices, *(member(name) for name in ("p000", "p001", "p002"))]
    entries = [
        RosterEntry(device=f"x{index}", public_key=member("B").public_key, signing_key=member("B").public_key)
        for index in range(MAX_PEERS - 2)
    ]
    node.peers._keys.update({entry.device: entry.public_key for entry in entries})
    mesh.control("A", roster(mesh, *members, *entries))
    assert mesh.drops("A") == {"peers-beyond-limit": 2}
    assert node.peers.links["p000"].addresses == (("10.0.0.2", 4001),)
    assert "p001" not in node.peers.links


def test_only_addresses_at_which_a_peer_can_be_are_tried() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    denied = (ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("2001:db8:9::/48"))
    node.peers._policy = PeerPolicy(None, {"Q": ("10.9.0.9", 1)}, {}, denied=denied)
    told = [
        *("10.9.0.1:1", "[::ffff:10.9.0.1]:1", "[2001:db8:9::1]:1"),
        *("224.0.0.1:1", "255.255.255.255:1", "0.0.0.0:1", "[::]:1", "[ff02::1]:1", "[fe80::1]:1", "a.example:1"),
        *("10.8.0.1:1", "[2001:db8:8::1]:1"),
    ]
    mesh.control("A", roster(mesh, *mesh.roster.devices, member("Q", None, *told)))
    assert node.peers.links["Q"].addresses == (("10.8.0.1", 1), ("2001:db8:8::1", 1))


def test_a_hello_out_of_a_denied_network_is_counted_and_gets_no_answer() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("B")
    node.peers._policy = PeerPolicy(None, {}, {}, denied=(ipaddress.ip_network("10.9.0.0/16"),))
    hello, before = hello_of(mesh, mesh.node("A").config.private_key, GROUP), len(mesh.crossings)
    mesh.inject("B", hello, source=("10.9.0.1", 4000))
    assert mesh.drops("B") == {"hello-from-denied-network": 1}
    assert len(mesh.crossings) == before
    mesh.inject("B", hello, source=("10.8.0.1", 4000))
    assert len(mesh.crossings) == before + 1


def test_a_peer_without_any_address_gets_no_hello() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    node.peers._policy = type(node.peers._policy)(None, {}, {})
    before = len(mesh.crossings)
    mesh.control("A", roster(mesh, *mesh.roster.devices, member("Q")))
    node.peers.handle_timeout(mesh.now + 0.01)
    assert node.peers.poll_hello() is None
    assert len(mesh.crossings) == before
    assert node.peers.links["Q"].addresses == ()


def test_only_the_allowed_peers_are_spoken_with() -> None:
    mesh = Mesh("A-B B-C").linked()
    assert sorted(mesh.node("A").peers.links) == ["B"]
    assert mesh.node("A").peers.members == ("A", "B", "C")


def test_no_declared_figure_makes_a_link_better_than_was_measured() -> None:
    mesh = Mesh("A-B").linked()
    mesh.run(3.0)
    peers = mesh.node("A").peers
    measured = peers.figures("B")
    assert measured.bandwidth_bps == RATE_BPS
    assert measured.delay_s == pytest.approx(0.001, rel=0.2)
    policy = type(peers._policy)
    peers._policy = policy(None, {}, {"B": DeclaredQos(1e6, 0.5)})
    assert peers.figures("B") == QosFigures(
        bandwidth_bps=1e6, delay_s=0.5, jitter_s=measured.jitter_s, loss=measured.loss, mtu_bytes=1200
    )
    mesh.hop("A", "B").qos.on_bandwidth(3e5, mesh.now)
    peers._policy = policy(None, {}, {"B": DeclaredQos(1e6, 0.0005)})
    assert peers.figures("B").bandwidth_bps == 3e5
    assert peers.figures("B").delay_s == measured.delay_s
    peers._policy = policy(None, {}, {})
    assert peers.figures("B").bandwidth_bps == 3e5


def test_a_link_without_declared_figures_opens_too() -> None:
    mesh = Mesh("A-B", absent="B")
    node = mesh.node("A")
    node.peers._policy = type(node.peers._policy)(None, {}, {})
    mesh.start("B")
    mesh.linked()
    mesh.run(0.1)
    assert node.peers.usable() == ("B",)


def test_figures_of_a_link_that_was_never_probed_are_left_open() -> None:
    mesh = Mesh("A-B")
    mesh.until(lambda: "B" in mesh.node("A").peers.hops)
    assert mesh.node("A").peers.figures("B").delay_s is None


def test_without_any_peer_there_is_nothing_to_wait_for() -> None:
    mesh = Mesh("A-B", absent="A B")
    assert mesh.node("A").peers.poll_timeout(mesh.now) is None


def test_a_hop_whose_address_another_peer_took_over_leaves_that_address_alone() -> None:
    mesh = Mesh("A-B A-C").linked()
    peers = mesh.node("A").peers
    peers.by_address[mesh.address("B")] = peers.hops["C"]
    peers._drop_hop("B")
    assert peers.by_address[mesh.address("B")] is peers.hops["C"]


def test_a_hop_whose_queue_of_frames_overflows_is_closed_and_the_link_begins_anew() -> None:
    """What was dropped would be missed for ever: frames are reliable, and nobody repeats them."""
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    hop = mesh.hop("A", "B")
    for number in range(MAX_FRAMES_QUEUED + 1):
        hop.send(AskOpening(number))
    mesh.until(lambda: mesh.node("A").peers.hops.get("B") is not hop)
    assert mesh.drops("A") == {"hop-overflowed": 1}
    assert mesh.events("A", LinkChanged)[-1].state == "probing"
    mesh.linked()
    again = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(again) == ["B"])


def refuse(mesh: Mesh, address: tuple[str, int]) -> None:
    mesh.node("A").on_unreachable(address, now=mesh.now)
    mesh._drain("A")


def test_a_link_whose_peer_the_network_says_is_gone_is_suspect_unless_the_peer_answers() -> None:
    mesh = Mesh("A-B").linked()
    mesh.run(5.0)
    refuse(mesh, ("10.9.9.9", 1))
    refuse(mesh, mesh.address("B"))
    refuse(mesh, mesh.address("B"))
    mesh.run(0.5)
    assert mesh.node("A").peers.usable() == ("B",), "it may have been a forgery"
    mesh.kill("B")
    refuse(mesh, mesh.address("B"))
    mesh.run(0.11)
    assert mesh.events("A", LinkChanged)[-1] == LinkChanged("B", "suspect")
