"""What a device says to the server, and what it makes of the answers."""

import pytest

from agent.core.control_plane import MAX_REQUESTS, REPORT_EVERY_S
from agent.core.events import ControlFailed, GraphChanged, QueryGraph, QueryNeighbours
from common.messages import (
    Accepted,
    AdjacencyReport,
    CandidatesReport,
    Channels,
    EpochUpdate,
    ErrorMessage,
    GraphBody,
    GraphUpdate,
    NeighboursBody,
    NeighboursUpdate,
    QosReport,
    Subscribe,
    TreeNeighbours,
    Unchanged,
)
from tests.harness.mesh import FILES, FIRST_EPOCH, MESSAGES, RATE_BPS, Mesh, data

QUERY = FILES.model_copy(update={"routing": "query"})
EMBEDDED = MESSAGES.model_copy(update={"routing": "embedded"})
OVERFLOW = MESSAGES.model_copy(update={"routing": "overflow"})


def trees(*neighbours: str) -> tuple[TreeNeighbours, ...]:
    return (TreeNeighbours(objective="throughput", neighbours=neighbours),)


def known(mesh: Mesh, name: str) -> tuple[int | None, tuple[str, ...]]:
    current = mesh.node(name).table.current
    return (None, ()) if current is None else (current.epoch, current.in_tree(0))


@pytest.mark.parametrize("scope", ["graph", "neighbours"])
def test_m5_a_subscription_is_answered_now_and_on_every_change(scope: str) -> None:
    mesh = Mesh("A-B B-C", scopes={"B": scope}).linked()
    assert [request.scope for request in mesh.requests("B", Subscribe)] == [scope]
    assert known(mesh, "B") == (FIRST_EPOCH, ("A", "C"))
    epoch = mesh.plan("A-B")
    assert known(mesh, "B") == (epoch, ("A",))
    assert [event.epoch for event in mesh.events("B", GraphChanged)] == [FIRST_EPOCH, epoch]
    assert mesh.requests("B", QueryNeighbours) == []


def test_m4_a_query_is_answered_with_the_devices_own_neighbours() -> None:
    mesh = Mesh("A-B B-C", channels=(QUERY,)).linked()
    mesh.run(3.0)
    assert [request.scope for request in mesh.requests("B", Subscribe)] == ["roster"]
    assert mesh.requests("B", QueryNeighbours)[0] == QueryNeighbours(None)
    assert known(mesh, "B") == (FIRST_EPOCH, ("A", "C"))


def test_a_first_query_that_nobody_could_answer_is_asked_again_soon() -> None:
    mesh = Mesh("A-B", channels=(QUERY,))
    mesh.until(lambda: known(mesh, "A")[0] is not None, within=2.0)


def test_on_every_connection_the_device_subscribes_and_reports_with_the_last_epoch_seen() -> None:
    mesh = Mesh("A-B").linked()
    mesh.lose_server()
    mesh.run(10.0)
    before = len(mesh.devices["A"].requests)
    mesh.serving = True
    mesh.node("A").control_connected(now=mesh.now)
    mesh._drain("A")
    said = mesh.devices["A"].requests[before:]
    assert said[0] == Subscribe(scope="graph", epoch=FIRST_EPOCH)
    assert [type(request) for request in said[1:]] == [CandidatesReport, QosReport, AdjacencyReport]
    assert said[3] == AdjacencyReport(peers=("B",))


def test_a_change_of_addresses_is_reported_at_once_and_nothing_twice() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    told = [report.candidates for report in mesh.requests("A", CandidatesReport)]
    assert told == [()]
    for hosts in ([("10.0.0.1", 4000)], [("10.0.0.1", 4000), ("192.0.2.1", 4000)], []):
        node.set_candidates(hosts, now=mesh.now)
        node.set_candidates(hosts, now=mesh.now)
        mesh._drain("A")
    told = [report.candidates for report in mesh.requests("A", CandidatesReport)]
    assert told == [(), ("10.0.0.1:4000",), ("10.0.0.1:4000", "192.0.2.1:4000"), ()]


def test_what_changed_while_the_server_was_gone_is_told_on_the_next_connection() -> None:
    mesh = Mesh("A-B").linked()
    mesh.lose_server()
    node = mesh.node("A")
    node.set_candidates([("192.0.2.1", 4000)], now=mesh.now)
    mesh._drain("A")
    assert len(mesh.requests("A", CandidatesReport)) == 1
    mesh.serving = True
    node.control_connected(now=mesh.now)
    mesh._drain("A")
    assert mesh.requests("A", CandidatesReport)[-1].candidates == ("192.0.2.1:4000",)
    assert len(mesh.requests("A", CandidatesReport)) == 2


