"""Nodes wired back to back in memory: no socket, no clock, and a hand on every datagram.

The simulator in lab/ runs whole scenarios with the server's own planner; here a test says itself which graph each
device knows, drops or forges single datagrams, and looks at what the core asked of the server.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.core.config import NodeConfig
from agent.core.events import (
    Address,
    ControlFailed,
    ControlRequest,
    Event,
    FileVerified,
    MessageReceived,
    OpenSocket,
    QueryGraph,
    QueryNeighbours,
)
from agent.core.hop import Hop
from agent.core.memory_store import BytesReader, MemoryStores
from agent.core.node import Node
from agent.core.policy import DeclaredQos
from agent.core.store import PieceReader
from agent.core.stream import Stream
from common.datagrams import (
    BOTH_HEADERS,
    CHUNK_OVERHEAD_BYTES,
    FLAG_END,
    FLAG_START,
    HOP_HEADER,
    PacketType,
    peek_chunk,
)
from common.fields import encode_key
from common.frames import Frame, encode_frame
from common.graph import AcyclicGraph, Tree
from common.ids import DeviceId, link_key
from common.messages import (
    Channels,
    ChannelSpec,
    GraphBody,
    GraphUpdate,
    NeighboursBody,
    NeighboursUpdate,
    Roster,
    RosterEntry,
    Subscribe,
)
from common.sealing import GroupKeys, Sealer, public_key_of
from common.signing import PURPOSE_MESSAGE, Signer, message_statement

GROUP = "lab"
GROUP_KEY = bytes(range(32))
DELAY_S = 0.001
WALL = 1_800_000_000.0
RATE_BPS = 50e6
START = 100.0
MICRO = 1e6
FIRST_EPOCH = int((WALL + START) * MICRO)
"""The epoch of the first graph: epochs follow the clock."""
PIECE_BYTES = 1200 - CHUNK_OVERHEAD_BYTES
MOST_STEPS = 2_000_000
FILES = ChannelSpec(name="files", kind="file")
MESSAGES = ChannelSpec(name="messages", kind="message")

_E = TypeVar("_E")


@dataclass
class Device:
    """One device of the mesh; its stores are its disk and outlive the node."""

    name: DeviceId
    config: NodeConfig
    stores: MemoryStores
    node: Node
    sockets: int = 1
    starts: int = 1
    up: bool = True
    connected: bool = False
    scope: str = ""
    events: list[Event] = field(default_factory=list)
    requests: list[ControlRequest] = field(default_factory=list)


@dataclass
class Crossing:
    """One datagram that a node sent."""

    at: float
    source: DeviceId
    target: DeviceId
    socket: int
    datagram: bytes

    @property
    def kind(self) -> int:
        """The type in its first byte."""
        return self.datagram[0] >> 4


class Mesh:
    """Some devices, the links between them, and as little of a server as they need.

    Args:
        links: the links, as "A-B B-C"; every other pair cannot reach each other.
        edges: the tree's edges, in the same form; None leaves the devices without a graph, "" means the links.
        channels: the group's channels.
        scopes: what a device subscribes to, where it is not the whole graph.
        stores: a device's disk, where it is not an empty one without a limit.
        seed: keys and all other chance follow from it.
        absent: devices that are not started yet.
        datagram_bytes: the largest that every device sends.
        rate_bps: what the devices are told of every link, None for nothing; nothing else slows them down.
    """

    def __init__(
        self,
        links: str,
        *,
        edges: str | None = "",
        channels: tuple[ChannelSpec, ...] = (FILES, MESSAGES),
        scopes: dict[DeviceId, str] | None = None,
        stores: dict[DeviceId, MemoryStores] | None = None,
        seed: int = 1,
        absent: str = "",
        datagram_bytes: int = 1200,
        rate_bps: float | None = RATE_BPS,
    ) -> None:
        self.now = START
        self.links = {link_key(*pair.split("-")) for pair in links.split()}
        self.cut: set[tuple[DeviceId, DeviceId]] = set()
        self.channels = channels
        self.crossings: list[Crossing] = []
        self.drop: Callable[[Crossing], bool] = lambda _: False
        """Asked about every datagram whether it gets lost."""
        self.serving = True
        """Whether requests of the devices are answered."""
        self.group_keys = GroupKeys(GROUP, {1: GROUP_KEY})
        self._seed = seed
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._epoch = 0
        self.graph: AcyclicGraph | None = None
        names = sorted({name for link in self.links for name in link})
        self.names = tuple(names)
        self.devices: dict[DeviceId, Device] = {}
        keys = {name: random.Random(f"{seed}:{name}").randbytes(32) for name in names}
        self.roster = Roster(
            version=1,
            devices=tuple(
                RosterEntry(
                    device=name,
                    public_key=encode_key(public_key_of(keys[name])),
                    signing_key=encode_key(Signer(keys[name], GROUP).public_key),
                    candidates=(f"{self.address(name)[0]}:{self.address(name)[1]}",),
                )
                for name in names
            ),
            key_epoch=1,
            group_keys={1: encode_key(GROUP_KEY)},
        )
        if edges is not None:
            self._plan(edges or links)
        for name in names:
            peers = [other for other in names if link_key(name, other) in self.links]
            config = NodeConfig(
                device=name,
                group=GROUP,
                private_key=keys[name],
                scope="neighbours" if (scopes or {}).get(name) == "neighbours" else "graph",
                only_peers=frozenset(peers),
                declared={} if rate_bps is None else {peer: DeclaredQos(rate_bps) for peer in peers},
                datagram_bytes=datagram_bytes,
            )
            disk = (stores or {}).get(name) or MemoryStores()
            self.devices[name] = Device(name, config, disk, self._node(config, disk, 1))
        for name in names:
            self.devices[name].up = name not in absent.split()
        for name in names:
            if self.devices[name].up:
                self._join(name)

    # --- looking ----------------------------------------------------------------------------------------------

    def address(self, name: DeviceId, socket: int = 0) -> Address:
        """Return the address of one of a device's sockets."""
        return f"10.0.0.{self.names.index(name) + 1}", 4000 + socket

    def node(self, name: DeviceId) -> Node:
        """Return a device's node."""
        return self.devices[name].node

    def hop(self, name: DeviceId, peer: DeviceId) -> Hop:
        """Return a device's hop to a peer."""
        return self.node(name).peers.hops[peer]

    def stream(self, name: DeviceId, stream: str) -> Stream:
        """Return a stream as a device sees it."""
        return self.node(name).streams.by_short[int(stream[:8], 16)].stream

    def drops(self, name: DeviceId) -> dict[str, int]:
        """Return what a device dropped, by reason."""
        return dict(self.node(name).drops)

    def events(self, name: DeviceId, kind: type[_E]) -> list[_E]:
        """Return a device's events of one kind."""
        return [event for event in self.devices[name].events if isinstance(event, kind)]

    def requests(self, name: DeviceId, kind: type[_E]) -> list[_E]:
        """Return a device's requests of one kind."""
        return [request for request in self.devices[name].requests if isinstance(request, kind)]

    def verified(self, stream: str) -> list[DeviceId]:
        """Return the devices that verified a file."""
        return [name for name in self.names if any(event.stream == stream for event in self.events(name, FileVerified))]

    def payloads(self, name: DeviceId) -> list[bytes]:
        """Return the messages that a device received."""
        return [event.payload for event in self.events(name, MessageReceived)]

    def chunks(self, source: DeviceId, target: DeviceId, *kinds: PacketType) -> list[int]:
        """Return the numbers of the chunks that were handed to a link in one direction."""
        found = []
        for crossing in self.crossings:
            if (crossing.source, crossing.target) == (source, target):
                chunk = peek_chunk(crossing.datagram)
                if chunk is not None and (not kinds or chunk.kind in kinds):
                    found.append(chunk.number)
        return found

    def message_chunk(self, source: DeviceId, stream: str, number: int, payload: bytes) -> bytes:
        """Return a message of one chunk as its source signs and seals it, whether or not it comes next."""
        there = self.stream(source, stream)
        statement = message_statement(there.opening.stream, number, number, payload)
        plain = payload + self.devices[source].config.signer.sign(PURPOSE_MESSAGE, statement)
        (chunk,) = there.seal(number, FLAG_START | FLAG_END, [plain])
        return chunk

    def content(self, name: DeviceId, stream: str) -> bytes:
        """Return a file as it lies on a device's disk."""
        return self.devices[name].stores.streams[stream].content()

    # --- time -------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        for _ in range(MOST_STEPS):
            at = self._next()
            if at is None or at > until:
                self.now = until
                return
            self.now = max(self.now, at)
            self._step()
        raise AssertionError(f"time stands still at {self.now}")

    def until(self, goal: Callable[[], bool], *, within: float = 20.0) -> None:
        """Let time pass until the goal is reached."""
        until = self.now + within
        for _ in range(MOST_STEPS):
            if goal():
                return
            at = self._next()
            assert at is not None, "nothing more happens"
            assert at <= until, f"not within {within} s"
            self.now = max(self.now, at)
            self._step()
        raise AssertionError(f"time stands still at {self.now}")

    def linked(self) -> "Mesh":
        """Let every link between running devices open, and the first probes pass."""
        running = [name for name in self.names if self.devices[name].up]
        pairs = [pair for pair in self.links if pair[0] in running and pair[1] in running]
        self.until(lambda: all(b in self.node(a).peers.hops and a in self.node(b).peers.hops for a, b in pairs))
        self.run(0.05)
        return self

    # --- acting -----------------------------------------------------------------------------------------------

    def send_file(self, name: DeviceId, data: bytes, *, file: str = "f.bin", channel: str = "files") -> str:
        """Send a file."""
        return self.send_from(name, len(data), BytesReader(data), file=file, channel=channel)

    def send_from(
        self, name: DeviceId, size_bytes: int, reader: PieceReader, *, file: str = "f.bin", channel: str = "files"
    ) -> str:
        """Send a file that is read as the test says."""
        stream = self.node(name).send_file(channel, file, size_bytes, reader, now=self.now)
        self._drain(name)
        return stream

    def publish(self, name: DeviceId, payload: bytes, *, channel: str = "messages") -> tuple[str, int]:
        """Publish a message."""
        published = self.node(name).publish(channel, payload, now=self.now)
        self._drain(name)
        return published

    def cancel(self, name: DeviceId, stream: str) -> None:
        """Take a stream back."""
        self.node(name).cancel(stream, now=self.now)
        self._drain(name)

    def control(self, name: DeviceId, message: Any) -> None:
        """Let the server say something to a device."""
        if self.devices[name].up:
            self.node(name).receive_control(message, now=self.now)
            self._drain(name)

    def plan(self, edges: str, *, to: Iterable[DeviceId] | None = None, objectives: tuple[str, ...] = ()) -> int:
        """Make a new graph and push it to the subscribers (or to some); return its epoch."""
        graph = self._plan(edges, objectives or ("throughput",))
        for name in self.names if to is None else to:
            self._push(name)
        return graph.epoch

    def graph_update(self) -> GraphUpdate:
        """Return the newest graph as the server pushes it, or as a device finds it on its disk."""
        assert self.graph is not None
        return GraphUpdate(graph=GraphBody.from_graph(self.graph))

    def inject(self, name: DeviceId, *datagrams: bytes, source: Address | DeviceId, socket: int = 0) -> None:
        """Let datagrams arrive at a device, at once."""
        address = self.address(source) if isinstance(source, str) else source
        self.node(name).receive_datagrams([(datagram, address) for datagram in datagrams], socket=socket, now=self.now)
        self._drain(name)

    def say(self, source: DeviceId, target: DeviceId, *frames: Frame) -> None:
        """Let an authentic peer say something that its core never would."""
        self.inject(
            target, self.sealed(source, target, b"".join(encode_frame(frame) for frame in frames)), source=source
        )

    def sealed(self, source: DeviceId, target: DeviceId, body: bytes) -> bytes:
        """Seal a control datagram as a peer does, under a hop number of its own."""
        hop = self.hop(source, target)
        number = hop._number
        hop._number += 1
        header = HOP_HEADER.pack(PacketType.CONTROL << 4, hop.session.remote[0], number & 0xFFFFFFFF, number >> 32, 0)
        return header + Sealer(hop.session.send_key).seal(number, header, body)

    def chunk_to(
        self,
        source: DeviceId,
        target: DeviceId,
        sealed: bytes,
        *,
        epoch: int | None = None,
        kind: int = PacketType.DATA,
    ) -> bytes:
        """Put a hop header in front of a sealed chunk, as a peer does."""
        hop = self.hop(source, target)
        number = hop._number
        hop._number += 1
        current = self.node(source).table.epoch or 0
        short = (current if epoch is None else epoch) & 0xFFFFFFFF
        return HOP_HEADER.pack(kind << 4, hop.session.remote[0], number & 0xFFFFFFFF, short, 0) + sealed

    def kill(self, name: DeviceId) -> None:
        """Stop a device at once; its disk stays."""
        self.devices[name].up = False

    def start(self, name: DeviceId) -> None:
        """Start a dead or absent device from its disk."""
        device = self.devices[name]
        device.up = True
        device.starts += 1
        device.sockets = 1
        device.node = self._node(device.config, device.stores, device.starts)
        self._join(name)

    def lose_server(self) -> None:
        """Let the server be gone for everybody."""
        self.serving = False
        for name, device in self.devices.items():
            device.connected = False
            if device.up:
                device.node.control_lost(now=self.now)
                self._drain(name)

    # --- inside -----------------------------------------------------------------------------------------------

    def _node(self, config: NodeConfig, stores: MemoryStores, start: int) -> Node:
        return Node(
            config,
            stores=stores,
            rng=random.Random(f"{self._seed}:{config.device}:{start}:rng"),
            entropy=random.Random(f"{self._seed}:{config.device}:{start}:entropy").randbytes,
            now=self.now,
            wall=WALL + self.now,
        )

    def _join(self, name: DeviceId) -> None:
        self.control(name, self.roster)
        self.control(name, Channels(version=1, channels=self.channels))
        if self.serving:
            self.devices[name].connected = True
            self.node(name).control_connected(now=self.now)
            self._drain(name)

    def _plan(self, edges: str, objectives: tuple[str, ...] = ("throughput",)) -> AcyclicGraph:
        self._epoch = max(self._epoch + 1, int((WALL + self.now) * MICRO))
        pairs = tuple(sorted(link_key(*pair.split("-")) for pair in edges.split()))
        self.graph = AcyclicGraph(self._epoch, self.names, tuple(Tree(objective, pairs) for objective in objectives))
        return self.graph

    def _push(self, name: DeviceId) -> None:
        device, graph = self.devices[name], self.graph
        if graph is None or not device.connected:
            return
        if device.scope == "graph":
            self.control(name, GraphUpdate(graph=GraphBody.from_graph(graph)))
        elif device.scope == "neighbours":
            body = NeighboursBody.from_graph(graph, name)
            self.control(name, NeighboursUpdate(epoch=body.epoch, trees=body.trees))

    def _next(self) -> float | None:
        times = [device.node.poll_timeout() for device in self.devices.values() if device.up]
        due = [at for at in times if at is not None]
        if self._queue:
            due.append(self._queue[0][0])
        return min(due) if due else None

    def _step(self) -> None:
        if self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
            return
        for name, device in self.devices.items():
            at = device.node.poll_timeout() if device.up else None
            if at is not None and at <= self.now:
                device.node.handle_timeout(now=self.now)
                self._drain(name)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), call))

    def _drain(self, name: DeviceId) -> None:
        device = self.devices[name]
        node = device.node
        more = True
        while more:
            more = False
            while trains := node.poll_transmit(now=self.now):
                for train in trains:
                    self._send(name, train.socket, train.address, train.datagrams)
            while (request := node.poll_control()) is not None:
                device.requests.append(request)
                self._after(DELAY_S, lambda request=request: self._answer(name, request))  # type: ignore[misc]
            while (event := node.poll_event()) is not None:
                device.events.append(event)
                if isinstance(event, OpenSocket):
                    socket, device.sockets = device.sockets, device.sockets + 1
                    node.socket_opened(event, socket, 4000 + socket, now=self.now)
                    more = True

    def _send(self, name: DeviceId, socket: int, address: Address, datagrams: list[bytes]) -> None:
        target = self.names[int(address[0].rpartition(".")[2]) - 1]
        for datagram in datagrams:
            crossing = Crossing(self.now, name, target, socket, datagram)
            self.crossings.append(crossing)
            if link_key(name, target) not in self.cut and not self.drop(crossing):
                self._after(DELAY_S, lambda crossing=crossing: self._arrive(crossing, address[1] - 4000))  # type: ignore[misc]

    def _arrive(self, crossing: Crossing, socket: int) -> None:
        device = self.devices[crossing.target]
        if device.up:
            source = self.address(crossing.source, crossing.socket)
            device.node.receive_datagrams([(crossing.datagram, source)], socket=socket, now=self.now)
            self._drain(crossing.target)

    def _answer(self, name: DeviceId, request: ControlRequest) -> None:
        device, graph = self.devices[name], self.graph
        if not device.connected or graph is None:
            if isinstance(request, QueryNeighbours | QueryGraph):
                self.control(name, ControlFailed(request, "unreachable"))
            if isinstance(request, Subscribe):
                device.scope = request.scope
        elif isinstance(request, Subscribe):
            device.scope = request.scope
            self._push(name)
        elif isinstance(request, QueryNeighbours):
            self.control(name, NeighboursBody.from_graph(graph, name))
        elif isinstance(request, QueryGraph):
            self.control(name, GraphBody.from_graph(graph))


def forged(datagram: bytes, *, at: int = -1) -> bytes:
    """Return a datagram with one bit of one byte turned."""
    changed = bytearray(datagram)
    changed[at] ^= 1
    return bytes(changed)


def with_number(datagram: bytes, number: int) -> bytes:
    """Return a chunk's datagram that claims another chunk number."""
    fields = list(BOTH_HEADERS.unpack_from(datagram))
    fields[6] = number
    return BOTH_HEADERS.pack(*fields) + datagram[BOTH_HEADERS.size :]


def data(size_bytes: int, *, seed: int = 1) -> bytes:
    """Return so many made-up bytes."""
    return random.Random(seed).randbytes(size_bytes)
