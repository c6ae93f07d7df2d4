from collections.abc import Callable

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError, LocalProtocolError, NoRoute, TopologyError
from common.graph import AcyclicGraph, Tree, decode_untrusted, find_leader, short_epoch
from common.ids import LinkKey
from common.limits import MAX_DEVICES_PER_GROUP, MAX_EPOCH, MAX_GRAPH_BYTES

SIX = AcyclicGraph(
    1_800_000_000_000_000,
    ("A", "B", "C", "D", "E", "F"),
    (Tree.of("throughput", [("B", "A"), ("A", "C"), ("E", "B"), ("C", "D"), ("D", "F")]),),
)


@st.composite
def forests(draw: st.DrawFn, devices: tuple[str, ...]) -> tuple[LinkKey, ...]:
    edges = []
    for number in range(1, len(devices)):
        parent = draw(st.integers(-1, number - 1))
        if parent >= 0:
            edges.append((devices[parent], devices[number]))
    return tuple(sorted(edges))


@st.composite
def graphs(draw: st.DrawFn) -> AcyclicGraph:
    names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
    devices = tuple(sorted(draw(st.sets(names, max_size=12))))
    objectives = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    trees = tuple(Tree(objective, draw(forests(devices))) for objective in objectives)
    return AcyclicGraph(draw(st.integers(0, MAX_EPOCH)), devices, trees)


def test_the_worked_example_s_next_hops_are_those_of_the_method() -> None:
    assert SIX.next_hops("A", None) == ("B", "C")
    assert SIX.next_hops("B", "A") == ("E",)
    assert SIX.next_hops("C", "A") == ("D",)
    assert SIX.next_hops("D", "C") == ("F",)
    assert SIX.next_hops("E", "B") == ()


def test_neighbours_are_sorted_and_a_stranger_has_none() -> None:
    assert SIX.neighbours("A") == ("B", "C")
    assert SIX.neighbours("D") == ("C", "F")
    assert SIX.neighbours("Z") == ()
    assert SIX.next_hops("Z", None) == ()


def test_a_root_orients_the_tree_in_the_order_in_which_chunks_arrive() -> None:
    children = SIX.oriented("A")
    assert list(children) == ["A", "B", "C", "E", "D", "F"]
    assert children == {"A": ("B", "C"), "B": ("E",), "C": ("D",), "D": ("F",), "E": (), "F": ()}


def test_components_are_named_by_their_first_device_and_list_lone_devices() -> None:
    forest = AcyclicGraph(1, ("A", "B", "C", "D"), (Tree.of("throughput", [("B", "D")]),))
    assert forest.components() == (("A",), ("B", "D"), ("C",))
    assert forest.oriented("D") == {"D": ("B",), "B": ()}


def test_a_tree_is_found_by_its_objective_and_the_first_serves_the_rest() -> None:
    two = AcyclicGraph(1, ("A", "B"), (Tree("throughput", ()), Tree.of("latency", [("A", "B")])))
    assert two.tree_for("latency") == 1
    assert two.tree_for("balanced") == 0
    assert two.neighbours("A", 1) == ("B",)


def ask_neighbours(tree: int) -> object:
    return SIX.neighbours("A", tree)


def ask_next_hops(tree: int) -> object:
    return SIX.next_hops("A", None, tree)


@pytest.mark.parametrize("tree", [-1, 1, 15])
@pytest.mark.parametrize(
    "ask", [ask_neighbours, ask_next_hops, SIX.components, SIX.adjacency_list, SIX.adjacency_matrix]
)
def test_a_tree_that_is_not_there_is_no_route(tree: int, ask: Callable[[int], object]) -> None:
    with pytest.raises(NoRoute, match="none at index"):
        ask(tree)


def test_a_root_that_is_not_there_is_no_route() -> None:
    with pytest.raises(NoRoute, match="'Z'"):
        SIX.oriented("Z")


@pytest.mark.parametrize(
    ("epoch", "devices", "trees", "message"),
    [
        (-1, (), (Tree("t", ()),), "epoch"),
        (MAX_EPOCH + 1, (), (Tree("t", ()),), "epoch"),
        (1, tuple(f"d{n:05}" for n in range(MAX_DEVICES_PER_GROUP + 1)), (Tree("t", ()),), "at most 10000"),
        (1, (), (), "0 trees"),
        (1, (), tuple(Tree(f"t{n}", ()) for n in range(17)), "17 trees"),
        (1, ("B", "A"), (Tree("t", ()),), "devices are not sorted"),
        (1, ("A", "A"), (Tree("t", ()),), "stands twice"),
        (1, ("A!",), (Tree("t", ()),), "cannot name a device"),
        (1, (), (Tree("t", ()), Tree("t", ())), "one objective"),
        (1, (), (Tree("t t", ()),), "cannot name an objective"),
        (1, ("A", "B"), (Tree("t", (("A", "Z"),)),), "leaves the devices"),
        (1, ("B", "C"), (Tree("t", (("A", "B"),)),), "leaves the devices"),
        (1, ("A", "B"), (Tree("t", (("B", "A"),)),), "not in order"),
        (1, ("A", "B"), (Tree("t", (("A", "A"),)),), "not in order"),
        (1, ("A", "B", "C"), (Tree("t", (("A", "C"), ("A", "B"))),), "edges are not sorted"),
        (1, ("A", "B", "C"), (Tree("t", (("A", "B"), ("A", "C"), ("B", "C"))),), "closes a cycle"),
    ],
)
def test_a_graph_that_does_not_hold_together_is_refused(
    epoch: int, devices: tuple[str, ...], trees: tuple[Tree, ...], message: str
) -> None:
    with pytest.raises(TopologyError, match=message):
        AcyclicGraph(epoch, devices, trees)