def test_links_are_reported_at_once_and_figures_periodically() -> None:
    mesh = Mesh("A-B").linked()
    assert mesh.requests("A", AdjacencyReport)[-1].peers == ("B",)
    assert list(mesh.requests("A", QosReport)[-1].links) == ["B"]
    before = len(mesh.requests("A", QosReport))
    mesh.run(4 * REPORT_EVERY_S)
    assert 3 <= len(mesh.requests("A", QosReport)) - before <= 5


def test_nothing_is_reported_while_the_server_is_gone() -> None:
    mesh = Mesh("A-B").linked()
    mesh.lose_server()
    before = len(mesh.devices["A"].requests)
    mesh.cut.add(("A", "B"))
    mesh.run(20.0)
    assert len(mesh.devices["A"].requests) == before


def test_a_channel_that_wants_the_graph_makes_the_device_subscribe_to_it() -> None:
    mesh = Mesh("A-B", channels=(QUERY,)).linked()
    mesh.control("A", Channels(version=2, channels=(QUERY, MESSAGES)))
    mesh.control("A", Channels(version=3, channels=(QUERY, MESSAGES, EMBEDDED.model_copy(update={"name": "other"}))))
    assert [request.scope for request in mesh.requests("A", Subscribe)] == ["roster", "graph"]
    mesh.lose_server()
    mesh.control("A", Channels(version=4, channels=(QUERY,)))
    assert len(mesh.requests("A", Subscribe)) == 2


def test_who_knows_an_epoch_by_its_neighbours_alone_asks_for_the_graph_as_if_it_knew_none() -> None:
    mesh = Mesh("A-B", channels=(QUERY,), edges=None).linked()
    mesh.control("A", NeighboursBody(epoch=5, trees=trees("B")))
    mesh.control("A", Channels(version=2, channels=(QUERY, MESSAGES)))
    assert mesh.node("A").table.epoch == 5
    assert mesh.requests("A", Subscribe)[-1] == Subscribe(scope="graph", epoch=None)


def test_epochs_that_were_passed_over_are_learnt_too() -> None:
    mesh = Mesh("A-B", edges=None).linked()
    old = GraphBody.model_validate(
        {"epoch": 5, "devices": ["A", "B"], "trees": [{"objective": "throughput", "edges": [["A", "B"]]}]}
    )
    new = old.model_copy(update={"epoch": 6})
    mesh.control("A", GraphUpdate(graph=new, passed=(old,)))
    passed = NeighboursBody(epoch=5, trees=trees("A"))
    mesh.control("B", NeighboursUpdate(epoch=6, trees=trees(), passed=(passed,)))
    for name in "AB":
        assert mesh.node(name).table.get(5) is not None
        assert known(mesh, name)[0] == 6
    mesh.control("B", EpochUpdate(epoch=7))
    assert known(mesh, "B") == (7, ())
    mesh.control("B", old.model_copy(update={"epoch": 8}))
    assert known(mesh, "B") == (8, ("A",))
    mesh.control("B", NeighboursBody(epoch=9, trees=trees()))
    assert known(mesh, "B") == (9, ())


def test_what_says_nothing_new_changes_nothing() -> None:
    mesh = Mesh("A-B").linked()
    before = (known(mesh, "A"), len(mesh.devices["A"].events), len(mesh.devices["A"].requests))
    mesh.control("A", Unchanged(epoch=FIRST_EPOCH))
    mesh.control("A", Accepted(of="qos"))
    mesh.control("A", ErrorMessage(reason="slow", detail="too slow"))
    mesh.control("A", ControlFailed(Subscribe(scope="graph"), "unreachable"))
    assert (known(mesh, "A"), len(mesh.devices["A"].events), len(mesh.devices["A"].requests)) == before


def test_a_graph_that_does_not_hold_together_is_counted_and_not_believed() -> None:
    mesh = Mesh("A-B").linked()
    bad = GraphBody.model_validate(
        {"epoch": FIRST_EPOCH + 1, "devices": ["A", "B"], "trees": [{"objective": "throughput", "edges": [["A", "Z"]]}]}
    )
    mesh.control("A", GraphUpdate(graph=bad))
    assert mesh.drops("A") == {"server-message-refused": 1}
    assert known(mesh, "A") == (FIRST_EPOCH, ("B",))


