import math
import random
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import LinkKey, link_key
from server.core import planner
from server.core.planner import Bias, WeighedLink, plan, plan_latency, plan_throughput
from tests.unit.server.harness import SIX, SIX_TREE


@st.composite
def meshes(draw: st.DrawFn, most: int = 12, values: st.SearchStrategy[float] | None = None) -> list[WeighedLink]:
    count = draw(st.integers(2, most))
    pairs = [(f"d{a:02}", f"d{b:02}") for a in range(count) for b in range(a + 1, count)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True))
    rates = values if values is not None else st.sampled_from([1e6, 5e6, 1e7, 1e8]) | st.floats(0, 1e9)
    return [WeighedLink(key, draw(rates), draw(st.sampled_from([0.0, 0.001, 0.02, 0.1]))) for key in chosen]


def model(links: list[WeighedLink]) -> "nx.Graph[str]":
    graph: nx.Graph[str] = nx.Graph()
    for link in links:
        graph.add_edge(*link.key, rate=link.rate_bps, delay=link.delay_s)
    return graph


def tree_of(links: list[WeighedLink], edges: tuple[LinkKey, ...]) -> "nx.Graph[str]":
    return model([link for link in links if link.key in edges])


def bottleneck(graph: "nx.Graph[str]", a: str, b: str) -> float:
    path = nx.shortest_path(graph, a, b)
    return min((float(graph[x][y]["rate"]) for x, y in pairwise(path)), default=math.inf)


def test_M3_the_worked_example_gives_the_tree_of_the_method() -> None:
    links = [WeighedLink(key, rate, 0.001) for key, rate in SIX.items()]
    assert plan("throughput", links) == SIX_TREE
    assert plan("balanced", links) == SIX_TREE


@given(meshes())
def test_M3_the_throughput_tree_spans_has_no_cycle_and_uses_reported_links_only(links: list[WeighedLink]) -> None:
    edges = plan_throughput(links)
    graph, tree = model(links), tree_of(links, edges)
    assert set(edges) <= {link.key for link in links}
    assert list(edges) == sorted(set(edges))
    assert not tree or nx.is_forest(tree)
    assert {frozenset(c) for c in nx.connected_components(tree)} == {
        frozenset(c) for c in nx.connected_components(graph)
    }


@given(meshes())
def test_the_throughput_tree_weighs_what_networkx_finds(links: list[WeighedLink]) -> None:
    best: nx.Graph[str] = nx.maximum_spanning_tree(model(links), weight="rate")
    total = math.fsum(link.rate_bps for link in links if link.key in plan_throughput(links))
    assert total == pytest.approx(math.fsum(rate for _, _, rate in best.edges(data="rate")))  # type: ignore[var-annotated]


@given(meshes(most=7))
def test_no_path_between_two_devices_is_wider_than_the_tree_s(links: list[WeighedLink]) -> None:
    graph, tree = model(links), tree_of(links, plan_throughput(links))
    for a in graph:
        for b in nx.node_connected_component(graph, a):
            for path in nx.all_simple_paths(graph, a, b) if a != b else ():
                width = min(float(graph[x][y]["rate"]) for x, y in pairwise(path))
                assert width <= bottleneck(tree, a, b)


@given(meshes(), st.integers(), st.sampled_from(["throughput", "latency"]))
def test_the_plan_is_the_same_for_shuffled_input(links: list[WeighedLink], seed: int, objective: str) -> None:
    shuffled = list(links)
    random.Random(seed).shuffle(shuffled)
    assert plan(objective, shuffled) == plan(objective, links)


def test_ties_in_rate_go_to_the_shorter_delay_and_then_to_the_first_ids() -> None:
    triangle = [WeighedLink(("A", "B"), 1e6, 0.2), WeighedLink(("A", "C"), 1e6, 0.1), WeighedLink(("B", "C"), 1e6, 0.1)]
    assert plan_throughput(triangle) == (("A", "C"), ("B", "C"))
    equal = [WeighedLink(key, 1e6, 0.1) for key in (("B", "C"), ("A", "C"), ("A", "B"))]
    assert plan_throughput(equal) == (("A", "B"), ("A", "C"))


