"""The agent's core as a state machine: a device between two others, told whatever members, strangers and time may say.

B is watched; A and C run the same core and answer it. The input says what happens next: a member says any frame, seals
any opening, graph, cancel or chunk; somebody repeats, alters or makes up datagrams; links are cut; the server says what
its messages can hold; time passes; the application sends, publishes, cancels.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from agent.core.control_plane import MAX_REQUESTS
from agent.core.degraded import Degraded
from agent.core.embedding import PURPOSE_GRAPH, graph_records
from agent.core.events import Address, ControlFailed, QueryGraph, QueryNeighbours
from agent.core.exchange import MAX_SPANS
from agent.core.fragments import MAX_JOINED, MAX_JOINING, MAX_JOINING_BYTES
from agent.core.migration import MOST_WAITING
from agent.core.node import Node
from agent.core.store import StoreError
from agent.core.streams import PURPOSE_OPENING
from agent.core.upkeep import PURPOSE_CANCEL
from common.datagrams import CHUNK_HEADER, FRAGMENT_HEADER, HOP_HEADER, PacketType
from common.errors import RefusedError
from common.fields import encode_key
from common.frames import Frame, encode_frame
from common.graph import AcyclicGraph, Tree
from common.graph_frames import AskGraph, GraphRecord, LostEdges
from common.ids import DeviceId
from common.limits import (
    EPOCHS_MAX,
    MAX_DATAGRAM_BYTES,
    MAX_EPOCH,
    MAX_FRAMES_QUEUED,
    MAX_HELD_CHUNKS,
    MAX_LOST_WORDS,
    MAX_PEERS,
    MAX_STREAMS,
)
from common.link_frames import Ack, Bye, ChannelPort, Probe
from common.messages import (
    Channels,
    ChannelSpec,
    EpochUpdate,
    GraphBody,
    GraphUpdate,
    MtuUpdate,
    NeighboursUpdate,
    Roster,
    RosterEntry,
    TreeNeighbours,
)
from common.opening import Opening
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train, TrainReport
from common.ranges import NO_LIMIT, Ranges
from common.sealing import Sealer
from common.stream_frames import (
    RECEIPT_STATES,
    AskOpening,
    Cancel,
    Have,
    Interrupted,
    ReceiptEntry,
    Receipts,
    Stop,
    StreamOpening,
    Want,
)
from tests.fuzz.choices import Choices
from tests.harness import mesh as harness
from tests.harness.mesh import GROUP_KEY, MICRO, START, WALL, Mesh, data

WATCHED: Final = "B"
MOST_STEPS: Final = 60
MOST_EVENTS: Final = 50_000
AMPLIFICATION: Final = 3
STRANGERS: Final[tuple[Address, ...]] = (("198.51.100.7", 7_400), ("198.51.100.8", 1), ("10.0.0.1", 9_999))
_WAITS: Final = (0.0, 0.001, 0.02, 0.1, 0.3, 1.0, 3.0, 20.0)
_KEY: Final = bytes(32)
_BASE: Final = int((WALL + START) * MICRO)


class _Mesh(Mesh):
    """A mesh in which some addresses are strangers', to whom no more goes than they prove to be worth."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.from_strangers: Counter[Address] = Counter()
        self.to_strangers: Counter[Address] = Counter()
        super().__init__(*args, **options)

    def _send(self, name: DeviceId, socket: int, address: Address, datagrams: list[bytes]) -> None:
        assert all(0 < len(datagram) <= MAX_DATAGRAM_BYTES for datagram in datagrams)
        if address[0].startswith("10.0.0.") and address[1] < 5_000 and 0 < int(address[0][7:]) <= len(self.names):
            super()._send(name, socket, address, datagrams)
        elif name == WATCHED:
            self.to_strangers[address] += sum(map(len, datagrams))


