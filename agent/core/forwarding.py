"""A chunk's way through this device: repeat test, open, keep, and on to the next hops (M6 to M8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from agent.core.channels import ChannelTable
from agent.core.degraded import Degraded
from agent.core.entry import Entry
from agent.core.flooding import Flooding
from agent.core.hop import Hop
from agent.core.manner import Decision, Forwarding
from agent.core.neighbourhood import Neighbourhood
from agent.core.orphans import Orphans
from agent.core.peers import Peers
from agent.core.routing import Known
from agent.core.source import CUT_AHEAD, CUT_AT_ONCE, FileSource
from agent.core.store import StoreError
from agent.core.stream import Stream, split_word
from agent.core.streams import StreamTable
from common.datagrams import BOTH_HEADERS, CHUNK_HEADER_BYTES, HOP_HEADER_BYTES, PacketType
from common.errors import DecodeError
from common.graph import short_epoch
from common.graph_frames import AskGraph
from common.ids import ChannelId, DeviceId
from common.sealing import TAG_BYTES

PULLED_AHEAD_BYTES: Final = 4 * 1024 * 1024
"""How far a file is cut ahead of what those report who pull it: 300 Mbit/s with a HAVE every 100 ms."""
SEAL_BYTES: Final = CHUNK_HEADER_BYTES + TAG_BYTES
"""By how much a chunk is longer than its plain bytes."""


class Forwarder:
    """Receives chunks, cuts them at the source, and owes them to next hops.

    Args:
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        neighbourhood: finds hops and cursors.
        degraded: counts what is done while an edge is lost.
        drops: counts what was dropped, by reason.
    """

    def __init__(
        self,
        peers: Peers,
        channels: ChannelTable,
        streams: StreamTable,
        neighbourhood: Neighbourhood,
        degraded: Degraded,
        drops: Counter[str],
    ) -> None:
        self.orphans = Orphans(drops)
        self._peers = peers
        self._channels = channels
        self._streams = streams
        self._neighbourhood = neighbourhood
        self._degraded = degraded
        self._flooding = Flooding(neighbourhood, degraded)
        self._drops = drops
        self._routes: dict[tuple[int, int, int, DeviceId | None, PacketType], list[Hop]] = {}
        self._manners_waiting = False
        self._cut_more = False

    def receive_run(self, hop: Hop, datagrams: Sequence[bytes], socket_channel: ChannelId | None, now: float) -> None:
        """Take the datagrams of consecutive chunks.

        Args:
            hop: over which they came.
            datagrams: their bytes, at least one; hop number and chunk number rise by one from each to the next, and
                nothing else in the headers differs.
            socket_channel: the channel of the socket they came in on, if that socket belongs to one (M7).
            now: monotonic seconds.
        """
        first, session, low_number, _, _, short, word = BOTH_HEADERS.unpack_from(datagrams[0])
        counters = hop.counters
        count = len(datagrams)
        size_bytes = sum(map(len, datagrams))
        counters.bytes_received += size_bytes
        if session != hop.session.local[0]:
            self._drops["chunk-of-old-session"] += count
            return
        entry = self._streams.by_short.get(short)
        if entry is None:
            self._receive_unknown(hop, datagrams, socket_channel, now)
            return
        stream = entry.stream
        if socket_channel is not None and socket_channel != stream.opening.channel:
            self._drops["chunk-on-wrong-socket"] += count
            return
        flags, start = split_word(word)
        stop = start + count
        kind = first >> 4
        # A repeated chunk is opened too: nothing is acknowledged that did not authenticate.
        repeated = stream.is_repeated(start, stop, kind)
        chunks = [datagram[HOP_HEADER_BYTES:] for datagram in datagrams]
        try:
            plains = [] if repeated and count > 1 else stream.open(start, flags, chunks)
        except DecodeError:
            if count == 1:
                self._drops["chunk-not-authentic"] += 1
                return
            plains = []
        if not plains:
            # Not all of them are alike: each is judged by itself.
            counters.bytes_received -= size_bytes
            for datagram in datagrams:
                self.receive_run(hop, [datagram], socket_channel, now)
            return
        hop.on_chunks(low_number, datagrams, now)
        self._peers.on_heard(hop.peer, now, chunks=True)
        if repeated:
            counters.note_repeated(first_crossing=kind == PacketType.DATA)
        elif not self._in_dispute(hop, stream, start, stop):
            self._take(hop, entry, datagrams, chunks, plains, now)

    def _take(
        self,
        hop: Hop,
        entry: Entry,
        datagrams: Sequence[bytes],
        chunks: Sequence[bytes],
        plains: Sequence[bytes],
        now: float,
    ) -> None:
        """Keep the consecutive chunks of some datagrams, which are new here, and send them on."""
        stream, count = entry.stream, len(chunks)
        first, _, _, epoch, _, short, word = BOTH_HEADERS.unpack_from(datagrams[0])
        flags, start = split_word(word)
        stop, kind = start + count, first >> 4
        hop.counters.chunks_received += count
        cursor = hop.cursors.get(short) or self._neighbourhood.cursor(hop, stream)
        cursor.reported.add_range(start, stop)
        self._note_way(hop, stream, kind, start, stop)
        stream.on_arrival(now)
        onward = PacketType.PULLED if kind == PacketType.PULLED else PacketType.DATA
        self._keep(entry, start, flags, chunks, plains, now)
        if stream.spec.distribute:
            self._distribute(
                Forwarding(stream, start, stop, sum(map(len, datagrams)), epoch, first & 15, hop.peer, onward), now
            )

    def _in_dispute(self, hop: Hop, stream: Stream, start: int, stop: int) -> bool:
        """Whether chunks are to be taken of another peer than this one, and are dropped."""
        if stream.dispute is None or stream.dispute.admits(hop.peer, start, stop):
            return False
        self._drops["chunk-in-dispute"] += stop - start
        return True

    def _note_way(self, hop: Hop, stream: Stream, kind: int, start: int, stop: int) -> None:
        """Note who brings a stream unasked: not who answers a WANT, or floods what there is no edge for."""
        asked = kind == PacketType.PULLED and hop.cursors[stream.short].asked
        if asked and self._neighbourhood.bridged(stream):
            self._degraded.chunks_pulled += stop - start
        if stream.supply.bringer == hop.peer or asked:
            return
        if kind != PacketType.PULLED or hop in self._neighbourhood.hops_of(stream):
            stream.supply.brought(hop.peer, start)

    def _receive_unknown(
        self, hop: Hop, datagrams: Sequence[bytes], socket_channel: ChannelId | None, now: float
    ) -> None:
        """Take chunks of a stream that was declined, or whose opening has not come yet."""
        _, _, low_number, _, _, short, _ = BOTH_HEADERS.unpack_from(datagrams[0])
        if short in self._streams.declined:
            # Their sender would repeat them for ever. Nothing here can authenticate them: on_chunks allows for that.
            hop.on_chunks(low_number, datagrams, now)
            self._drops["chunk-of-declined-stream"] += len(datagrams)
            return
        for datagram in datagrams:
            self.orphans.hold(hop, short, datagram, socket_channel, now)

    def drop_declined(self, now: float) -> None:
        """Drop the chunks that waited for an opening which this device has declined."""
        for short in self.orphans.waiting():
            if short in self._streams.declined:
                for hop, datagram, channel in self.orphans.take(short)[0]:
                    self.receive_run(hop, [datagram], channel, now)

    def _keep(
        self, entry: Entry, start: int, flags: int, chunks: Sequence[bytes], plains: Sequence[bytes], now: float
    ) -> None:
        stream = entry.stream
        try:
            stream.keep(start, flags, chunks, plains)
        except StoreError as error:
            self._streams.refuse(entry, error, now)
            stream.keep(start, flags, chunks, plains)
        if stream.wanted:
            stream.wanted.remove_range(start, start + len(chunks))
        if entry.retention is not None:
            entry.retention.on_kept(start, map(len, plains), now)
        if stream.sink is not None:
            for event in stream.sink.on_run(start, flags, plains):
                self._streams.note(entry, event, now)
            if stream.urgent:
                self._streams.deliver_soon(entry)
        if not entry.ended and (stream.complete or start == stream.closing):
            entry.ended = True
            self._channels.of(stream).manner.on_stream_end(now)

    def _distribute(self, item: Forwarding, now: float) -> None:
        known = self._channels.of(item.stream).manner.admit(item, now)
        if known is None:
            self._manners_waiting = True
        else:
            self._owe(item, known)

    def _owe(self, item: Forwarding, known: Known) -> None:
        stream = item.stream
        tree = item.tree if item.epoch is not None else known.tree_for(stream.spec.objective)
        key = (stream.short, known.epoch, tree, item.previous, item.kind)
        hops = self._routes.get(key)
        if hops is None:
            hops = self._routes[key] = self._route(item, known, tree)
        epoch = short_epoch(known.epoch)
        for hop in hops:
            hop.owe(hop.cursors[stream.short], item.start, item.stop, epoch, tree, item.kind)
        self._flooding.spread(stream, item.start, item.stop, known, tree)

    def _route(self, item: Forwarding, known: Known, tree: int) -> list[Hop]:
        """Return the hops to the next hops (M8) over links that are there, told of the stream and its graph.

        What was pulled goes away from the source only: who is nearer to it has it, or pulls it.
        """
        stream = item.stream
        hops = []
        for peer in known.next_hops(tree, item.previous):
            hop = self._neighbourhood.speaking(peer)
            if hop is None:
                continue
            self._neighbourhood.introduce(hop, stream, known)
            if item.kind is PacketType.DATA or not self._neighbourhood.leads_back(stream, known, tree, peer):
                hops.append(hop)
        return hops

    def cut(self, now: float) -> None:
        """Let sources cut what their next hops have room for, a bounded part at a time."""
        self._cut_more = False
        for entry in list(self._streams.sources.values()):
            source = entry.source
            self._cut(entry, now)
            self._settle(entry)
            if isinstance(source, FileSource) and source.done and not entry.ended:
                entry.ended = True
                entry.stream.finished_at = now
                self._channels.of(entry.stream).manner.on_stream_end(now)

    def _cut(self, entry: Entry, now: float) -> None:
        stream, source = entry.stream, entry.source
        manner = self._channels.of(stream).manner
        left = CUT_AT_ONCE
        while source is not None and manner.may_cut(stream) and (room := self._room(stream)) > 0:
            if not left:
                self._cut_more = True
                return
            cut = source.cut(min(room, left, manner.cut_run))
            if cut is None:
                return
            left -= len(cut.chunks)
            start, stop = cut.start, cut.start + len(cut.chunks)
            size_bytes = sum(map(len, cut.chunks)) + len(cut.chunks) * HOP_HEADER_BYTES
            if entry.retention is not None:
                entry.retention.on_kept(start, [len(chunk) - SEAL_BYTES for chunk in cut.chunks], now)
            stream.progress_at = stream.active_at = now
            if cut.fresh:
                self._distribute(Forwarding(stream, start, stop, size_bytes, None, 0, None, PacketType.DATA), now)

    def _settle(self, entry: Entry) -> None:
        """Let the tags of what was just cut outlive a crash before any of it is sent."""
        source, stream = entry.source, entry.stream
        try:
            stream.store.flush()
        except StoreError as error:
            if isinstance(source, FileSource):
                source.failed = error
            for hop in self._neighbourhood.reach_of(stream):
                self._neighbourhood.cursor(hop, stream).forget_owed()

    def _room(self, stream: Stream) -> int:
        """Return how many chunks the fastest next hop would take; a message never waits for a missing neighbour."""
        hops = self._neighbourhood.hops_of(stream)
        if not hops:
            alone = stream.opening.kind == "message" or stream.spec.routing == "overflow"
            return CUT_AHEAD if alone else self._room_for_pulls(stream)
        owed = min(self._neighbourhood.cursor(hop, stream).owed_count() for hop in hops)
        # Cutting in runs costs less than cutting after every train that leaves.
        return CUT_AHEAD - owed if stream.urgent or owed <= CUT_AHEAD // 2 else 0

    def _room_for_pulls(self, stream: Stream) -> int:
        """Return how many chunks may be cut where no neighbour is left to send to, but others pull."""
        hops = self._neighbourhood.reach_of(stream)
        if not hops:
            return 0
        theirs = max(self._neighbourhood.cursor(hop, stream).reported.last() or 0 for hop in hops)
        return PULLED_AHEAD_BYTES // stream.opening.piece_bytes + theirs - (stream.held.last() or 0)

    def forget_routes(self) -> None:
        """Work the next hops out anew: a link, a graph or a stream changed."""
        self._routes.clear()

    def release(self, now: float) -> None:
        """Distribute what waited for an epoch or an answer, and ask what has to be asked."""
        if not self._manners_waiting:
            return
        waiting = False
        for channel in self._channels.all():
            decisions: list[Decision] = channel.manner.release(now)
            for item, known in decisions:
                self._owe(item, known)
            for peer, stream, epoch in channel.manner.poll_questions(now):
                hop = self._peers.hops.get(peer)
                if hop is not None:
                    hop.send(AskGraph(stream, epoch))
            waiting = waiting or channel.manner.holds_anything()
        self._manners_waiting = waiting

    def poll_timeout(self, now: float) -> float | None:
        """Return when something that waits is due."""
        if self._cut_more:
            return now
        if not self._manners_waiting:
            return None
        times = [channel.manner.poll_timeout() for channel in self._channels.all()]
        due = [at for at in times if at is not None]
        return min(due) if due else None