def test_a_failed_query_lets_the_newest_known_graph_serve() -> None:
    mesh = Mesh("A-B", channels=(OVERFLOW,)).linked()
    mesh.control("A", NeighboursBody(epoch=FIRST_EPOCH, trees=trees("B")))
    mesh.publish("A", b"held back")
    mesh.lose_server()
    mesh.until(lambda: len(mesh.chunks("A", "B")) > 0, within=0.2)


def test_a_query_that_the_server_refused_lets_the_newest_known_graph_serve() -> None:
    mesh = Mesh("A-B", channels=(OVERFLOW,)).linked()
    mesh.control("A", NeighboursBody(epoch=FIRST_EPOCH, trees=trees("B")))
    mesh.graph = None
    mesh.publish("A", b"held back")
    mesh.until(lambda: len(mesh.chunks("A", "B")) > 0, within=0.2)
    assert len(mesh.requests("A", QueryNeighbours)) == 1


def test_only_a_source_of_an_embedding_channel_asks_for_the_whole_graph() -> None:
    mesh = Mesh("A-B", channels=(EMBEDDED, QUERY)).linked()
    mesh.send_file("A", b"", channel="files")
    assert mesh.requests("A", QueryGraph) == []
    mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("B") == [b"hello"])
    assert len(mesh.requests("A", QueryGraph)) == 1
    assert mesh.requests("B", QueryGraph) == []


def test_requests_that_nobody_fetches_are_bounded() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    for _ in range(MAX_REQUESTS):
        node.control.report_links(mesh.now)
    count = 0
    while node.poll_control() is not None:
        count += 1
    assert count == MAX_REQUESTS


def test_without_channels_and_server_there_is_nothing_to_wait_for() -> None:
    mesh = Mesh("A-B", channels=(), absent="A")
    assert mesh.node("A").control.poll_timeout() is None


def test_a_source_that_embeds_its_graph_asks_again_soon_after_the_server_was_gone() -> None:
    files = FILES.model_copy(update={"routing": "embedded"})
    mesh = Mesh("A-B", channels=(files,)).linked()
    mesh.lose_server()
    stream = mesh.send_file("A", data(5_000))
    mesh.run(1.0)
    mesh.serving = True
    for name in "AB":
        mesh.devices[name].connected = True
        mesh.node(name).control_connected(now=mesh.now)
        mesh._drain(name)
    mesh.until(lambda: mesh.verified(stream) == ["B"], within=3.0)


@pytest.mark.parametrize("routing", ["query", "overflow"])
def test_a_device_that_is_told_nothing_asks_when_a_peer_knows_a_newer_epoch(routing: str) -> None:
    asking = FILES.model_copy(update={"routing": routing, "query_interval_s": 3_600.0})
    mesh = Mesh("A-B", channels=(asking,)).linked()
    mesh.run(60.0)
    epoch = mesh.plan("A-B", to=())
    graph = mesh.graph
    assert graph is not None
    before = len(mesh.requests("B", QueryNeighbours))
    mesh.control("A", GraphBody.from_graph(graph))
    mesh.until(lambda: known(mesh, "B")[0] == epoch, within=2.0)
    assert len(mesh.requests("B", QueryNeighbours)) == before + 1


def test_a_figure_that_changed_so_that_it_matters_is_reported_at_once_and_alone() -> None:
    mesh = Mesh("A-B A-C").linked()
    mesh.run(1.0)
    before = len(mesh.requests("A", QosReport))
    mesh.hop("A", "B").qos.on_bandwidth(RATE_BPS / 10, mesh.now)
    mesh.run(0.6)
    (report,) = mesh.requests("A", QosReport)[before:]
    assert list(report.links) == ["B"]
    assert report.links["B"].bandwidth_bps == RATE_BPS / 10


def test_a_figure_that_jumps_all_the_time_is_reported_four_times_a_second_at_most() -> None:
    mesh = Mesh("A-B").linked()
    before = len(mesh.requests("A", QosReport))
    for turn in range(200):
        mesh.hop("A", "B").qos.on_bandwidth(RATE_BPS / (10 if turn % 2 else 20), mesh.now)
        mesh.node("A").handle_timeout(now=mesh.now)
        mesh._drain("A")
        mesh.run(0.01)
    assert 4 <= len(mesh.requests("A", QosReport)) - before <= 9


def test_what_matters_waits_while_the_server_is_gone() -> None:
    mesh = Mesh("A-B").linked()
    mesh.lose_server()
    before = len(mesh.requests("A", QosReport))
    mesh.hop("A", "B").qos.on_bandwidth(RATE_BPS / 10, mesh.now)
    mesh.run(2.0)
    assert len(mesh.requests("A", QosReport)) == before