class NodeMachine:
    """The mesh, what is done to it, and what must be true of B after each step.

    Args:
        choices: what is done.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        routing = choices.pick(("subscribe", "query", "overflow", "embedded"))
        repeat = choices.pick(("ranges", "window", "last"))
        channels = (
            ChannelSpec.model_validate({"name": "files", "kind": "file", "routing": routing, "buffer_bytes": 4_096}),
            ChannelSpec.model_validate({"name": "messages", "kind": "message", "repeat": repeat, "routing": routing}),
            ChannelSpec(name="apart", kind="message", sockets="per-channel"),
        )
        self.mesh = _Mesh("A-B B-C", channels=channels, datagram_bytes=choices.pick((1_200, 1_472)))
        self.mesh.linked()
        self.channels = channels
        self.openings = [self._opening(number) for number in range(3)]
        self.sealers = [Sealer(opening.key) for opening in self.openings]
        self.versions = itertools.count(2)
        self.nonces = itertools.count(1)

    def run(self) -> None:
        """Do it."""
        steps = (
            self._say,
            self._say,
            self._say_sealed,
            self._send_chunk,
            self._wait,
            self._garbage,
            self._repeat,
            self._fragment,
            self._serve,
            self._apply,
            self._network,
            self._move,
        )
        with contextlib.suppress(_Done):
            for _ in range(MOST_STEPS):
                if not self.choices:
                    break
                self.choices.pick(steps)()
                self._check()
            self.mesh.run(1.0)
            self._check()

    @property
    def node(self) -> Node:
        """The watched device."""
        return self.mesh.node(WATCHED)

    # --- what members say -----------------------------------------------------------------------------------------

    def _say(self) -> None:
        peer = self._peer()
        frames = [self._frame() for _ in range(1 + self.choices.below(3))]
        with contextlib.suppress(ValueError, OverflowError):
            self.mesh.say(peer, WATCHED, *frames)

    def _peer(self) -> DeviceId:
        peer = self.choices.pick(("A", "C"))
        if WATCHED not in self.mesh.node(peer).peers.hops:
            raise _Done
        return peer

    def _frame(self) -> Frame:
        pick = self.choices.pick(
            (self._frame_of_link, self._frame_of_path, self._frame_of_stream, self._frame_of_graph)
        )
        return pick()

    def _frame_of_link(self) -> Frame:
        choices, most = self.choices, 2**32 - 1
        now_us, number = int(self.mesh.now * MICRO), self.mesh.hop("A", WATCHED)._number if self._linked("A") else 0
        kind = choices.below(4)
        if kind == 0:
            return Probe(
                sent_us=choices.number(2**64 - 1, now_us),
                echo_us=choices.number(2**64 - 1, now_us),
                held_us=choices.number(most, 1_000),
                sent=choices.number(most, 1_000),
                heard=choices.number(most, 1_000),
                next_ms=choices.number(65_535, 250),
                epoch=self._epoch() & most,
            )
        if kind == 1:
            return Ack(choices.number(2**64 - 1, number), choices.number(most), self._ranges(number))
        if kind == 2:
            return ChannelPort(choices.pick(("apart", "files", "nothing")), 1 + choices.number(65_534, 4_001))
        return Bye() if choices.below(8) == 7 else ChannelPort("apart", 4_001)

    def _frame_of_path(self) -> Frame:
        choices = self.choices
        size = choices.number(9_000, 1_200, 1_472)
        count = 1 + choices.number(2_559, 4)
        options: Sequence[Frame] = (
            PathChallenge(choices.raw(8).ljust(8)),
            PathAnswer(choices.raw(8).ljust(8)),
            MtuProbe(max(1_200, size)),
            MtuAnswer(max(1_200, size)),
            Train(choices.number(65_535), choices.below(count), count, choices.below(256)),
            TrainReport(
                choices.number(65_535), choices.number(65_535), choices.number(2**32 - 1), choices.number(2**32 - 1)
            ),
        )
        return options[choices.below(len(options))]

    def _frame_of_stream(self) -> Frame:
        choices, stream = self.choices, self._stream()
        most = choices.pick((0, 3_000, 2**63))
        entry = ReceiptEntry(
            choices.pick(("A", "B", "C", "Z")),
            choices.pick(RECEIPT_STATES),
            choices.number(most),
            "no: " * choices.below(9),
        )
        options: Sequence[Frame] = (
            Have(
                stream,
                choices.number(NO_LIMIT, 1),
                choices.number(NO_LIMIT, 5),
                self._ranges(3),
                choices.number(NO_LIMIT, 5),
            ),
            Want(stream, self._ranges(3)),
            Stop(stream),
            AskOpening(stream),
            Receipts(stream, (entry,) * choices.below(5)),
            Interrupted(stream, delivering=bool(choices.below(2))),
        )
        return options[choices.below(len(options))]

    def _frame_of_graph(self) -> Frame:
        choices = self.choices
        kind = choices.below(3)
        if kind == 0:
            return AskGraph(choices.pick((0, self._stream())), self._epoch() & 0xFFFFFFFF)
        if kind == 1:
            epoch, blob = self._epoch(), choices.raw(choices.below(64))
            if choices.below(2):
                with contextlib.suppress(ValueError):
                    blob = self._graph(epoch).encode()
            parts = 1 + choices.below(3)
            return GraphRecord(choices.pick((0, self._stream())), epoch, choices.below(parts), parts, blob)
        peers = tuple(sorted({choices.pick(("A", "B", "C", "Z")) for _ in range(choices.below(4))}))
        stamp = choices.number(2**64 - 1, int((WALL + self.mesh.now) * MICRO))
        return LostEdges(choices.pick(("A", "B", "C", "Z")), stamp, self._epoch(), peers)

    def _say_sealed(self) -> None:
        """Let a member seal a record for all."""
        choices, mesh, peer = self.choices, self.mesh, self._peer()
        place = choices.below(len(self.openings))
        opening, nonce = self.openings[place], next(self.nonces).to_bytes(12, "big")
        kind = choices.below(4)
        if kind == 0:
            mesh.say(peer, WATCHED, StreamOpening(mesh.group_keys.seal(PURPOSE_OPENING, opening.encode(), nonce)))
        elif kind == 1:
            plain = choices.pick((opening.stream, bytes(16))) + choices.raw(choices.below(32))
            mesh.say(peer, WATCHED, Cancel(opening.short, mesh.group_keys.seal(PURPOSE_CANCEL, plain, nonce)))
        elif kind == 2:
            epoch = self._epoch()
            with contextlib.suppress(ValueError):
                plain = opening.short.to_bytes(4, "big") + self._graph(epoch).encode()
                blob = mesh.group_keys.seal(PURPOSE_GRAPH, plain, nonce)
                mesh.say(peer, WATCHED, *graph_records(opening.short, epoch, blob))
        else:
            wild = Opening(
                stream=choices.pick((opening.stream, choices.raw(16).ljust(16))),
                channel=choices.pick(("files", "messages", "apart", "none")),
                source=choices.pick(("A", "B", "Z")),
                kind=choices.pick(("file", "message")),
                key=_KEY,
                piece_bytes=choices.number(9_000, 600, 1_160),
                name=choices.pick(("", "x")),
                size_bytes=choices.pick((None, 0, choices.number(2**44, 3_000))),
                created=0.0,
                expires=choices.pick((1.0, WALL + START + 2.0, WALL * 2)),
            )
            mesh.say(peer, WATCHED, StreamOpening(mesh.group_keys.seal(PURPOSE_OPENING, wild.encode(), nonce)))

    def _opening(self, number: int) -> Opening:
        kind, name, channel = (("file", "f", "files"), ("message", "", "messages"), ("file", "g", "files"))[number]
        return Opening(
            stream=bytes([7, number]) * 8,
            channel=channel,
            source="A",
            kind=kind,  # type: ignore[arg-type]
            key=bytes([number]) * 32,
            piece_bytes=1_160,
            name=name,
            size_bytes=(3_000, None, 0)[number],
            created=WALL,
            expires=WALL + 1_000.0,
        )

    def _send_chunk(self) -> None:
        """Let a member send a chunk that it has the key of: in order, as any other number, or with any flags."""
        choices, peer = self.choices, self._peer()
        place = choices.below(len(self.openings))
        opening = self.openings[place]
        number = choices.number(NO_LIMIT - 1, 1, 3)
        word = choices.pick((0, 1, 2, 4, 6, 8)) << 56 | number
        plain = choices.pick((bytes(1_160), b"m", b"", bytes(32), bytes(680)))
        header = CHUNK_HEADER.pack(opening.short, word)
        sealed = header + self.sealers[place].seal(number, header, plain)
        kind = choices.pick((PacketType.DATA, PacketType.REPEAT, PacketType.PULLED))
        epoch = choices.pick((None, self._epoch()))
        self.mesh.inject(WATCHED, self.mesh.chunk_to(peer, WATCHED, sealed, epoch=epoch, kind=kind), source=peer)

    # --- what anybody says ----------------------------------------------------------------------------------------

    def _garbage(self) -> None:
        """Let bytes arrive that nobody sealed: they are counted, and change nothing but counters."""
        choices = self.choices
        source = choices.pick((self.mesh.address("A"), self.mesh.address("C"), *STRANGERS))
        datagram = bytes([choices.below(256)]) + choices.raw(choices.below(128)) + bytes(choices.below(40) * 30)
        self._inject_unsealed(datagram, source, choices.below(3))

    def _repeat(self) -> None:
        """Let what was sent before arrive again: as it was, altered, cut off or from elsewhere."""
        choices, crossings = self.choices, self.mesh.crossings
        if not crossings:
            return
        crossing = crossings[-1 - choices.number(len(crossings) - 1, 0)]
        datagram = bytearray(crossing.datagram)
        way = choices.below(4)
        if way == 1:
            datagram[choices.below(len(datagram))] ^= 1 << choices.below(8)
        elif way == 2:
            del datagram[choices.below(len(datagram)) :]
        source = choices.pick((self.mesh.address(crossing.source), *STRANGERS))
        self._count_stranger(source, len(datagram))
        self.mesh.inject(WATCHED, bytes(datagram), source=source)

    def _fragment(self) -> None:
        choices = self.choices
        session = self.mesh.hop(WATCHED, "A").session.local[0] if self._has_hop("A") else choices.below(256)
        place = choices.below(8) << 4 | choices.below(9)
        header = HOP_HEADER.pack(PacketType.FRAGMENT << 4, session, choices.number(2**32 - 1, 1), 0, 0)
        body = FRAGMENT_HEADER.pack(self._stream(), choices.pick((4, 5, 6, 7)), place)
        self._inject_unsealed(header + body + bytes(choices.below(256) * 4), self.mesh.address("A"), 0)

    def _inject_unsealed(self, datagram: bytes, source: Address, socket: int) -> None:
        before = self._picture()
        self._count_stranger(source, len(datagram))
        self.mesh.inject(WATCHED, datagram, source=source, socket=socket)
        assert self._picture() == before

    def _count_stranger(self, source: Address, size_bytes: int) -> None:
        self.mesh.from_strangers[source] += size_bytes

    def _picture(self) -> Any:
        """Return what nobody may change without a key."""
        node = self.node
        streams = {
            short: (list(entry.stream.held), entry.stream.role, entry.stream.refused, entry.stream.lowest)
            for short, entry in node.streams.by_short.items()
        }
        hops = {peer: (hop.session, hop.newest_number, hop.mtu.mtu_bytes) for peer, hop in node.peers.hops.items()}
        links = {peer: (link.state, link.addresses, link.mtu_bytes) for peer, link in node.peers.links.items()}
        others = node.table.epoch, node.peers.members, node.degraded.edges(), list(node.channels.by_name)
        return streams, hops, links, others, dict(node.peers.by_address)

    # --- the server, the application, the network -----------------------------------------------------------------

    def _serve(self) -> None:
        """Let the server say something that its messages can hold."""
        with contextlib.suppress(ValidationError):
            self.mesh.control(WATCHED, self._server_message())

    def _server_message(self) -> Any:
        choices, epoch = self.choices, self._epoch()
        kind = choices.below(8)
        if kind == 0:
            graph = GraphBody.model_validate(
                {
                    "epoch": epoch,
                    "devices": ("A", "B", "C"),
                    "trees": [{"objective": "throughput", "edges": self._edges()}],
                }
            )
            return GraphUpdate(graph=graph)
        if kind == 1:
            names = tuple(choices.pick(("A", "B", "C", "Z")) for _ in range(choices.below(4)))
            return NeighboursUpdate(epoch=epoch, trees=(TreeNeighbours(objective="throughput", neighbours=names),))
        if kind == 2:
            return EpochUpdate(epoch=epoch)
        if kind == 3:
            return self._roster()
        if kind == 4:
            specs = tuple(spec for spec in self.channels if choices.below(4))
            return Channels(version=next(self.versions), channels=specs * (1 + choices.below(8) // 7))
        if kind == 5:
            return MtuUpdate(mtu_bytes=1_200 + choices.below(256))
        if kind == 6:
            return ControlFailed(QueryGraph() if choices.below(2) else QueryNeighbours(), "unreachable")
        return self.mesh.graph_update()

    def _roster(self) -> Roster:
        choices = self.choices
        entries = list(self.mesh.roster.devices)
        way = choices.below(6)
        if way == 0:
            entries.pop(choices.below(len(entries)))
        elif way == 1:
            entries.append(choices.pick(entries))
        elif way == 2:
            stranger = RosterEntry(device="Z", public_key=encode_key(choices.raw(32).ljust(32, b"\1")), candidates=())
            entries.append(stranger)
        epochs = [choices.number(2**53 - 1, 1) for _ in range(choices.below(3))]
        keys = {1: encode_key(GROUP_KEY), **dict.fromkeys(epochs, encode_key(GROUP_KEY))}
        if choices.below(8) == 7:
            del keys[1]
        version = next(self.versions)
        return Roster(version=version, devices=tuple(entries), key_epoch=max(keys, default=0), group_keys=keys)

    def _apply(self) -> None:
        choices, mesh = self.choices, self.mesh
        name = choices.pick((WATCHED, "A"))
        kind = choices.below(4)
        with contextlib.suppress(RefusedError, StoreError):
            if kind == 0:
                mesh.publish(
                    name, bytes(choices.pick((0, 1, 1_200, 5_000))), channel=choices.pick(("messages", "apart"))
                )
            elif kind == 1:
                mesh.send_file(name, data(choices.pick((0, 1, 5_000, 100_000))))
            elif kind == 2 and self.node.streams.by_short:
                entry = choices.pick(list(self.node.streams.by_short.values()))
                mesh.cancel(name, entry.stream.opening.hex)
            else:
                self.node.status(now=mesh.now)
                self.node.arrivals()

    def _network(self) -> None:
        choices, mesh = self.choices, self.mesh
        kind = choices.below(7)
        if kind == 0:
            mesh.cut ^= {choices.pick((("A", "B"), ("B", "C")))}
        elif kind == 1:
            mesh.lose_server()
        elif kind == 2:
            mesh.serving = True
            for name, device in mesh.devices.items():
                device.connected = True
                device.node.control_connected(now=mesh.now)
                mesh._drain(name)
        elif kind == 3:
            mesh.kill(WATCHED)
            mesh.start(WATCHED)
        elif kind == 4:
            mesh.node(WATCHED).on_unreachable(mesh.address(choices.pick(("A", "C"))), now=mesh.now)
        elif kind == 5:
            mesh.node(WATCHED).set_candidates([choices.pick(STRANGERS)], now=mesh.now)
        else:
            mesh.plan(choices.pick(("A-B B-C", "A-B", "A-C B-C", "A-C A-B", "")))
        mesh._drain(WATCHED)

    def _move(self) -> None:
        """Let an authentic member speak from a stranger's address."""
        choices, peer = self.choices, self._peer()
        source = choices.pick(STRANGERS)
        frames = [self._frame()] * choices.pick((1, 1, 2, 100))
        with contextlib.suppress(ValueError, OverflowError):
            datagram = self.mesh.sealed(peer, WATCHED, b"".join(encode_frame(frame) for frame in frames))
            self._count_stranger(source, len(datagram))
            self.mesh.inject(WATCHED, datagram, source=source)

    def _wait(self) -> None:
        self.mesh.run(self.choices.pick(_WAITS))

    # --- what must be true ----------------------------------------------------------------------------------------

    def _check(self) -> None:
        node, mesh = self.node, self.mesh
        for address, sent in mesh.to_strangers.items():
            assert sent <= AMPLIFICATION * mesh.from_strangers[address], f"{sent} bytes to {address}"
        assert node.poll_transmit(now=mesh.now) == []
        assert node.poll_control() is None
        assert len(node.streams.by_short) <= MAX_STREAMS
        assert len(node.streams.declined) <= MAX_STREAMS
        assert len(node.peers.links) <= MAX_PEERS
        assert len(node.table._known) <= EPOCHS_MAX
        assert len(node.peers.migration._waiting) <= MOST_WAITING
        assert len(node.control._queue) <= MAX_REQUESTS
        orphans = node.forwarder.orphans
        assert 0 <= orphans._held <= MAX_HELD_CHUNKS
        assert orphans._held == sum(len(unknown.chunks) for unknown in orphans._unknown.values())
        assert len(orphans._unknown) <= MAX_STREAMS
        _check_degraded(node.degraded)
        for hop in node.peers.hops.values():
            for queue in (hop.frames.reliable, hop.frames.unreliable, hop.frames.trains):
                assert len(queue) <= 2 * MAX_FRAMES_QUEUED
            assert len(hop._joiner._joining) <= MAX_JOINING
            assert hop._joiner._size_bytes <= MAX_JOINING_BYTES
            assert len(hop._joiner._joined) <= MAX_JOINED
            assert all(cursor.reported.spans() <= MAX_SPANS for cursor in hop.cursors.values())
        for entry in node.streams.by_short.values():
            stream = entry.stream
            assert all(0 <= start < stop <= NO_LIMIT for start, stop in stream.held)
            assert stream.closing is None or len(stream.held) <= stream.closing
            assert len(stream.graph_blobs) <= EPOCHS_MAX

    # --- parts ----------------------------------------------------------------------------------------------------

    def _linked(self, peer: DeviceId) -> bool:
        return WATCHED in self.mesh.node(peer).peers.hops

    def _has_hop(self, peer: DeviceId) -> bool:
        return peer in self.node.peers.hops

    def _stream(self) -> int:
        known = [opening.short for opening in self.openings] + list(self.node.streams.by_short)
        return self.choices.pick((*known[:32], 0, 99))

    def _epoch(self) -> int:
        current = self.node.table.epoch or _BASE
        return self.choices.number(MAX_EPOCH, current, int((WALL + self.mesh.now) * MICRO))

    def _edges(self) -> list[tuple[DeviceId, DeviceId]]:
        return self.choices.pick(([], [("A", "B")], [("A", "B"), ("B", "C")], [("B", "C")], [("B", "Z")], [("A", "A")]))

    def _graph(self, epoch: int) -> AcyclicGraph:
        edges = self.choices.pick((("A", "B"), ("A", "C"), ("B", "C"))), self.choices.pick((("A", "B"), ("B", "C")))
        return AcyclicGraph(epoch, ("A", "B", "C"), (Tree.of("throughput", dict.fromkeys(edges)),))

    def _ranges(self, near: int) -> Ranges:
        found = []
        for _ in range(self.choices.below(4)):
            start = self.choices.number(NO_LIMIT - 1, near)
            stop = min(NO_LIMIT, start + 1 + self.choices.number(2**32 - 2, 1))
            found.append((start, stop))
        return tuple(found)


class _Done(Exception):
    """The member that shall speak has no session any more: the rest of the input means nothing."""


def _check_degraded(degraded: Degraded) -> None:
    assert len(degraded._words) <= MAX_LOST_WORDS
    assert len(degraded._heard_at) == len(degraded._words)
    assert len(degraded._forgotten) <= 2 * MAX_LOST_WORDS


def fuzz_node(data: bytes) -> None:
    """An agent's core, whatever happens to it."""
    before, harness.MOST_STEPS = harness.MOST_STEPS, MOST_EVENTS
    try:
        NodeMachine(Choices(data)).run()
    finally:
        harness.MOST_STEPS = before


def node_seeds() -> list[bytes]:
    """Return a transfer, and each kind of step."""
    opening, chunks = bytes([2, 0, 0, 0]), b"".join(bytes([3, 0, 0, 2, n, 0, 0, 0, 0]) for n in (1, 2, 3, 4))
    wait = bytes([4, 3])
    seeds = [bytes(3) + opening + chunks + wait, bytes(3) + bytes([9, 1, 1, 3, 4, 4, 4, 4])]
    seeds += [bytes(3) + opening + bytes([step, *range(1, 40)]) + wait for step in range(12)]
    return seeds