@given(graphs())
def test_M13_a_tree_survives_the_adjacency_list(graph: AcyclicGraph) -> None:
    tree = graph.trees[0]
    again = AcyclicGraph.from_adjacency_list(graph.epoch, graph.adjacency_list(), tree.objective)
    assert again == AcyclicGraph(graph.epoch, graph.devices, (tree,))


@given(graphs())
def test_M13_a_tree_survives_the_adjacency_matrix(graph: AcyclicGraph) -> None:
    tree = graph.trees[0]
    devices, rows = graph.adjacency_matrix()
    assert all(rows[a][b] == rows[b][a] for a in range(len(devices)) for b in range(len(devices)))
    again = AcyclicGraph.from_adjacency_matrix(graph.epoch, devices, rows, tree.objective)
    assert again == AcyclicGraph(graph.epoch, graph.devices, (tree,))


@pytest.mark.parametrize(
    ("devices", "rows", "message"),
    [
        (["A", "B"], [[0, 1]], "not 2 by 2"),
        (["A", "B"], [[0], [1, 0]], "not 2 by 2"),
        (["A", "B"], [[0, 2], [2, 0]], "other than 0 and 1"),
        (["A", "B"], [[0, 1], [0, 0]], "does not list"),
        (["A", "A"], [[0, 0], [0, 0]], "names a device twice"),
    ],
)
def test_M13_a_matrix_that_is_no_tree_is_refused(devices: list[str], rows: list[list[int]], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        AcyclicGraph.from_adjacency_matrix(1, devices, rows)


@given(graphs())
def test_components_and_roots_agree_with_networkx(graph: AcyclicGraph) -> None:
    model: nx.Graph[str] = nx.Graph()
    model.add_nodes_from(graph.devices)
    model.add_edges_from(graph.trees[-1].edges)
    index = len(graph.trees) - 1
    assert graph.components(index) == tuple(sorted(tuple(sorted(found)) for found in nx.connected_components(model)))
    for device in graph.devices:
        assert set(graph.oriented(device, index)) == nx.node_connected_component(model, device)
        assert set(graph.neighbours(device, index)) == set(model[device])


@given(graphs())
def test_the_binary_form_round_trips(graph: AcyclicGraph) -> None:
    assert decode_untrusted(graph.encode()) == graph


def test_the_binary_form_is_compact() -> None:
    assert len(SIX.encode()) == 45


def test_a_graph_too_large_for_its_binary_form_is_refused() -> None:
    devices = tuple(f"{number:060}" for number in range(1_200))
    with pytest.raises(LocalProtocolError, match="at most"):
        AcyclicGraph(1, devices, (Tree("throughput", ()),)).encode()


def test_every_truncated_prefix_is_a_decode_error() -> None:
    data = SIX.encode()
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            decode_untrusted(data[:length])


@given(st.binary(max_size=200))
def test_random_bytes_are_a_decode_error_or_a_graph(data: bytes) -> None:
    try:
        graph = decode_untrusted(data)
    except DecodeError:
        return
    assert graph.encode() == data


@given(st.data())
def test_a_flipped_byte_is_a_decode_error_or_another_graph(data: st.DataObject) -> None:
    raw = bytearray(SIX.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        graph = decode_untrusted(bytes(raw))
    except DecodeError:
        return
    assert graph.encode() == bytes(raw)
    assert graph != SIX


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02", "unknown version"),
        (b"\x01\x80\x00\x00\x01\x01t\x00", "shortest form"),
        (b"\x01" + b"\xff" * 8, "too long"),
        (b"\x01\x00\xff\xff\x03", "at most 10000"),
        (b"\x01\x00\x01\x01\xff\x01\x01t\x00", "not ASCII"),
        (b"\x01\x00\x01\x05A", "too early"),
        (b"\x01\x00\x01\x01A\x01\x01t\x01\x00\x01", "leaves the devices"),
        (b"\x01\x00\x00\x01\x01t\x00!", "left over"),
        (b"\x01\x00\x01\x01A\x01\x01t\x01\x00\x00", "not in order"),
        (bytes(MAX_GRAPH_BYTES + 1), "at most 65536"),
    ],
)
def test_a_mistake_in_the_binary_form_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_untrusted(data)


def test_the_short_form_of_an_epoch_is_its_low_32_bits() -> None:
    assert short_epoch(0x1_2345_6789) == 0x2345_6789


def test_a_leader_is_found_through_a_chain() -> None:
    leaders = {"A": "A", "B": "A", "C": "B", "D": "C"}
    assert find_leader(leaders, "D") == "A"
    assert leaders["D"] == "B"