def test_a_standing_edge_gives_way_only_beyond_both_margins() -> None:
    def choose(standing: float, candidate: float) -> bool:
        links = [
            WeighedLink(("A", "B"), 1e9, 0.0),
            WeighedLink(("A", "C"), standing, 0.0),
            WeighedLink(("B", "C"), candidate, 0.0),
        ]
        edges = plan_throughput(links, Bias({("A", "B"): None, ("A", "C"): None}))
        return ("B", "C") in edges

    assert not choose(100e6, 120e6)
    assert choose(100e6, 121e6)
    assert not choose(100e3, 200e3)  # twice as good, but by 100 kbit/s only
    assert choose(100e3, 201e3)


def test_a_pinned_edge_stays_whatever_the_candidates() -> None:
    links = [WeighedLink(("A", "B"), 1e3, 0.0), WeighedLink(("A", "C"), 1e9, 0.0), WeighedLink(("B", "C"), 1e9, 0.0)]
    assert plan_throughput(links, Bias(pinned={("A", "B"): None})) == (("A", "B"), ("A", "C"))


@given(meshes(values=st.floats(1e6, 1e9)), st.randoms(use_true_random=False))
def test_a_biased_tree_is_no_narrower_than_the_margin_allows(links: list[WeighedLink], rng: random.Random) -> None:
    before = [WeighedLink(link.key, rng.uniform(1e6, 1e9), link.delay_s) for link in links]
    standing = dict.fromkeys(plan_throughput(before))
    biased, best = tree_of(links, plan_throughput(links, Bias(standing))), tree_of(links, plan_throughput(links))
    for a in best:
        for b in nx.node_connected_component(best, a):
            if a != b:
                assert bottleneck(biased, a, b) * (1 + planner.RELATIVE_MARGIN) >= bottleneck(best, a, b) * (1 - 1e-9)


@given(meshes())
def test_the_latency_tree_holds_the_shortest_paths_from_the_delay_centre(links: list[WeighedLink]) -> None:
    edges = plan_latency(links)
    graph, tree = model(links), tree_of(links, edges)
    assert not tree or nx.is_forest(tree)
    for component in nx.connected_components(graph):
        part = graph.subgraph(component)
        delays = dict(nx.all_pairs_dijkstra_path_length(part, weight="delay"))
        radius = min(max(found.values()) for found in delays.values())
        own = dict(nx.all_pairs_dijkstra_path_length(tree.subgraph(component), weight="delay"))
        assert set(own) == set(component)
        assert min(max(found.values()) for found in own.values()) == pytest.approx(radius)


def test_the_latency_tree_of_a_ring_leads_from_the_device_in_the_middle() -> None:
    ring = [WeighedLink(link_key(f"d{n}", f"d{(n + 1) % 5}"), 1e6, 0.01 if n else 0.05) for n in range(5)]
    assert ("d0", "d1") not in plan_latency(ring)


def test_a_standing_latency_edge_needs_a_margin_too() -> None:
    links = [
        WeighedLink(("A", "B"), 1e6, 0.010),
        WeighedLink(("A", "C"), 1e6, 0.010),
        WeighedLink(("B", "C"), 1e6, 0.0195),
    ]
    assert plan_latency(links) == (("A", "B"), ("A", "C"))
    standing = {("A", "B"): None, ("B", "C"): None}
    links = [
        WeighedLink(("A", "B"), 1e6, 0.010),
        WeighedLink(("A", "C"), 1e6, 0.018),
        WeighedLink(("B", "C"), 1e6, 0.010),
    ]
    assert plan_latency(links, Bias(standing)) == (("A", "B"), ("B", "C"))


def test_a_negative_biased_delay_is_cut_at_zero() -> None:
    assert plan_latency([WeighedLink(("A", "B"), 1e6, 0.0001)], Bias({("A", "B"): None})) == (("A", "B"),)


@given(meshes(most=10))
def test_a_centre_found_by_sweeps_is_close_to_the_exact_one(links: list[WeighedLink]) -> None:
    graph = model(links)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "EXACT_CENTRE_DEVICES", 0)
        edges = plan_latency(links)
    tree = tree_of(links, edges)
    for component in nx.connected_components(graph):
        delays = dict(nx.all_pairs_dijkstra_path_length(graph.subgraph(component), weight="delay"))
        radius = min(max(found.values()) for found in delays.values())
        own = dict(nx.all_pairs_dijkstra_path_length(tree.subgraph(component), weight="delay"))
        assert min(max(found.values()) for found in own.values()) <= 2 * radius + 1e-9
