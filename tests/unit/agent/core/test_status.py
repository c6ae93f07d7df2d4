"""What a device tells of itself."""

import json
from dataclasses import asdict

from agent.core.status import LinkStatus
from common.messages import Channels
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
