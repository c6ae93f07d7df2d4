"""Who is near: a stream's neighbours in its current graph, and each peer's place in a stream."""

from agent.core.link import LinkState
from agent.core.neighbourhood import Neighbourhood
from common.graph import AcyclicGraph, Tree
from common.graph_frames import LostEdges
from common.messages import ChannelSpec, GraphBody, GraphUpdate
from tests.harness.mesh import FILES, Mesh, data

EMBEDDED = ChannelSpec(name="messages", kind="message", routing="embedded")


def of(mesh: Mesh, name: str) -> Neighbourhood:
    return mesh.node(name)._upkeep._neighbourhood


def peers(mesh: Mesh, name: str, stream: str) -> list[str]:
    return [hop.peer for hop in of(mesh, name).hops_of(mesh.stream(name, stream))]


def test_a_stream_has_no_neighbours_before_there_is_a_graph() -> None:
    mesh = Mesh("A-B", edges=None).linked()
    stream = mesh.send_file("A", b"")
    assert peers(mesh, "A", stream) == []


def test_a_streams_neighbours_are_those_of_its_tree_over_open_links() -> None:
    mesh = Mesh("A-B A-C A-D B-C", edges="A-B A-C A-D", absent="D").linked()
    stream = mesh.send_file("A", b"")
    assert peers(mesh, "A", stream) == ["B", "C"]


def test_a_stream_that_is_not_distributed_has_its_source_alone_for_a_neighbour() -> None:
    mesh = Mesh("A-B B-C", channels=(FILES.model_copy(update={"distribute": False}),)).linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert peers(mesh, "B", stream) == ["A"]
    assert peers(mesh, "A", stream) == ["B"]


def up(mesh: Mesh, name: str, stream: str) -> list[str]:
    return [hop.peer for hop in of(mesh, name).towards_source(mesh.stream(name, stream))]


def test_where_the_whole_graph_is_known_one_hop_leads_to_the_source() -> None:
    mesh = Mesh("A-B B-C B-D C-D", edges="A-B B-C B-D").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    assert [up(mesh, name, stream) for name in "BCD"] == [["A"], ["B"], ["B"]]
    mesh.plan("A-B B-D C-D")
    assert [up(mesh, name, stream) for name in "BCD"] == [["A"], ["D"], ["B"]]


def test_where_only_neighbours_are_known_all_of_them_may_lead_to_the_source_but_the_source_alone_if_it_is_one() -> None:
    mesh = Mesh("A-B B-C C-D", scopes=dict.fromkeys("ABCD", "neighbours")).linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    assert [up(mesh, name, stream) for name in "BCD"] == [["A"], ["B", "D"], ["C"]]


def test_no_hop_leads_to_a_source_that_the_graph_does_not_reach_and_all_may_if_it_does_not_know_it() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.plan("B-C")
    assert up(mesh, "C", stream) == []
    without = AcyclicGraph(mesh.plan("B-C", to=()), ("B", "C"), (Tree("throughput", (("B", "C"),)),))
    mesh.control("C", GraphUpdate(graph=GraphBody.from_graph(without)))
    assert up(mesh, "C", stream) == ["B"]


def test_a_peer_has_one_place_in_a_stream_and_learns_its_opening_once() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    near, hop, there = of(mesh, "A"), mesh.hop("A", "B"), mesh.stream("A", stream)
    cursor = near.cursor(hop, there)
    assert near.cursor(hop, there) is cursor
    assert near.introduce(hop, there, None) is cursor
    assert cursor.opening_sent
    before = len(hop.frames.reliable)
    near.introduce(hop, there, mesh.node("A").table.current)
    assert len(hop.frames.reliable) == before


def test_an_embedded_graph_is_sent_once_and_only_if_it_is_there() -> None:
    mesh = Mesh("A-B", channels=(EMBEDDED,)).linked()
    stream, _ = mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("B") == [b"hello"])
    near, hop, there = of(mesh, "A"), mesh.hop("A", "B"), mesh.stream("A", stream)
    epoch = there.graphs.epoch or 0
    assert near.table_of(there) is there.graphs
    assert epoch in near.cursor(hop, there).graphs_sent
    before = len(hop.frames.reliable)
    near.send_graph(hop, there, epoch)
    near.send_graph(hop, there, epoch + 1)
    assert len(hop.frames.reliable) == before
    assert epoch + 1 not in near.cursor(hop, there).graphs_sent


def test_a_peer_over_a_silent_link_is_a_neighbour_that_nothing_is_sent_to() -> None:
    mesh = Mesh("A-B A-C", edges="A-B A-C").linked()
    stream = mesh.send_file("A", data(10))
    mesh.cut.add(("A", "C"))
    mesh.until(lambda: mesh.node("A").peers.links["C"].state is LinkState.SUSPECT)
    assert of(mesh, "A").speaking("C") is None
    assert peers(mesh, "A", stream) == ["B"]
    assert of(mesh, "A").peers_of(mesh.stream("A", stream)) == ("B", "C")


def reach(mesh: Mesh, name: str, stream: str) -> list[str]:
    return [hop.peer for hop in of(mesh, name).reach_of(mesh.stream(name, stream))]


def test_while_an_edge_is_lost_a_stream_reaches_over_every_open_link_the_trees_first() -> None:
    mesh = Mesh("A-B A-C A-D B-C B-D", edges="A-D A-C B-D").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    assert reach(mesh, "A", stream) == ["C", "D"]
    mesh.say("D", "A", LostEdges("D", 1, mesh.node("A").table.epoch or 0, ("B",)))
    assert reach(mesh, "A", stream) == ["C", "D", "B"]
    there = mesh.stream("A", stream)
    assert of(mesh, "A").bridged(there)
    assert not of(mesh, "A").cut_off(there), "the lost edge is not its own"
    assert up(mesh, "A", stream) == ["C", "D", "B"], "nobody knows which way leads to a source"
    mesh.plan("A-D A-C B-C")
    assert reach(mesh, "A", stream) == ["C", "D"]


def test_a_stream_that_is_not_distributed_reaches_no_further_for_a_lost_edge() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B B-C", channels=(FILES.model_copy(update={"distribute": False}),)).linked()
    stream = mesh.send_file("A", data(10))
    mesh.say("B", "A", LostEdges("B", 1, mesh.node("A").table.epoch or 0, ("C",)))
    assert reach(mesh, "A", stream) == ["B"]


def test_who_has_lost_an_edge_of_its_own_is_cut_off() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.lose_server()
    mesh.cut.add(("A", "C"))
    mesh.run(3.0)
    assert [of(mesh, name).cut_off(mesh.stream(name, stream)) for name in "ABC"] == [True, False, True]
