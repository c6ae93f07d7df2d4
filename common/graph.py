"""The distribution graph: one tree (or forest) per objective, over the devices of a group, under one epoch.

It is immutable. It can be written as an adjacency list or an adjacency matrix (M13) and in a compact binary form:

    version (1 byte = 1), epoch, device count, devices (length byte, ASCII), tree count,
    per tree: objective (length byte, ASCII), edge count, edges

where counts and the epoch are varints (7 bits a byte, low bits first, shortest form only), and an edge is the index
of its first device, written as the difference from the edge before, and the index of its second, written as the
difference from its first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self, TypeVar

from common.errors import DecodeError, LocalProtocolError, NoRoute, TopologyError
from common.ids import DeviceId, LinkKey, is_id, link_key
from common.limits import MAX_DEVICES_PER_GROUP, MAX_EPOCH, MAX_GRAPH_BYTES, MAX_TREES

_FORMAT_VERSION = 1
_VARINT_BYTES_MAX = 8
_Sortable = TypeVar("_Sortable", DeviceId, LinkKey)


def short_epoch(epoch: int) -> int:
    """Return the epoch's form on the wire: its low 32 bits."""
    return epoch & 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Tree:
    """The edges that serve one objective.

    Attributes:
        objective: what the tree is best at, such as "throughput".
        edges: sorted; each with its devices sorted.
    """

    objective: str
    edges: tuple[LinkKey, ...]

    @classmethod
    def of(cls, objective: str, edges: Iterable[LinkKey]) -> Self:
        """Make a tree from edges in any order and either direction."""
        return cls(objective, tuple(sorted(link_key(a, b) for a, b in edges)))


