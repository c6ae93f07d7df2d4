"""A member is evicted in the middle of a transfer, and goes on as if it had not heard of it."""

from agent.core.events import StreamOpened
from common.fields import encode_key
from common.frames import encode_frame
from common.graph import AcyclicGraph
from common.link_frames import Probe
from common.sealing import key_epoch_of
from tests.harness.mesh import GROUP_KEY, Mesh, data

NEW_KEY = bytes(range(32, 64))
STAYING = ("A", "B", "D")


def evict(mesh: Mesh, name: str, edges: str) -> None:
    """Do what the server does: another roster with another group key, then another graph, to those who stay."""
    mesh.roster = mesh.roster.model_copy(
        update={
            "version": mesh.roster.version + 1,
            "devices": tuple(entry for entry in mesh.roster.devices if entry.device != name),
            "key_epoch": 2,
            "group_keys": {1: encode_key(GROUP_KEY), 2: encode_key(NEW_KEY)},
        }
    )
    for device in STAYING:
        mesh.control(device, mesh.roster)
    mesh.plan(edges, to=STAYING)
    assert mesh.graph is not None
    graph = mesh.graph
    mesh.graph = AcyclicGraph(graph.epoch, tuple(d for d in graph.devices if d != name), graph.trees)


def test_the_rest_finish_and_the_one_that_was_evicted_gets_nothing_and_is_not_heard() -> None:
    mesh = Mesh("A-B A-C B-C B-D C-D", edges="A-B A-C C-D").linked()
    before, _ = mesh.publish("A", b"before")
    stream = mesh.send_file("A", data(4_000_000))
    short = int(stream[:8], 16)
    mesh.until(lambda: short in mesh.node("C").streams.by_short and len(mesh.stream("C", stream).held) > 500)
    assert not mesh.stream("D", stream).complete

    evict(mesh, "C", "A-B B-D")
    at = mesh.now
    for device in STAYING:
        assert "C" not in mesh.node(device).peers.hops
        assert "C" not in mesh.node(device).peers.links
    held = len(mesh.stream("C", stream).held)
    # What was on its way when the roster came may still arrive; nothing is sent any more.
    mesh.until(lambda: sorted(mesh.verified(stream)) == ["B", "D"])
    mesh.run(30.0)
    assert [crossing for crossing in mesh.crossings if crossing.target == "C" and crossing.at > at] == []
    assert len(mesh.stream("C", stream).held) <= held + 100
    assert not mesh.stream("C", stream).complete

    # It goes on saying hello, and what it still owed; nobody answers, and it is only counted.
    sent = [crossing for crossing in mesh.crossings if crossing.source == "C" and crossing.at > at + 1.0]
    assert sent
    for device in STAYING:
        drops = mesh.drops(device)
        assert drops.get("hello-unknown-key", 0) > 0, device
        assert set(drops) <= {"hello-unknown-key", "control-from-stranger", "chunk-from-stranger"}, device

    after, _ = mesh.publish("A", b"after")
    mesh.until(lambda: mesh.payloads("B") == mesh.payloads("D") == [b"before", b"after"])
    mesh.run(1.0)
    # Another stream, so another key of its own, in an opening that only the new group key opens.
    assert after != before
    assert key_epoch_of(mesh.stream("B", after).sealed_opening) == 2
    keys = mesh.node("C").streams.keys
    assert keys is not None
    assert keys.newest == 1
    assert after not in [event.stream for event in mesh.events("C", StreamOpened)]
    assert mesh.payloads("C") == [b"before"]


def test_what_an_evicted_member_says_on_its_old_session_changes_nothing() -> None:
    mesh = Mesh("A-B A-C B-C B-D C-D", edges="A-B A-C C-D").linked()
    said = [mesh.sealed("C", "A", encode_frame(Probe(1, 1, 0, 1, 1, 250, 0))) for _ in range(3)]
    mesh.inject("A", said[0], source="C")
    mesh.publish("A", b"one")
    mesh.run(0.1)
    evict(mesh, "C", "A-B B-D")
    assert "control-from-stranger" not in mesh.drops("A")
    mesh.inject("A", *said[1:], source="C")
    assert mesh.drops("A")["control-from-stranger"] == 2
    assert "C" not in mesh.node("A").peers.hops
