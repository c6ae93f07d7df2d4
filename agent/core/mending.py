"""What a device does at once when a link falls silent, ends, or is heard again.

What a peer was bringing over a link that is gone is not coming. Whoever it was bringing it to knows that before the
server's new graph is there, and so do all behind it, for each tells the next ones (Interrupted). When the new edge's
HAVE comes, nobody waits to see whether the old one still delivers: what is missing is asked for in the same moment.

Over a silent link nothing is sent but signs of life: what one would send comes to nothing, or comes late, when the
peer has it from elsewhere. When the peer is heard again, both ends say what they hold, and the receiver asks.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.core.exchange import Exchange
from agent.core.hop import Hop
from agent.core.link import LinkState
from agent.core.neighbourhood import Neighbourhood
from agent.core.peers import Peers
from agent.core.routing import Known
from agent.core.stream import Stream
from agent.core.streams import StreamTable
from agent.core.supply import Concerned
from common.ids import DeviceId
from common.stream_frames import Interrupted


class Mending:
    """Turns the fate of links into what streams need.

    Args:
        peers: links and hops.
        streams: what is sent and received.
        neighbourhood: finds hops.
        exchange: asks for what is missing.
        greet: tells a neighbour of a stream: opening, what is held, receipts.
    """

    def __init__(
        self,
        peers: Peers,
        streams: StreamTable,
        neighbourhood: Neighbourhood,
        exchange: Exchange,
        greet: Callable[[Hop, Stream, Known | None], None],
    ) -> None:
        self._peers = peers
        self._streams = streams
        self._neighbourhood = neighbourhood
        self._exchange = exchange
        self._greet = greet
        self._silent: dict[DeviceId, Hop] = {}

    def look(self) -> None:
        """Look for links that fell silent, or are heard again; call when some link has changed."""
        self._silent = {peer: hop for peer, hop in self._silent.items() if peer in self._peers.links}
        for peer, link in self._peers.links.items():
            hop = self._peers.hops.get(peer)
            if link.state is LinkState.SUSPECT and hop is not None:
                if self._silent.get(peer) is not hop:
                    self._silent[peer] = hop
                    hop.abandon()
                    self.on_lost(peer)
            elif self._silent.pop(peer, None) is hop and hop is not None:
                self._heard_again(hop)

    def on_lost(self, peer: DeviceId) -> None:
        """Take note that what a peer was bringing is not coming: its link is silent, or its session has ended."""
        for entry in self._streams.by_short.values():
            self._interrupt(entry.stream, peer, delivering=False)

    def on_interrupted(self, hop: Hop, stream: Stream, frame: Interrupted) -> None:
        """Take a peer's word that it brings no more for now."""
        self._interrupt(stream, hop.peer, delivering=frame.delivering)

    def _interrupt(self, stream: Stream, peer: DeviceId, *, delivering: bool) -> None:
        concerned = self._exchange.on_interrupted(stream, peer, delivering=delivering)
        if concerned is Concerned.NOBODY:
            return
        for hop in self._neighbourhood.hops_of(stream):
            if hop.peer != peer and (concerned is Concerned.BEHIND or hop.peer == stream.supply.bringer):
                self._exchange.tell(hop, stream)
                hop.send(Interrupted(stream.short, delivering=True))

    def _heard_again(self, hop: Hop) -> None:
        for entry in list(self._streams.by_short.values()):
            stream = entry.stream
            if hop in self._neighbourhood.reach_of(stream):
                # The peer may not have noticed, and wait for what was dropped here meanwhile.
                hop.send(Interrupted(stream.short, delivering=False))
                self._greet(hop, stream, self._neighbourhood.table_of(stream).current)