@dataclass(frozen=True)
class AcyclicGraph:
    """Who passes data on to whom, at one epoch.

    Attributes:
        epoch: the graph's version; it only grows.
        devices: every device of the group, sorted, reachable or not.
        trees: one per objective in use, 1 to 16; a hop header names a tree by its index here.

    Raises:
        TopologyError: a tree has a cycle, an edge leaves the devices, or something is not sorted.
    """

    epoch: int
    devices: tuple[DeviceId, ...]
    trees: tuple[Tree, ...]
    _neighbours: tuple[dict[DeviceId, tuple[DeviceId, ...]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that the graph holds together, and index it."""
        if not 0 <= self.epoch <= MAX_EPOCH:
            raise TopologyError(f"epoch {self.epoch} is not between 0 and {MAX_EPOCH}")
        if len(self.devices) > MAX_DEVICES_PER_GROUP:
            raise TopologyError(f"{len(self.devices)} devices; at most {MAX_DEVICES_PER_GROUP} are allowed")
        if not 1 <= len(self.trees) <= MAX_TREES:
            raise TopologyError(f"{len(self.trees)} trees; 1 to {MAX_TREES} are allowed")
        _check_sorted(self.devices, "devices")
        for device in self.devices:
            if not is_id(device):
                raise TopologyError(f"{device[:80]!r} cannot name a device")
        objectives = [tree.objective for tree in self.trees]
        if len(dict.fromkeys(objectives)) != len(objectives):
            raise TopologyError("two trees serve one objective")
        object.__setattr__(self, "_neighbours", tuple(_index(self.devices, tree) for tree in self.trees))

    def neighbours(self, device: DeviceId, tree: int = 0) -> tuple[DeviceId, ...]:
        """List the devices adjacent to a device in a tree, sorted.

        Args:
            device: whose neighbours; a device that the graph does not know has none.
            tree: the tree's index.

        Raises:
            NoRoute: there is no such tree.
        """
        return self._tree(tree).get(device, ())

    def next_hops(self, device: DeviceId, previous: DeviceId | None, tree: int = 0) -> tuple[DeviceId, ...]:
        """List to whom a device passes a chunk on: its neighbours minus the previous hop (M8).

        Args:
            device: the device that holds the chunk.
            previous: from whom it came; None at the source.
            tree: the tree's index.

        Raises:
            NoRoute: there is no such tree.
        """
        return tuple(peer for peer in self._tree(tree).get(device, ()) if peer != previous)

    def oriented(self, root: DeviceId, tree: int = 0) -> dict[DeviceId, tuple[DeviceId, ...]]:
        """Direct a tree away from a root: the paths that a source's chunks take.

        Args:
            root: the source.
            tree: the tree's index.

        Returns:
            Each device of the root's component with its children, in the order in which chunks reach them.

        Raises:
            NoRoute: there is no such tree or no such device.
        """
        adjacency = self._tree(tree)
        if root not in adjacency:
            raise NoRoute(f"device {root!r} is not in the graph of epoch {self.epoch}")
        parents: dict[DeviceId, DeviceId | None] = {root: None}
        children: dict[DeviceId, tuple[DeviceId, ...]] = {}
        queue = [root]
        for device in queue:
            children[device] = tuple(peer for peer in adjacency[device] if peer != parents[device])
            for child in children[device]:
                parents[child] = device
                queue.append(child)
        return children

    def components(self, tree: int = 0) -> tuple[tuple[DeviceId, ...], ...]:
        """List the connected components, each sorted; a component is named by its first device.

        Raises:
            NoRoute: there is no such tree.
        """
        self._tree(tree)
        seen: dict[DeviceId, None] = {}
        found = []
        for device in self.devices:
            if device not in seen:
                component = tuple(sorted(self.oriented(device, tree)))
                seen.update(dict.fromkeys(component))
                found.append(component)
        return tuple(found)

    def tree_for(self, objective: str) -> int:
        """Return the index of the tree that serves an objective; 0 where none does."""
        for index, tree in enumerate(self.trees):
            if tree.objective == objective:
                return index
        return 0

    def adjacency_list(self, tree: int = 0) -> dict[DeviceId, tuple[DeviceId, ...]]:
        """Write a tree as each device with its neighbours (M13).

        Raises:
            NoRoute: there is no such tree.
        """
        return dict(self._tree(tree))

    def adjacency_matrix(self, tree: int = 0) -> tuple[tuple[DeviceId, ...], tuple[tuple[int, ...], ...]]:
        """Write a tree as a symmetric matrix of 0 and 1 (M13).

        Returns:
            The devices in the order of rows and columns, and the rows.

        Raises:
            NoRoute: there is no such tree.
        """
        adjacency = self._tree(tree)
        columns = {device: column for column, device in enumerate(self.devices)}
        rows = []
        for device in self.devices:
            row = [0] * len(self.devices)
            for peer in adjacency[device]:
                row[columns[peer]] = 1
            rows.append(tuple(row))
        return self.devices, tuple(rows)

    @classmethod
    def from_adjacency_list(
        cls, epoch: int, adjacency: Mapping[DeviceId, Sequence[DeviceId]], objective: str = "throughput"
    ) -> Self:
        """Make a graph of one tree from each device with its neighbours (M13).

        Raises:
            TopologyError: the list is not symmetric, or not a tree or forest.
        """
        edges: dict[LinkKey, None] = {}
        for device, peers in adjacency.items():
            for peer in peers:
                if device not in adjacency.get(peer, ()):
                    raise TopologyError(f"{device} lists {peer}, but {peer} does not list {device}")
                edges[link_key(device, peer)] = None
        return cls(epoch, tuple(sorted(adjacency)), (Tree.of(objective, edges),))

    @classmethod
    def from_adjacency_matrix(
        cls,
        epoch: int,
        devices: Sequence[DeviceId],
        rows: Sequence[Sequence[int]],
        objective: str = "throughput",
    ) -> Self:
        """Make a graph of one tree from a symmetric matrix of 0 and 1 (M13).

        Args:
            epoch: the graph's epoch.
            devices: the order of rows and columns.
            rows: len(devices) rows of len(devices) entries.
            objective: what the tree is best at.

        Raises:
            TopologyError: the matrix is not square, not symmetric, not of 0 and 1, or not a tree or forest.
        """
        if len(rows) != len(devices) or any(len(row) != len(devices) for row in rows):
            raise TopologyError(f"the matrix is not {len(devices)} by {len(devices)}")
        if any(entry not in (0, 1) for row in rows for entry in row):
            raise TopologyError("the matrix has entries other than 0 and 1")
        adjacency = {
            device: [peer for peer, entry in zip(devices, row, strict=True) if entry]
            for device, row in zip(devices, rows, strict=True)
        }
        if len(adjacency) != len(devices):
            raise TopologyError("the matrix names a device twice")
        return cls.from_adjacency_list(epoch, adjacency, objective)

    def encode(self) -> bytes:
        """Write the compact binary form.

        Raises:
            LocalProtocolError: it would be longer than MAX_GRAPH_BYTES.
        """
        columns = {device: column for column, device in enumerate(self.devices)}
        out = bytearray([_FORMAT_VERSION])
        out += _varint(self.epoch) + _varint(len(self.devices))
        for device in self.devices:
            out += _text(device)
        out += _varint(len(self.trees))
        for tree in self.trees:
            out += _text(tree.objective) + _varint(len(tree.edges))
            previous = 0
            for a, b in tree.edges:
                out += _varint(columns[a] - previous) + _varint(columns[b] - columns[a])
                previous = columns[a]
        if len(out) > MAX_GRAPH_BYTES:
            raise LocalProtocolError(f"the graph takes {len(out)} bytes; at most {MAX_GRAPH_BYTES} are allowed")
        return bytes(out)

    def _tree(self, tree: int) -> dict[DeviceId, tuple[DeviceId, ...]]:
        if not 0 <= tree < len(self._neighbours):
            raise NoRoute(f"the graph of epoch {self.epoch} has {len(self._neighbours)} trees, none at index {tree}")
        return self._neighbours[tree]


def decode_untrusted(data: bytes) -> AcyclicGraph:
    """Read the compact binary form of a graph.

    Raises:
        DecodeError: whatever is wrong with the bytes.
    """
    if len(data) > MAX_GRAPH_BYTES:
        raise DecodeError(f"a graph of {len(data)} bytes; at most {MAX_GRAPH_BYTES} are allowed")
    reader = _Reader(data)
    if reader.byte() != _FORMAT_VERSION:
        raise DecodeError("unknown version of the graph's binary form")
    epoch = reader.varint()
    devices = tuple(reader.text() for _ in range(reader.count(MAX_DEVICES_PER_GROUP)))
    trees = tuple(_decode_tree(reader, devices) for _ in range(reader.count(MAX_TREES)))
    reader.end()
    try:
        return AcyclicGraph(epoch, devices, trees)
    except TopologyError as error:
        raise DecodeError(str(error)) from error


def _decode_tree(reader: "_Reader", devices: tuple[DeviceId, ...]) -> Tree:
    objective = reader.text()
    edges = []
    first = 0
    for _ in range(reader.count(len(devices))):
        first += reader.varint()
        second = first + reader.varint()
        if second >= len(devices):
            raise DecodeError("an edge leaves the devices")
        edges.append((devices[first], devices[second]))
    return Tree(objective, tuple(edges))


def _index(devices: tuple[DeviceId, ...], tree: Tree) -> dict[DeviceId, tuple[DeviceId, ...]]:
    """Check one tree and list each device's neighbours."""
    if not is_id(tree.objective):
        raise TopologyError(f"{tree.objective[:80]!r} cannot name an objective")
    _check_sorted(tree.edges, "edges")
    peers: dict[DeviceId, list[DeviceId]] = {device: [] for device in devices}
    leaders = {device: device for device in devices}
    for a, b in tree.edges:
        if a not in peers or b not in peers:
            raise TopologyError(f"the edge {a}-{b} leaves the devices")
        if a >= b:
            raise TopologyError(f"the edge {a}-{b} is not in order")
        leader_a, leader_b = find_leader(leaders, a), find_leader(leaders, b)
        if leader_a == leader_b:
            raise TopologyError(f"the edge {a}-{b} closes a cycle")
        leaders[leader_b] = leader_a
        peers[a].append(b)
        peers[b].append(a)
    return {device: tuple(sorted(found)) for device, found in peers.items()}


def find_leader(leaders: dict[DeviceId, DeviceId], device: DeviceId) -> DeviceId:
    """Find the device that leads a device's set, halving the path on the way (union-find).

    Args:
        leaders: each device's next device on the way to its leader; a leader names itself. Changed in place.
        device: whose leader.
    """
    while leaders[device] != device:
        leaders[device] = leaders[leaders[device]]
        device = leaders[device]
    return device


def _check_sorted(entries: Sequence[_Sortable], what: str) -> None:
    if any(first >= second for first, second in pairwise(entries)):
        raise TopologyError(f"{what} are not sorted, or one stands twice")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")


class _Reader:
    """Reads bytes from outside; raises only DecodeError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise DecodeError("the graph ends too early")
        self._at += 1
        return self._data[self._at - 1]

    def varint(self) -> int:
        number = 0
        for position in range(_VARINT_BYTES_MAX):
            byte = self.byte()
            number |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                if byte == 0 and position:
                    raise DecodeError("a number is not in its shortest form")
                return number
        raise DecodeError("a number is too long")

    def count(self, most: int) -> int:
        number = self.varint()
        if number > most:
            raise DecodeError(f"a count of {number}; at most {most} are allowed")
        return number

    def text(self) -> str:
        length = self.byte()
        raw = self._data[self._at : self._at + length]
        if len(raw) != length:
            raise DecodeError("the graph ends too early")
        self._at += length
        try:
            return raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise DecodeError("a name is not ASCII") from error

    def end(self) -> None:
        if self._at != len(self._data):
            raise DecodeError("bytes are left over after the graph")
