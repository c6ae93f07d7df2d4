"""Who is near: a stream's neighbours in its current graph, and each peer's place in a stream."""

from __future__ import annotations

from agent.core.channels import ChannelTable
from agent.core.cursor import Cursor
from agent.core.degraded import Degraded
from agent.core.embedding import graph_records
from agent.core.hop import Hop
from agent.core.link import LinkState
from agent.core.peers import Peers
from agent.core.routing import GraphTable, Known
from agent.core.stream import Stream
from agent.core.streams import StreamTable
from common.ids import DeviceId
from common.stream_frames import StreamOpening


class Neighbourhood:
    """Finds hops and cursors.

    Args:
        device: this device.
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        degraded: knows of lost edges.
    """

    def __init__(
        self, device: DeviceId, peers: Peers, channels: ChannelTable, streams: StreamTable, degraded: Degraded
    ) -> None:
        self._device = device
        self._peers = peers
        self._channels = channels
        self._streams = streams
        self._degraded = degraded

    def table_of(self, stream: Stream) -> GraphTable:
        """Return the graphs that govern a stream: the group's, or its own (M12)."""
        return self._channels.of(stream).manner.table_of(stream)

    def speaking(self, peer: DeviceId) -> Hop | None:
        """Return the hop to a peer over a link that is not silent: what is sent over another is lost."""
        hop = self._peers.hops.get(peer)
        return None if hop is None or self._peers.links[peer].state is LinkState.SUSPECT else hop

    def hops_of(self, stream: Stream) -> list[Hop]:
        """Return the hops to a stream's neighbours in its current graph."""
        return [hop for peer in self.peers_of(stream) if (hop := self.speaking(peer)) is not None]

    def peers_of(self, stream: Stream) -> tuple[DeviceId, ...]:
        """Return a stream's neighbours in its current graph, whether or not a link to them is there."""
        known = self.table_of(stream).current
        if known is None:
            return ()
        peers = known.in_tree(known.tree_for(stream.spec.objective))
        if not stream.spec.distribute and stream.role != "source":
            # Delivered here and no further: the source alone serves its neighbours (M7).
            peers = tuple(peer for peer in peers if peer == stream.opening.source)
        return peers

    def bridged(self, stream: Stream) -> bool:
        """Whether an edge of a stream's graph is lost, so that links outside the tree serve it too."""
        known = self.table_of(stream).current
        return known is not None and stream.spec.distribute and self._degraded.bridges(known.epoch)

    def reach_of(self, stream: Stream) -> list[Hop]:
        """Return the hops over which a stream is exchanged: to its neighbours, and while it is bridged all others."""
        hops = self.hops_of(stream)
        if self.bridged(stream):
            near = dict.fromkeys(hop.peer for hop in hops)
            others = (self.speaking(peer) for peer in sorted(self._peers.hops) if peer not in near)
            hops += [hop for hop in others if hop is not None]
        return hops

    def cut_off(self, stream: Stream) -> bool:
        """Whether a stream is bridged, and an edge of this device's own is lost: others may lie beyond that one."""
        return self.bridged(stream) and any(self.speaking(peer) is None for peer in self.peers_of(stream))

    def towards_source(self, stream: Stream) -> list[Hop]:
        """Return the hops that lead to a stream's source: one where the way is known, else all neighbours.

        While the stream is bridged nobody knows the way: all hops then.
        """
        if self.bridged(stream):
            return self.reach_of(stream)
        hops = self.hops_of(stream)
        source = stream.opening.source
        known = self.table_of(stream).current
        if known is None or known.graph is None or source not in known.graph.devices:
            return [hop for hop in hops if hop.peer == source] or hops
        children = known.graph.oriented(source, known.tree_for(stream.spec.objective))
        return [hop for hop in hops if self._device in children.get(hop.peer, ())]

    def leads_back(self, stream: Stream, known: Known, tree: int, peer: DeviceId) -> bool:
        """Whether a neighbour is the way from which a stream's chunks come, as far as that is known here."""
        source = stream.opening.source
        if peer == source or known.graph is None or source not in known.graph.devices:
            return peer == source
        return self._device in known.graph.oriented(source, tree).get(peer, ())

    def cursor(self, hop: Hop, stream: Stream) -> Cursor:
        """Return a peer's place in a stream."""
        cursor = hop.cursors.get(stream.short)
        if cursor is None:
            cursor = hop.cursors[stream.short] = Cursor(stream)
        return cursor

    def introduce(self, hop: Hop, stream: Stream, known: Known | None) -> Cursor:
        """See to it that a peer learns the stream's opening, and an embedded graph, ahead of the chunks."""
        cursor = self.cursor(hop, stream)
        if not cursor.opening_sent:
            cursor.opening_sent = True
            hop.send(StreamOpening(self._streams.sealed_opening(stream)))
        if known is not None and stream.spec.routing == "embedded":
            self.send_graph(hop, stream, known.epoch)
        return cursor

    def send_graph(self, hop: Hop, stream: Stream, epoch: int) -> None:
        """Send an embedded graph ahead of the chunks it governs, once per hop."""
        cursor = self.cursor(hop, stream)
        blob = stream.graph_blobs.get(epoch)
        if blob is None or epoch in cursor.graphs_sent:
            return
        cursor.graphs_sent[epoch] = None
        for frame in graph_records(stream.short, epoch, blob):
            hop.send(frame)
