"""The forms in which a graph is answered: JSON, adjacency list and matrix (M13), networkx' node-link, dot and Mermaid.

With a root each form shows the tree as its chunks run, away from that source.
"""

import json
from collections.abc import Callable
from typing import Any, Final

import networkx as nx
from pydantic import Field

from common.fields import Name
from common.graph import AcyclicGraph
from common.ids import DeviceId
from common.messages import GraphBody, Message

DOT: Final = "text/vnd.graphviz"
MERMAID: Final = "text/vnd.mermaid"
JSON: Final = "application/json"


class Component(Message):
    """Devices that a tree connects."""

    name: Name = Field(description="its first device")
    devices: tuple[Name, ...]


class _OneTree(Message):
    """What the forms of one tree share."""

    epoch: int
    objective: Name
    root: Name | None = Field(
        None, description="the source from which the edges lead away; null: edges have no direction"
    )
    components: tuple[Component, ...]


class AdjacencyList(_OneTree):
    """A tree as each device with its neighbours, or with its children if there is a root (M13)."""

    adjacency: dict[Name, tuple[Name, ...]]


class AdjacencyMatrix(_OneTree):
    """A tree as a matrix of 0 and 1; with a root, rows lead to columns (M13)."""

    devices: tuple[Name, ...]
    matrix: tuple[tuple[int, ...], ...]


class NodeLinkGraph(Message):
    """What networkx keeps of the graph as a whole."""

    epoch: int
    objective: Name


class NodeLinkNode(Message):
    """One device."""

    id: Name


class NodeLinkEdge(Message):
    """One edge; with a root it leads from source to target."""

    source: Name
    target: Name


class NodeLink(Message):
    """A tree in networkx' own JSON form; ``networkx.node_link_graph(…, edges="edges")`` reads it."""

    directed: bool
    multigraph: bool
    graph: NodeLinkGraph
    nodes: tuple[NodeLinkNode, ...]
    edges: tuple[NodeLinkEdge, ...]


class Oriented(_OneTree):
    """A tree as its chunks run from a source."""

    children: dict[Name, tuple[Name, ...]] = Field(description="each device that chunks reach, with those it sends to")
    unreachable: tuple[Name, ...] = Field(description="devices that no chunk from the root reaches")


def as_json(graph: AcyclicGraph, tree: int | None, root: DeviceId | None) -> str:
    """Write the whole graph, one tree of it, or one tree as seen from a root.

    Args:
        graph: the graph.
        tree: the tree's index; None for all of them.
        root: the source; then it is one tree, the first by default.
    """
    if root is None:
        shown = graph if tree is None else AcyclicGraph(graph.epoch, graph.devices, (graph.trees[tree],))
        return GraphBody.from_graph(shown, components=True).model_dump_json()
    index = tree or 0
    children = graph.oriented(root, index)
    return Oriented(
        epoch=graph.epoch,
        objective=graph.trees[index].objective,
        root=root,
        components=_components(graph, index),
        children=children,
        unreachable=tuple(device for device in graph.devices if device not in children),
    ).model_dump_json()


def as_list(graph: AcyclicGraph, tree: int | None, root: DeviceId | None) -> str:
    """Write one tree as an adjacency list."""
    index = tree or 0
    return AdjacencyList(
        epoch=graph.epoch,
        objective=graph.trees[index].objective,
        root=root,
        components=_components(graph, index),
        adjacency=_directed(graph, index, root),
    ).model_dump_json()


def as_matrix(graph: AcyclicGraph, tree: int | None, root: DeviceId | None) -> str:
    """Write one tree as an adjacency matrix."""
    index = tree or 0
    devices, rows = graph.adjacency_matrix(index)
    if root is not None:
        directed = _directed(graph, index, root)
        rows = tuple(tuple(int(peer in directed[device]) for peer in devices) for device in devices)
    return AdjacencyMatrix(
        epoch=graph.epoch,
        objective=graph.trees[index].objective,
        root=root,
        components=_components(graph, index),
        devices=devices,
        matrix=rows,
    ).model_dump_json()


