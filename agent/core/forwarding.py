"""A chunk's way through this device: repeat test, open, keep, and on to the next hops (M6 to M8)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from agent.core.channels import Channel, ChannelTable
from agent.core.cursor import Cursor
from agent.core.events import (
    Event,
    FileFailed,
    FileVerified,
    Receipt,
    ReceiptsChanged,
    StreamCancelled,
    StreamProgress,
)
from agent.core.exchange import Exchange
from agent.core.hop import Hop
from agent.core.manners import Decision, Forwarding
from agent.core.orphans import Orphans
from agent.core.peers import Peers
from agent.core.routing import Known
from agent.core.source import CUT_AHEAD, FileSource
from agent.core.store import StoreError
from agent.core.stream import Stream, split_word
from agent.core.streams import Entry, StreamTable
from common.datagrams import BOTH_HEADERS, HOP_HEADER_BYTES, KNOWN_FLAGS, PacketType
from common.errors import DecodeError, RefusedError
from common.frames import AskGraph, Cancel, GraphRecord, ReceiptEntry, Receipts, StreamOpening
from common.graph import decode_untrusted as decode_graph
from common.graph import short_epoch
from common.ids import ChannelId, DeviceId
from common.limits import MAX_GRAPH_PARTS, MAX_REASON_BYTES, MAX_RECEIPTS_PER_FRAME
from common.sealing import NONCE_BYTES

PURPOSE_GRAPH: Final = b"graph"
PURPOSE_CANCEL: Final = b"cancel"
PROGRESS_EVERY_S: Final = 0.1
GRAPH_PART_BYTES: Final = 1_024
_SHORT_BYTES: Final = 4


class Forwarder:
    """Receives chunks, owes them to next hops, and looks after every stream.

    Args:
        device: this device.
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        drops: counts what was dropped, by reason.
        events: where news for the shell go.
    """

    def __init__(
        self,
        device: DeviceId,
        peers: Peers,
        channels: ChannelTable,
        streams: StreamTable,
        drops: Counter[str],
        events: deque[Event],
    ) -> None:
        self._device = device
        self._peers = peers
        self._channels = channels
        self._streams = streams
        self._drops = drops
        self._events = events
        self.orphans = Orphans(drops)
        self.exchange = Exchange(self.neighbour_hops, peers.hops, self.cursor)
        self._routes: dict[tuple[int, int, int, DeviceId | None], list[Hop]] = {}
        self._manners_waiting = False

    # --- a chunk that arrives -------------------------------------------------------------------------------------

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
        if entry is None:
            self.orphans.hold(hop, short, datagram, socket_channel, now)
            return
        stream = entry.stream
        if socket_channel is not None and socket_channel != stream.opening.channel:
            self._drops["chunk-on-wrong-socket"] += 1
            return
        flags, number = split_word(word)
        kind = first >> 4
        if stream.is_repeated(number):
            hop.on_chunk(low_number, now)
            if kind == PacketType.DATA:
                counters.duplicates_received += 1
            else:
                counters.repairs_received += 1
            return
        chunk = datagram[HOP_HEADER_BYTES:]
        try:
            if flags & ~KNOWN_FLAGS:
                raise DecodeError("unknown chunk flags")
            plain = stream.open(number, chunk)
        except DecodeError:
            self._drops["chunk-not-authentic"] += 1
            return
        hop.on_chunk(low_number, now)
        self._peers.on_heard(hop.peer, now)
        counters.chunks_received += 1
        cursor = hop.cursors.get(short) or self.cursor(hop, stream)
        cursor.reported.add(number)
        stream.upstream = hop.peer
        stream.progress_at = now
        onward = PacketType.PULLED if kind == PacketType.PULLED else PacketType.DATA
        self._keep(entry, number, flags, chunk, plain, now)
        if stream.spec.distribute:
            self._distribute(Forwarding(stream, number, len(datagram), epoch, first & 15, hop.peer, onward), now)

    def _keep(self, entry: Entry, number: int, flags: int, chunk: bytes, plain: bytes, now: float) -> None:
        stream = entry.stream
        try:
            stream.keep(number, flags, chunk, plain)
        except StoreError as error:
            self._streams.refuse(entry, error)
            stream.keep(number, flags, chunk, plain)
        if entry.retention is not None:
            entry.retention.on_kept(number, len(plain), now)
        if stream.sink is not None:
            for event in stream.sink.on_chunk(number, flags, plain):
                self._emit(entry, event, now)
        if stream.complete and not entry.ended:
            entry.ended = True
            self._channel(stream).manner.on_stream_end(now)

    def _emit(self, entry: Entry, event: Event, now: float) -> None:
        self._events.append(event)
        stream = entry.stream
        if isinstance(event, FileVerified):
            stream.role = "done"
            stream.finished_at = now
            entry.book.put(self._device, Receipt("verified", event.size_bytes))
        elif isinstance(event, FileFailed):
            stream.finished_at = now
            stream.refused = event.reason
            entry.book.put(self._device, Receipt("refused", stream.held_bytes, event.reason))

    # --- to the next hops -----------------------------------------------------------------------------------------

    def _distribute(self, item: Forwarding, now: float) -> None:
        known = self._channel(item.stream).manner.admit(item, now)
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
                self.introduce(hop, stream, known)
                hops.append(hop)
        return hops

    def introduce(self, hop: Hop, stream: Stream, known: Known | None) -> Cursor:
        """See to it that a peer learns the stream's opening, and an embedded graph, ahead of the chunks."""
        cursor = self.cursor(hop, stream)
        if not cursor.opening_sent:
            cursor.opening_sent = True
            hop.send(StreamOpening(self._streams.sealed_opening(stream)))
        if known is not None and stream.spec.routing == "embedded":
            self.send_graph(hop, stream, known.epoch)
        return cursor

    def cursor(self, hop: Hop, stream: Stream) -> Cursor:
        """Return a peer's place in a stream."""
        cursor = hop.cursors.get(stream.short)
        if cursor is None:
            cursor = hop.cursors[stream.short] = Cursor(stream)
        return cursor

    def cut(self, now: float) -> None:
        """Let sources cut what their next hops have room for."""
        for entry in list(self._streams.sources.values()):
            source = entry.source
            if source is None:
                continue
            self._cut(entry, now)
            if isinstance(source, FileSource):
                self._finish_source(entry, source, now)

    def _cut(self, entry: Entry, now: float) -> None:
        stream, source = entry.stream, entry.source
        manner = self._channel(stream).manner
        while source is not None and manner.may_cut(stream) and (room := self._room(stream)) > 0:
            for _ in range(room):
                known_before = len(stream.held)
                cut = source.cut()
                if cut is None:
                    return
                number, chunk = cut
                if entry.retention is not None:
                    entry.retention.on_kept(number, len(chunk), now)
                stream.progress_at = now
                fresh = len(stream.held) > known_before
                if fresh:
                    self._distribute(Forwarding(stream, number, len(chunk), None, 0, None, PacketType.DATA), now)
                if not manner.may_cut(stream):
                    return

    def _room(self, stream: Stream) -> int:
        """Return how many chunks the fastest next hop would take; a message never waits for a missing neighbour."""
        hops = self.neighbour_hops(stream)
        if not hops:
            alone = stream.opening.kind == "message" or stream.spec.routing == "overflow"
            return CUT_AHEAD if alone else 0
        return CUT_AHEAD - min(self.cursor(hop, stream).owed_count() for hop in hops)

    def _finish_source(self, entry: Entry, source: FileSource, now: float) -> None:
        stream = entry.stream
        if source.failed is not None:
            error, source.failed = source.failed, None
            self.cancel(stream.opening.hex, error.reason, now)
            self._events.append(FileFailed(stream.opening.hex, error.reason, error.detail))
        elif source.done and not entry.ended:
            entry.ended = True
            stream.finished_at = now
            self._channel(stream).manner.on_stream_end(now)

    # --- graphs ---------------------------------------------------------------------------------------------------

    def on_graph(self, old: Known | None, now: float) -> None:
        """Adapt to a new current graph of the group."""
        self._routes.clear()
        self._mark_tree(now)
        new = self._channels.table.current
        for entry in list(self._streams.by_short.values()):
            if entry.stream.spec.routing != "embedded" and new is not None:
                self._on_new_graph(entry.stream, old, new)

    def embed_sources(self, now: float) -> None:
        """At sources that embed the graph: let the newest whole one govern the stream from here on (M12)."""
        for entry in list(self._streams.sources.values()):
            if entry.stream.spec.routing == "embedded":
                self._embed(entry.stream, now)

    def _embed(self, stream: Stream, now: float) -> None:
        current = self._channels.table.current
        if current is None or current.graph is None or self._streams.keys is None:
            return
        old = stream.graphs.current
        if stream.graphs.learn_graph(current.graph, now):
            plain = stream.short.to_bytes(_SHORT_BYTES, "big") + current.graph.encode()
            nonce = self._streams.entropy(NONCE_BYTES)
            stream.graph_blobs[current.epoch] = self._streams.keys.seal(PURPOSE_GRAPH, plain, nonce)
            self._routes.clear()
            self._on_new_graph(stream, old, current)

    def learn_embedded(self, stream: Stream, epoch: int, blob: bytes, now: float) -> None:
        """At a relay: take a graph that its source put into a stream.

        Raises:
            DecodeError: it is not authentic, or of another stream or epoch.
        """
        if self._streams.keys is None:
            raise DecodeError("no group key")
        plain = self._streams.keys.open(PURPOSE_GRAPH, blob)
        if int.from_bytes(plain[:_SHORT_BYTES], "big") != stream.short:
            raise DecodeError("a graph of another stream")
        graph = decode_graph(plain[_SHORT_BYTES:])
        if graph.epoch != epoch:
            raise DecodeError("a graph of another epoch")
        old = stream.graphs.current
        stream.graph_blobs[epoch] = blob
        for stale in [held for held in stream.graph_blobs if stream.graphs.get(held) is None and held != epoch]:
            del stream.graph_blobs[stale]
        if stream.graphs.learn_graph(graph, now) and stream.graphs.current is not None:
            self._routes.clear()
            self._on_new_graph(stream, old, stream.graphs.current)
        self.release(now)

    def send_graph(self, hop: Hop, stream: Stream, epoch: int) -> None:
        """Send an embedded graph ahead of the chunks it governs, once per hop."""
        cursor = self.cursor(hop, stream)
        blob = stream.graph_blobs.get(epoch)
        if blob is None or epoch in cursor.graphs_sent:
            return
        cursor.graphs_sent[epoch] = None
        for frame in graph_records(stream.short, epoch, blob):
            hop.send(frame)

    def _on_new_graph(self, stream: Stream, old: Known | None, new: Known) -> None:
        tree = new.tree_for(stream.spec.objective)
        before = old.in_tree(old.tree_for(stream.spec.objective)) if old is not None else ()
        after = new.in_tree(tree)
        gone = [peer for peer in before if peer not in after]
        if gone:
            self.exchange.on_old_neighbours(stream, gone)
        for peer in after:
            hop = self._peers.hops.get(peer)
            if hop is not None and peer not in before:
                self._greet(hop, [stream], new)

    def neighbour_hops(self, stream: Stream) -> list[Hop]:
        """Return the hops to a stream's neighbours in its current graph."""
        known = self._channel(stream).manner.table_of(stream).current
        if known is None:
            return []
        peers = known.in_tree(known.tree_for(stream.spec.objective))
        if not stream.spec.distribute and stream.role != "source":
            # Delivered here and no further: the source alone serves its neighbours (M7).
            peers = tuple(peer for peer in peers if peer == stream.opening.source)
        return [hop for peer in peers if (hop := self._peers.hops.get(peer)) is not None]

    # --- links ----------------------------------------------------------------------------------------------------

    def on_links_changed(self) -> None:
        """Adapt to a link that opened or closed."""
        self._routes.clear()

    def on_opened(self, hop: Hop, now: float) -> None:
        """Greet a peer with whom a session stands: a tree neighbour hears what is held here."""
        self._routes.clear()
        self._mark_tree(now)
        for entry in list(self._streams.by_short.values()):
            if hop in self.neighbour_hops(entry.stream):
                self._greet(hop, [entry.stream], None)

    def on_closed(self, peer: DeviceId, now: float) -> None:
        """Forget a peer's session, and with it all that was owed."""
        del now
        self._routes.clear()
        self.orphans.forget_peer(peer)
        for entry in self._streams.by_short.values():
            if entry.stream.upstream == peer:
                entry.stream.upstream = None

    def _greet(self, hop: Hop, streams: Iterable[Stream], known: Known | None) -> None:
        for stream in streams:
            if stream.held:
                self.introduce(hop, stream, known or self._channel(stream).manner.table_of(stream).current)
            entry = self._streams.by_short[stream.short]
            self._send_receipts(hop, stream, entry.book.entries())
        self.exchange.greet(hop, streams)

    def _mark_tree(self, now: float) -> None:
        current = self._channels.table.current
        if current is not None:
            self._peers.set_tree(current.all_neighbours(), now)

    # --- time -----------------------------------------------------------------------------------------------------

    def release(self, now: float) -> None:
        """Distribute what waited for an epoch or an answer, and ask what has to be asked."""
        if not self._manners_waiting:
            return
        waiting = False
        for channel in list(self._channels.by_name.values()):
            decisions: list[Decision] = channel.manner.release(now)
            for item, known in decisions:
                self._owe(item, known)
            for peer, stream, epoch in channel.manner.poll_questions(now):
                hop = self._peers.hops.get(peer)
                if hop is not None:
                    hop.send(AskGraph(stream, epoch))
            waiting = waiting or channel.manner.holds_anything()
        self._manners_waiting = waiting

    def poll_timeout(self) -> float | None:
        """Return when something that waits is due."""
        if not self._manners_waiting:
            return None
        times = [channel.manner.poll_timeout() for channel in self._channels.by_name.values()]
        due = [at for at in times if at is not None]
        return min(due) if due else None

    def tick(self, now: float) -> None:
        """Look after every stream: HAVE, WANT, receipts, progress, retention."""
        resuming = self._streams.verify_some()
        for entry in list(self._streams.by_short.values()):
            if resuming and self._streams.is_resuming(entry):
                continue
            stream = entry.stream
            lowest = stream.lowest
            self.exchange.tick(stream, now)
            if stream.sink is not None:
                if stream.lowest > lowest:
                    for event in stream.sink.skip_below(stream.lowest):
                        self._emit(entry, event, now)
                for event in stream.sink.advance():
                    self._emit(entry, event, now)
            self._progress(entry, now)
            self._pass_receipts(entry, now)
        for stream in self._streams.expire(now):
            self._drop(stream)
        self.orphans.ask(now)

    def _progress(self, entry: Entry, now: float) -> None:
        stream = entry.stream
        held = stream.held_bytes
        if stream.opening.kind != "file" or entry.source is not None or held == entry.told_bytes:
            return
        if now - entry.progress_at >= PROGRESS_EVERY_S:
            entry.told_bytes, entry.progress_at = held, now
            self._events.append(StreamProgress(stream.opening.hex, held, stream.opening.size_bytes or 0))
            if stream.role == "receive" and stream.refused is None:
                entry.book.put(self._device, Receipt("receiving", held))

    # --- receipts -------------------------------------------------------------------------------------------------

    def on_receipts(self, hop: Hop, frame: Receipts, now: float) -> None:
        """Take receipts that a peer passes on."""
        entry = self._streams.by_short.get(frame.stream)
        if entry is None:
            return
        others = [item for item in frame.entries if item.device != self._device]
        if entry.book.merge(others):
            self._pass_receipts(entry, now)

    def _pass_receipts(self, entry: Entry, now: float) -> None:
        due = entry.book.due_at()
        if due is None or now < due:
            return
        stream = entry.stream
        if entry.source is not None or stream.role == "source":
            entry.book.take(now)
            self._events.append(ReceiptsChanged(stream.opening.hex, dict(entry.book.receipts)))
            return
        up = self._peers.hops.get(stream.upstream) if stream.upstream is not None else None
        hops = [up] if up is not None else self.neighbour_hops(stream)
        if hops:
            entries = entry.book.take(now)
            for hop in hops:
                self._send_receipts(hop, stream, entries)

    def _send_receipts(self, hop: Hop, stream: Stream, entries: list[ReceiptEntry]) -> None:
        for at in range(0, len(entries), MAX_RECEIPTS_PER_FRAME):
            hop.send(Receipts(stream.short, tuple(entries[at : at + MAX_RECEIPTS_PER_FRAME])))

    # --- cancelling -----------------------------------------------------------------------------------------------

    def cancel(self, stream_id: str, reason: str, now: float) -> None:
        """Take a stream back that began here; see ``Node.cancel``."""
        for entry in self._streams.sources.values():
            stream = entry.stream
            if stream.opening.hex == stream_id and self._streams.keys is not None:
                plain = stream.opening.stream + reason.encode()[:MAX_REASON_BYTES]
                sealed = self._streams.keys.seal(PURPOSE_CANCEL, plain, self._streams.entropy(NONCE_BYTES))
                self._cancelled(entry, Cancel(stream.short, sealed), reason, None, now)
                return
        raise RefusedError("no-such-stream", f"no stream {stream_id[:40]} began at this device")

    def on_cancel(self, hop: Hop, frame: Cancel, now: float) -> None:
        """Drop a stream that its source took back, and pass that on.

        Raises:
            DecodeError: it is not authentic.
        """
        entry = self._streams.by_short.get(frame.stream)
        if entry is None or self._streams.keys is None or entry.stream.role == "done":
            return
        plain = self._streams.keys.open(PURPOSE_CANCEL, frame.sealed)
        opening = entry.stream.opening
        if plain[: len(opening.stream)] != opening.stream:
            raise DecodeError("a cancel of another stream")
        reason = plain[len(opening.stream) :].decode(errors="replace")
        self._cancelled(entry, frame, reason, hop.peer, now)

    def _cancelled(self, entry: Entry, frame: Cancel, reason: str, previous: DeviceId | None, now: float) -> None:
        stream = entry.stream
        for hop in self.neighbour_hops(stream):
            if hop.peer != previous:
                hop.send(frame)
        entry.book.put(self._device, Receipt("cancelled", stream.held_bytes, reason))
        self._events.append(StreamCancelled(stream.opening.hex, reason))
        stream.store.discard()
        self._drop(self._streams.bury(entry))
        del now

    def _drop(self, stream: Stream) -> None:
        for hop in self._peers.hops.values():
            cursor = hop.cursors.get(stream.short)
            if cursor is not None:
                hop.drop(cursor)
        self.exchange.forget(stream)
        self._routes.clear()

    def _channel(self, stream: Stream) -> Channel:
        return self._channels.of(stream)


def graph_records(stream: int, epoch: int, blob: bytes) -> list[GraphRecord]:
    """Cut a graph into records that fit the smallest datagram; none if it is too large to travel."""
    parts = -(-len(blob) // GRAPH_PART_BYTES)
    if parts > MAX_GRAPH_PARTS:
        return []
    return [
        GraphRecord(stream, epoch, part, parts, blob[part * GRAPH_PART_BYTES : (part + 1) * GRAPH_PART_BYTES])
        for part in range(parts)
    ]
