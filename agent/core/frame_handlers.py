"""What each control frame of a peer does here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from agent.core.channels import ChannelTable
from agent.core.embedding import encode_graph, graph_records, learn_embedded
from agent.core.entry import Entry
from agent.core.events import Address
from agent.core.forwarding import Forwarder
from agent.core.hop import Hop
from agent.core.neighbourhood import Neighbourhood
from agent.core.peers import Peers
from agent.core.routing import GraphTable
from agent.core.stream import Stream
from agent.core.streams import StreamTable
from agent.core.upkeep import Upkeep
from common.errors import DecodeError
from common.frames import Frame
from common.graph import AcyclicGraph, short_epoch
from common.graph import decode_untrusted as decode_graph
from common.graph_frames import AskGraph, GraphRecord, LostEdges
from common.ids import DeviceId
from common.limits import MAX_PEERS, MAX_STREAMS
from common.link_frames import Ack, Bye, ChannelPort, Probe
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train, TrainReport
from common.stream_frames import AskOpening, Cancel, Have, Interrupted, Receipts, Stop, StreamOpening, Want


@dataclass(slots=True)
class _Parts:
    """A graph of several records that is being put together."""

    stream: int
    epoch: int
    parts: dict[int, bytes] = field(default_factory=dict)


class FrameHandlers:
    """Hands frames to the part that they concern.

    Args:
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        neighbourhood: finds hops and cursors.
        forwarder: a chunk's way.
        upkeep: looks after streams.
        table: the graphs known here.
        drops: counts what was dropped, by reason.
    """

    def __init__(
        self,
        peers: Peers,
        channels: ChannelTable,
        streams: StreamTable,
        neighbourhood: Neighbourhood,
        forwarder: Forwarder,
        upkeep: Upkeep,
        table: GraphTable,
        drops: Counter[str],
    ) -> None:
        self._peers = peers
        self._channels = channels
        self._streams = streams
        self._neighbourhood = neighbourhood
        self._forwarder = forwarder
        self._upkeep = upkeep
        self._table = table
        self._drops = drops
        self._graphs: dict[DeviceId, _Parts] = {}

    def handle(self, hop: Hop, frame: Frame, address: Address, now: float) -> None:
        """Take a frame that came from an address; one that makes no sense is counted and changes nothing."""
        try:
            self._handle(hop, frame, address, now)
        except DecodeError:
            self._drops[f"{type(frame).__name__.lower()}-refused"] += 1

    def _handle(self, hop: Hop, frame: Frame, address: Address, now: float) -> None:
        match frame:
            case PathChallenge() | PathAnswer() | Train() | TrainReport():
                self._handle_of_path(hop, frame, address, now)
            case Probe() | Ack() | MtuProbe() | MtuAnswer() | Bye() | ChannelPort():
                self._handle_of_link(hop, frame, now)
            case AskGraph():
                self._on_ask_graph(hop, frame)
            case GraphRecord():
                self._on_graph_record(hop, frame, now)
            case Receipts():
                self._upkeep.on_receipts(hop, frame, now)
            case LostEdges():
                self._upkeep.bridging.on_word(hop, frame, now)
            case Cancel():
                self._upkeep.on_cancel(hop, frame)
            case _:
                self._handle_of_stream(hop, frame, now)

    def _handle_of_path(
        self, hop: Hop, frame: PathChallenge | PathAnswer | Train | TrainReport, address: Address, now: float
    ) -> None:
        match frame:
            case PathChallenge():
                self._peers.migration.on_challenge(hop, frame, address, now)
            case PathAnswer():
                self._peers.migration.on_answer(hop, frame, now)
            case Train():
                self._peers.survey.on_train(hop, frame, now)
            case _:
                self._peers.survey.on_report(hop, frame, now)

    def _handle_of_link(
        self, hop: Hop, frame: Probe | Ack | MtuProbe | MtuAnswer | Bye | ChannelPort, now: float
    ) -> None:
        match frame:
            case Probe():
                self._peers.on_probe(hop, frame, now)
                self._channels.on_peer_epoch(frame.epoch, now)
            case Ack():
                hop.on_ack(frame, now)
            case MtuProbe():
                hop.send(MtuAnswer(frame.size_bytes), reliable=False)
            case MtuAnswer():
                self._peers.on_mtu_answer(hop, frame.size_bytes, now)
            case Bye():
                self._peers.on_bye(hop, now)
            case _:
                if frame.channel in self._channels.by_name:
                    hop.ports[frame.channel] = frame.port

    def _handle_of_stream(
        self, hop: Hop, frame: Have | Want | Stop | StreamOpening | AskOpening | Interrupted, now: float
    ) -> None:
        if isinstance(frame, StreamOpening):
            self._on_opening(hop, frame, now)
            return
        entry = self._streams.by_short.get(frame.stream)
        if entry is None:
            if isinstance(frame, Have) and frame.stream not in self._streams.declined:
                self._forwarder.orphans.hold_news(hop, frame, now)
            return
        stream = entry.stream
        match frame:
            case Have():
                self._upkeep.exchange.on_have(hop, stream, frame)
            case Want():
                self._on_want(hop, stream, frame, now)
            case Stop():
                self._neighbourhood.cursor(hop, stream).forget_owed()
            case Interrupted():
                self._upkeep.mending.on_interrupted(hop, stream, frame)
            case _:
                self._upkeep.on_ask_opening(hop, stream)

    def _on_opening(self, hop: Hop, frame: StreamOpening, now: float) -> None:
        entry = self._streams.open_received(frame.sealed, now)
        if not isinstance(entry, Entry):
            self._forwarder.drop_declined(now)
            if entry is not None and entry.reason == "too-many-streams":
                self._upkeep.refuse_unopened(hop, entry, f"{entry.reason}: at most {MAX_STREAMS} at a device")
            return
        stream = entry.stream
        self._neighbourhood.cursor(hop, stream).opening_sent = True
        if self._neighbourhood.bridged(stream):
            self._upkeep.exchange.pressing = True
        chunks, news = self._forwarder.orphans.take(stream.short)
        for peer_hop, have in news:
            self._upkeep.exchange.on_have(peer_hop, stream, have)
        for chunk_hop, datagram, channel in chunks:
            self._forwarder.receive_run(chunk_hop, [datagram], channel, now)

    def _on_want(self, hop: Hop, stream: Stream, frame: Want, now: float) -> None:
        known = self._neighbourhood.table_of(stream).current
        stream.active_at = now
        if known is None:
            return
        self._neighbourhood.introduce(hop, stream, known)
        tree = known.tree_for(stream.spec.objective)
        self._upkeep.exchange.on_want(hop, stream, frame.ranges, short_epoch(known.epoch), tree)

    def _on_ask_graph(self, hop: Hop, frame: AskGraph) -> None:
        if frame.stream:
            entry = self._streams.by_short.get(frame.stream)
            known = None if entry is None else entry.stream.graphs.by_short(frame.epoch)
            if entry is not None and known is not None:
                self._neighbourhood.cursor(hop, entry.stream).graphs_sent.pop(known.epoch, None)
                self._neighbourhood.send_graph(hop, entry.stream, known.epoch)
            return
        known = self._table.by_short(frame.epoch)
        if known is not None and known.graph is not None:
            for record in graph_records(0, known.epoch, encode_graph(known.graph)):
                hop.send(record)

    def _on_graph_record(self, hop: Hop, frame: GraphRecord, now: float) -> None:
        parts = self._graphs.get(hop.peer)
        if parts is None or (parts.stream, parts.epoch) != (frame.stream, frame.epoch):
            if len(self._graphs) >= MAX_PEERS:
                self._graphs.clear()
            parts = self._graphs[hop.peer] = _Parts(frame.stream, frame.epoch)
        parts.parts[frame.part] = frame.data
        if len(parts.parts) < frame.parts:
            return
        del self._graphs[hop.peer]
        blob = b"".join(parts.parts.get(part, b"") for part in range(frame.parts))
        if frame.stream:
            entry = self._streams.by_short.get(frame.stream)
            if entry is not None:
                old = entry.stream.graphs.current
                if learn_embedded(entry.stream, frame.epoch, blob, self._streams, now):
                    self._upkeep.on_stream_graph(entry.stream, old, now)
                self._forwarder.release(now)
            return
        self._learn_group_graph(decode_graph(blob), now)

    def _learn_group_graph(self, graph: AcyclicGraph, now: float) -> None:
        """Take a previous hop's answer to which graph an epoch is; one that was not asked for is not believed."""
        if not any(channel.manner.waits_for(graph.epoch) for channel in self._channels.by_name.values()):
            raise DecodeError("a graph that was not asked for")
        if graph.epoch != self._table.expand(short_epoch(graph.epoch), now):
            raise DecodeError("a graph of another time")
        old = self._table.current
        if self._table.learn_graph(graph, now):
            self._upkeep.on_graph(old, now)
        self._forwarder.release(now)