def as_dot(graph: AcyclicGraph, tree: int | None, root: DeviceId | None) -> str:
    """Write one tree for Graphviz, each component as a cluster."""
    index = tree or 0
    lines = [f'digraph "epoch {graph.epoch}" {{' if root else f'graph "epoch {graph.epoch}" {{']
    for number, component in enumerate(_components(graph, index)):
        lines.append(f'  subgraph "cluster_{number}" {{ label="{component.name}";')
        lines += [f'    "{device}";' for device in component.devices]
        lines.append("  }")
    arrow = "->" if root else "--"
    lines += [f'  "{a}" {arrow} "{b}";' for a, b in _edges(graph, index, root)]
    return "\n".join([*lines, "}"]) + "\n"


def as_mermaid(graph: AcyclicGraph, tree: int | None, root: DeviceId | None) -> str:
    """Write one tree for Mermaid, each component as a subgraph; nodes are numbered, as ids may hold dots."""
    index = tree or 0
    nodes = {device: f"n{number}" for number, device in enumerate(graph.devices)}
    lines = ["graph TD" if root else "graph LR"]
    for number, component in enumerate(_components(graph, index)):
        lines.append(f'  subgraph c{number}["{component.name}"]')
        lines += [f'    {nodes[device]}["{device}"]' for device in component.devices]
        lines.append("  end")
    arrow = "-->" if root else "---"
    lines += [f"  {nodes[a]} {arrow} {nodes[b]}" for a, b in _edges(graph, index, root)]
    return "\n".join(lines) + "\n"


def to_networkx(graph: AcyclicGraph, tree: int, root: DeviceId | None) -> "nx.Graph[DeviceId]":
    """Return one tree as networkx models it: every device a node, directed away from the root if there is one."""
    model: nx.Graph[DeviceId] = nx.DiGraph() if root else nx.Graph()
    model.graph.update(epoch=graph.epoch, objective=graph.trees[tree].objective)
    model.add_nodes_from(graph.devices)
    model.add_edges_from(_edges(graph, tree, root))
    return model


def as_node_link(graph: AcyclicGraph, tree: int | None, root: DeviceId | None) -> str:
    """Write one tree in networkx' own JSON form; ``networkx.node_link_graph(…, edges="edges")`` reads it."""
    data: dict[str, Any] = nx.node_link_data(to_networkx(graph, tree or 0, root), edges="edges")
    return json.dumps(data, separators=(",", ":"))


Writer = Callable[[AcyclicGraph, int | None, DeviceId | None], str]
WRITERS: Final[dict[str, tuple[Writer, str]]] = {
    "json": (as_json, JSON),
    "list": (as_list, JSON),
    "matrix": (as_matrix, JSON),
    "node-link": (as_node_link, JSON),
    "dot": (as_dot, DOT),
    "mermaid": (as_mermaid, MERMAID),
}


def _components(graph: AcyclicGraph, tree: int) -> tuple[Component, ...]:
    return tuple(Component(name=devices[0], devices=devices) for devices in graph.components(tree))


def _directed(graph: AcyclicGraph, tree: int, root: DeviceId | None) -> dict[DeviceId, tuple[DeviceId, ...]]:
    """Give each device's neighbours; with a root its children, none where no chunk comes."""
    if root is None:
        return graph.adjacency_list(tree)
    children = graph.oriented(root, tree)
    return {device: children.get(device, ()) for device in graph.devices}


def _edges(graph: AcyclicGraph, tree: int, root: DeviceId | None) -> list[tuple[DeviceId, DeviceId]]:
    if root is None:
        return list(graph.trees[tree].edges)
    return [(device, child) for device, children in graph.oriented(root, tree).items() for child in children]
