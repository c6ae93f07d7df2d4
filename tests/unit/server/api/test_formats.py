import json

import networkx as nx

from common.graph import AcyclicGraph, Tree
from server.api.formats import NodeLink, as_dot, as_json, as_list, as_matrix, as_mermaid, as_node_link

GRAPH = AcyclicGraph(
    7,
    ("A", "B", "C", "D.x-1"),
    (Tree.of("throughput", [("A", "B"), ("B", "C")]), Tree.of("latency", [("A", "C")])),
)
COMPONENTS = [{"name": "A", "devices": ["A", "B", "C"]}, {"name": "D.x-1", "devices": ["D.x-1"]}]


def test_json_shows_all_trees_or_one() -> None:
    whole = json.loads(as_json(GRAPH, None, None))
    assert [tree["objective"] for tree in whole["trees"]] == ["throughput", "latency"]
    assert whole["trees"][0]["components"] == [["A", "B", "C"], ["D.x-1"]]
    assert [tree["objective"] for tree in json.loads(as_json(GRAPH, 1, None))["trees"]] == ["latency"]


def test_json_with_a_root_shows_who_sends_to_whom_and_whom_nothing_reaches() -> None:
    assert json.loads(as_json(GRAPH, None, "C")) == {
        "epoch": 7,
        "objective": "throughput",
        "root": "C",
        "components": COMPONENTS,
        "children": {"C": ["B"], "B": ["A"], "A": []},
        "unreachable": ["D.x-1"],
    }


def test_M13_the_list_shows_neighbours_or_children() -> None:
    assert json.loads(as_list(GRAPH, None, None))["adjacency"] == {"A": ["B"], "B": ["A", "C"], "C": ["B"], "D.x-1": []}
    rooted = json.loads(as_list(GRAPH, 0, "C"))
    assert rooted["adjacency"] == {"A": [], "B": ["A"], "C": ["B"], "D.x-1": []}
    assert rooted["components"] == COMPONENTS


def test_M13_the_matrix_is_symmetric_or_leads_from_rows_to_columns() -> None:
    assert json.loads(as_matrix(GRAPH, None, None))["matrix"] == [
        [0, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    rooted = json.loads(as_matrix(GRAPH, 0, "C"))
    assert rooted["matrix"] == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert rooted["devices"] == ["A", "B", "C", "D.x-1"]


def test_M13_what_the_forms_say_can_be_read_back() -> None:
    found = json.loads(as_list(GRAPH, 0, None))
    again = AcyclicGraph.from_adjacency_list(found["epoch"], found["adjacency"])
    assert again.trees == GRAPH.trees[:1]
    found = json.loads(as_matrix(GRAPH, 0, None))
    assert AcyclicGraph.from_adjacency_matrix(found["epoch"], found["devices"], found["matrix"]) == again


def test_dot_draws_components_as_clusters() -> None:
    assert as_dot(GRAPH, None, None) == (
        'graph "epoch 7" {\n'
        '  subgraph "cluster_0" { label="A";\n    "A";\n    "B";\n    "C";\n  }\n'
        '  subgraph "cluster_1" { label="D.x-1";\n    "D.x-1";\n  }\n'
        '  "A" -- "B";\n  "B" -- "C";\n}\n'
    )
    assert '  "C" -> "B";\n  "B" -> "A";\n}\n' in as_dot(GRAPH, 0, "C")
    assert as_dot(GRAPH, 0, "C").startswith("digraph")


def test_mermaid_draws_numbered_nodes_in_subgraphs() -> None:
    assert as_mermaid(GRAPH, None, None) == (
        "graph LR\n"
        '  subgraph c0["A"]\n    n0["A"]\n    n1["B"]\n    n2["C"]\n  end\n'
        '  subgraph c1["D.x-1"]\n    n3["D.x-1"]\n  end\n'
        "  n0 --- n1\n  n1 --- n2\n"
    )
    assert as_mermaid(GRAPH, 0, "C").endswith("  n2 --> n1\n  n1 --> n0\n")


def test_node_link_is_what_networkx_reads_back_with_every_device_a_node() -> None:
    model = nx.node_link_graph(json.loads(as_node_link(GRAPH, None, None)), edges="edges")
    assert not model.is_directed()
    assert model.graph == {"epoch": 7, "objective": "throughput"}
    assert list(model.nodes) == ["A", "B", "C", "D.x-1"]
    assert sorted(map(sorted, model.edges)) == [["A", "B"], ["B", "C"]]
    assert nx.is_forest(model)


def test_node_link_is_as_the_document_describes_it() -> None:
    for root in (None, "C"):
        text = as_node_link(GRAPH, 0, root)
        assert NodeLink.model_validate_json(text).model_dump(mode="json") == json.loads(text)


def test_node_link_of_another_tree_or_from_a_root_says_so() -> None:
    latency = nx.node_link_graph(json.loads(as_node_link(GRAPH, 1, None)), edges="edges")
    assert (latency.graph["objective"], list(latency.edges)) == ("latency", [("A", "C")])
    rooted = nx.node_link_graph(json.loads(as_node_link(GRAPH, 0, "C")), edges="edges")
    assert rooted.is_directed()
    assert sorted(rooted.edges) == [("B", "A"), ("C", "B")]
    assert "D.x-1" in rooted
