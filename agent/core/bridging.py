"""Doing without a lost edge: tells the others of it, and lets streams use every open link until it is replaced."""

from __future__ import annotations

from collections.abc import Callable

from agent.core.channels import ChannelTable
from agent.core.degraded import Degraded
from agent.core.entry import Entry
from agent.core.exchange import Exchange
from agent.core.hop import Hop
from agent.core.neighbourhood import Neighbourhood
from agent.core.peers import Peers
from agent.core.routing import GraphTable, Known
from agent.core.stream import Stream
from agent.core.streams import StreamTable
from common.errors import DecodeError
from common.graph_frames import LostEdges
from common.ids import DeviceId
from common.limits import EMBEDDED_REST_S


class Bridging:
    """Watches the edges of the graphs in use.

    Args:
        degraded: decides.
        table: the graphs of the group known here.
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        neighbourhood: finds hops.
        exchange: exchanges what is held.
        greet: tells a neighbour of a stream: opening, what is held, receipts.

    Attributes:
        stale: whether a link, a graph or the server came or went since edges were last looked at.
    """

    def __init__(
        self,
        degraded: Degraded,
        table: GraphTable,
        peers: Peers,
        channels: ChannelTable,
        streams: StreamTable,
        neighbourhood: Neighbourhood,
        exchange: Exchange,
        greet: Callable[[Hop, Stream, Known | None], None],
    ) -> None:
        self.stale = True
        self._resting: list[Stream] = []
        self._connected = False
        self._degraded = degraded
        self._table = table
        self._peers = peers
        self._channels = channels
        self._streams = streams
        self._neighbourhood = neighbourhood
        self._exchange = exchange
        self._greet = greet

    def on_server(self, *, connected: bool) -> None:
        """Take note that the server came or went."""
        self._connected, self.stale = connected, True

    def settle(self, now: float) -> None:
        """Compare links and graphs if either has changed, or time is due; tell what comes of it."""
        due = self._degraded.poll_timeout()
        self.stale |= any(not _at_rest(stream, now) for stream in self._resting)
        if not self.stale and (due is None or now < due):
            return
        self.stale = False
        self._degraded.look(self._gone(now), now, connected=self._connected)
        for word in self._degraded.poll_words(now):
            self._tell(word, None)
            self._exchange.pressing = True

    def on_word(self, hop: Hop, word: LostEdges, now: float) -> None:
        """Take what a peer passes on about lost edges.

        Raises:
            DecodeError: it is about a device that is no member, of a time that has not come, or one of too many: what
                is true is said again.
        """
        if max(word.stamp, word.epoch) > self._degraded.latest(now):
            raise DecodeError("lost edges of the future")
        if word.device not in self._peers.members:
            raise DecodeError("lost edges of a stranger")
        if self._degraded.is_news(word) and not hop.news.take(now):
            raise DecodeError("too many words about lost edges")
        if self._degraded.on_word(word, now):
            self._tell(word, hop.peer)
            self._exchange.pressing = True
            # Manners that are told nothing unasked may have an outdated graph.
            self._channels.on_links(now)

    def on_opened(self, hop: Hop) -> None:
        """Tell a peer that was not there what is known of lost edges."""
        self.stale = True
        for word in self._degraded.words():
            hop.send(word)

    def reach_out(self, entry: Entry) -> None:
        """Let a stream use every open link, once for each graph with a lost edge."""
        stream = entry.stream
        if not self._neighbourhood.bridged(stream):
            entry.bridged = None
            return
        known = self._neighbourhood.table_of(stream).current
        if known is None or entry.bridged == known.epoch:
            return
        entry.bridged = known.epoch
        if not self._neighbourhood.cut_off(stream):
            self._exchange.wait_anew(stream)
        near = self._neighbourhood.hops_of(stream)
        for hop in self._neighbourhood.reach_of(stream):
            if hop not in near:
                self._greet(hop, stream, known)

    def poll_timeout(self) -> float | None:
        """Return when `settle` is due."""
        return self._degraded.poll_timeout()

    def _gone(self, now: float) -> dict[int, tuple[DeviceId, ...]]:
        """Return, for every epoch in use, the neighbours to whom no link speaks."""
        # Whoever lacks something of a stream that is whole here says so itself; its source may be gone for good, and
        # puts no newer graph into it.
        entries = self._streams.by_short.values()
        streams = [entry.stream for entry in entries if entry.stream.role != "done" and entry.stream.graphs.current]
        self._resting = [stream for stream in streams if _at_rest(stream, now)]
        tables = [self._table, *(stream.graphs for stream in streams if stream not in self._resting)]
        gone: dict[int, tuple[DeviceId, ...]] = {}
        for known in (table.current for table in tables):
            if known is not None and known.epoch not in gone:
                peers = known.all_neighbours()
                gone[known.epoch] = tuple(peer for peer in peers if self._neighbourhood.speaking(peer) is None)
        return gone

    def _tell(self, word: LostEdges, previous: DeviceId | None) -> None:
        for peer in sorted(self._peers.hops):
            hop = self._neighbourhood.speaking(peer)
            if hop is not None and peer != previous:
                hop.send(word)


def _at_rest(stream: Stream, now: float) -> bool:
    """Tell whether all that is known of a stream is here, and nobody has sent or wanted any of it for long."""
    if now - stream.active_at < EMBEDDED_REST_S:
        return False
    expired = stream.lowest >= stream.stop > 1
    return expired or stream.held.until(stream.lowest, stream.stop) == (True, stream.stop)
