"""A chunk's way through this device: repeat test, open, keep, and on to the next hops (M6 to M8)."""

from __future__ import annotations

from collections import Counter

from agent.core.channels import ChannelTable
from agent.core.entry import Entry
from agent.core.hop import Hop
from agent.core.manners import Decision, Forwarding
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
from common.frames import AskGraph
from common.graph import short_epoch
from common.ids import ChannelId, DeviceId
from common.sealing import TAG_BYTES


class Forwarder:
    """Receives chunks, cuts them at the source, and owes them to next hops.

    Args:
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        neighbourhood: finds hops and cursors.
        drops: counts what was dropped, by reason.
    """

    def __init__(
        self,
        peers: Peers,
        channels: ChannelTable,
        streams: StreamTable,
        neighbourhood: Neighbourhood,
        drops: Counter[str],
    ) -> None:
        self.orphans = Orphans(drops)
        self._peers = peers
        self._channels = channels
        self._streams = streams
        self._neighbourhood = neighbourhood
        self._drops = drops
        self._routes: dict[tuple[int, int, int, DeviceId | None], list[Hop]] = {}
        self._manners_waiting = False
        self._cut_more = False

    def receive_chunk(self, hop: Hop, datagram: bytes, socket_channel: ChannelId | None, now: float) -> None:
        """Take a chunk's datagram.

        Args:
            hop: over which it came.
            datagram: its bytes.
            socket_channel: the channel of the socket it came in on, if that socket belongs to one (M7).
            now: monotonic seconds.
        """
        first, session, low_number, epoch, _, short, word = BOTH_HEADERS.unpack_from(datagram)
        counters = hop.counters
        counters.bytes_received += len(datagram)
        if session != hop.session.local[0]:
            self._drops["chunk-of-old-session"] += 1
            return
        entry = self._streams.by_short.get(short)
        if entry is None and short in self._streams.declined:
            # Its sender would repeat it for ever. Nothing here can authenticate it, which on_chunk allows for.
            hop.on_chunk(low_number, now)
            self._drops["chunk-of-declined-stream"] += 1
            return
        if entry is None:
            self.orphans.hold(hop, short, datagram, socket_channel, now)
            return
        stream = entry.stream
        if socket_channel is not None and socket_channel != stream.opening.channel:
            self._drops["chunk-on-wrong-socket"] += 1
            return
        flags, number = split_word(word)
        kind = first >> 4
        chunk = datagram[HOP_HEADER_BYTES:]
        # A repeated chunk is opened too: nothing is acknowledged that did not authenticate.
        repeated = stream.is_repeated(number, kind)
        try:
            plain = stream.open(number, flags, chunk)
        except DecodeError:
            self._drops["chunk-not-authentic"] += 1
            return
        hop.on_chunk(low_number, now)
        self._peers.on_heard(hop.peer, now)
        if repeated:
            counters.note_repeated(first_crossing=kind == PacketType.DATA)
            return
        counters.chunks_received += 1
        cursor = hop.cursors.get(short) or self._neighbourhood.cursor(hop, stream)
        cursor.reported.add(number)
        stream.progress_at = stream.active_at = now
        onward = PacketType.PULLED if kind == PacketType.PULLED else PacketType.DATA
        self._keep(entry, number, flags, chunk, plain, now)
        if stream.spec.distribute:
            self._distribute(Forwarding(stream, number, len(datagram), epoch, first & 15, hop.peer, onward), now)

    def drop_declined(self, now: float) -> None:
        """Drop the chunks that waited for an opening which this device has declined."""
        for short in self.orphans.waiting():
            if short in self._streams.declined:
                for hop, datagram, channel in self.orphans.take(short)[0]:
                    self.receive_chunk(hop, datagram, channel, now)

    def _keep(self, entry: Entry, number: int, flags: int, chunk: bytes, plain: bytes, now: float) -> None:
        stream = entry.stream
        try:
            stream.keep(number, flags, chunk, plain)
        except StoreError as error:
            self._streams.refuse(entry, error, now)
            stream.keep(number, flags, chunk, plain)
        if stream.wanted:
            stream.wanted.discard(number)
        if entry.retention is not None:
            entry.retention.on_kept(number, len(plain), now)
        if stream.sink is not None:
            for event in stream.sink.on_chunk(number, flags, plain):
                self._streams.note(entry, event, now)
        if not entry.ended and (stream.complete or number == stream.closing):
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
        key = (stream.short, known.epoch, tree, item.previous)
        hops = self._routes.get(key)
        if hops is None:
            hops = self._routes[key] = self._route(stream, known, tree, item.previous)
        epoch = short_epoch(known.epoch)
        for hop in hops:
            hop.owe(hop.cursors[stream.short], item.number, epoch, tree, item.kind)

    def _route(self, stream: Stream, known: Known, tree: int, previous: DeviceId | None) -> list[Hop]:
        """Return the hops to the next hops (M8) over links that are there, told of the stream and its graph."""
        hops = []
        for peer in known.next_hops(tree, previous):
            hop = self._peers.hops.get(peer)
            if hop is not None:
                self._neighbourhood.introduce(hop, stream, known)
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
            for _ in range(room):
                if not left:
                    self._cut_more = True
                    return
                left -= 1
                known_before = len(stream.held)
                cut = source.cut()
                if cut is None:
                    return
                number, chunk = cut
                if entry.retention is not None:
                    entry.retention.on_kept(number, len(chunk) - CHUNK_HEADER_BYTES - TAG_BYTES, now)
                stream.progress_at = stream.active_at = now
                fresh = len(stream.held) > known_before
                if fresh:
                    self._distribute(Forwarding(stream, number, len(chunk), None, 0, None, PacketType.DATA), now)
                if not manner.may_cut(stream):
                    return

    def _settle(self, entry: Entry) -> None:
        """Let the tags of what was just cut outlive a crash before any of it is sent."""
        source, stream = entry.source, entry.stream
        try:
            stream.store.flush()
        except StoreError as error:
            if isinstance(source, FileSource):
                source.failed = error
            for hop in self._neighbourhood.hops_of(stream):
                self._neighbourhood.cursor(hop, stream).forget_owed()

    def _room(self, stream: Stream) -> int:
        """Return how many chunks the fastest next hop would take; a message never waits for a missing neighbour."""
        hops = self._neighbourhood.hops_of(stream)
        if not hops:
            alone = stream.opening.kind == "message" or stream.spec.routing == "overflow"
            return CUT_AHEAD if alone else 0
        return CUT_AHEAD - min(self._neighbourhood.cursor(hop, stream).owed_count() for hop in hops)

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
