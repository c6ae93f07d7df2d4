"""What a device does for its streams besides forwarding: greet new neighbours, gather receipts, cancel, look after."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from agent.core.bridging import Bridging
from agent.core.channels import ChannelTable
from agent.core.degraded import Degraded
from agent.core.embedding import embed
from agent.core.entry import Entry
from agent.core.events import Event, FileFailed, Receipt, ReceiptsChanged, StreamCancelled, StreamProgress
from agent.core.exchange import Exchange
from agent.core.forwarding import Forwarder
from agent.core.hop import Hop
from agent.core.mending import Mending
from agent.core.neighbourhood import Neighbourhood
from agent.core.peers import Peers
from agent.core.routing import GraphTable, Known
from agent.core.source import FileSource
from agent.core.stream import Stream
from agent.core.streams import Declined, StreamTable
from common.errors import DecodeError, RefusedError
from common.ids import DeviceId
from common.limits import MAX_REASON_BYTES, MAX_RECEIPTS_PER_FRAME
from common.sealing import NONCE_BYTES
from common.signing import PURPOSE_CANCEL, SIGNATURE_BYTES
from common.stream_frames import AskOpening, Cancel, ReceiptEntry, Receipts

PROGRESS_EVERY_S: Final = 0.1


class Upkeep:
    """Looks after every stream.

    Args:
        device: this device.
        table: the graphs of the group known here.
        peers: links and hops.
        channels: rules and manners.
        streams: what is sent and received.
        degraded: knows of lost edges.
        neighbourhood: finds hops and cursors.
        forwarder: a chunk's way.
        events: where news for the shell go.
    """

    def __init__(
        self,
        device: DeviceId,
        table: GraphTable,
        peers: Peers,
        channels: ChannelTable,
        streams: StreamTable,
        degraded: Degraded,
        neighbourhood: Neighbourhood,
        forwarder: Forwarder,
        events: deque[Event],
    ) -> None:
        self.exchange = Exchange(
            neighbourhood.reach_of, neighbourhood.cut_off, neighbourhood.hops_of, peers.hops, neighbourhood.cursor
        )
        self.mending = Mending(peers, streams, neighbourhood, self.exchange, self._greet)
        self.bridging = Bridging(degraded, table, peers, channels, streams, neighbourhood, self.exchange, self._greet)
        self._device = device
        self._table = table
        self._peers = peers
        self._streams = streams
        self._neighbourhood = neighbourhood
        self._forwarder = forwarder
        self._events = events

    # --- graphs and links -----------------------------------------------------------------------------------------

    def on_graph(self, old: Known | None, now: float) -> None:
        """Adapt to a new current graph of the group."""
        self._forwarder.forget_routes()
        self._mark_tree(now)
        new = self._table.current
        for entry in list(self._streams.by_short.values()):
            if entry.stream.spec.routing != "embedded" and new is not None:
                self._on_new_graph(entry.stream, old, new)

    def embed_sources(self, now: float) -> None:
        """At sources that embed the graph: let the newest whole one govern the stream from here on (M12)."""
        for entry in list(self._streams.sources.values()):
            stream = entry.stream
            old = stream.graphs.current
            if stream.spec.routing == "embedded" and embed(stream, self._table.current, self._streams, now):
                self.on_stream_graph(stream, old, now)

    def on_stream_graph(self, stream: Stream, old: Known | None, now: float) -> None:
        """Adapt to a new current graph of a stream that carries its own (M12)."""
        self._forwarder.forget_routes()
        self._mark_tree(now)
        self.bridging.stale = True
        if stream.graphs.current is not None:
            self._on_new_graph(stream, old, stream.graphs.current)

    def _on_new_graph(self, stream: Stream, old: Known | None, new: Known) -> None:
        tree = new.tree_for(stream.spec.objective)
        before = old.in_tree(old.tree_for(stream.spec.objective)) if old is not None else ()
        after = new.in_tree(tree)
        self._streams.by_short[stream.short].book.touch_all()
        gone = [peer for peer in before if peer not in after]
        if gone:
            self.exchange.on_old_neighbours(stream, gone, [peer for peer in after if peer not in before])
        for peer in after:
            hop = self._neighbourhood.speaking(peer)
            if hop is None or hop not in self._neighbourhood.hops_of(stream):
                continue
            if peer not in before:
                self._greet(hop, stream, new)
            elif stream.spec.routing == "embedded":
                self._neighbourhood.send_graph(hop, stream, new.epoch)

    def on_opened(self, hop: Hop, now: float) -> None:
        """Greet a peer with whom a session stands: a tree neighbour hears what is held here."""
        self._forwarder.forget_routes()
        self._mark_tree(now)
        # What an earlier session was bringing has ended with it.
        self.mending.on_lost(hop.peer)
        self.bridging.on_opened(hop)
        for entry in list(self._streams.by_short.values()):
            if hop in self._neighbourhood.reach_of(entry.stream):
                self._greet(hop, entry.stream, self._neighbourhood.table_of(entry.stream).current)

    def on_closed(self, peer: DeviceId, now: float) -> None:
        """Forget a peer's session, and with it all that was owed."""
        del now
        self._forwarder.forget_routes()
        self._forwarder.orphans.forget_peer(peer)
        self.mending.on_lost(peer)
        self.bridging.stale = True
        for entry in self._streams.by_short.values():
            # What went over the dead link may have been lost with it.
            entry.book.touch_all()

    def _greet(self, hop: Hop, stream: Stream, known: Known | None) -> None:
        """Tell a new neighbour of a stream: opening, what is held, receipts."""
        if stream.held:
            self._neighbourhood.introduce(hop, stream, known)
        self.exchange.greet(hop, stream)
        self._send_receipts(hop, stream, self._streams.by_short[stream.short].book.entries())

    def on_ask_opening(self, hop: Hop, stream: Stream) -> None:
        """Introduce a stream again: until its opening arrives, a peer can do nothing with what it is told of it."""
        self._neighbourhood.cursor(hop, stream).opening_sent = False
        self._neighbourhood.introduce(hop, stream, self._neighbourhood.table_of(stream).current)
        self.exchange.greet(hop, stream)
        if hop in self._neighbourhood.towards_source(stream):
            self._send_receipts(hop, stream, self._streams.by_short[stream.short].book.entries())

    def _mark_tree(self, now: float) -> None:
        tables = [self._table, *(entry.stream.graphs for entry in self._streams.by_short.values())]
        known = [table.current for table in tables if table.current is not None]
        if known:
            self._peers.set_tree([peer for each in known for peer in each.all_neighbours()], now)

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after every stream: HAVE, WANT, receipts, progress, retention."""
        self._streams.verify_some(now)
        for entry in list(self._streams.by_short.values()):
            if entry in self._streams.verification:
                continue
            stream = entry.stream
            lowest = stream.lowest
            self.bridging.reach_out(entry)
            self.exchange.tick(stream, now)
            if stream.lowest > lowest:
                self._streams.skip(entry, now)
            if stream.sink is not None:
                for event in stream.sink.advance():
                    self._streams.note(entry, event, now)
            self._progress(entry, now)
            self._pass_receipts(entry, now)
            self._check_source(entry)
        for stream in self._streams.expire(now):
            self._drop(stream)
        self._forwarder.orphans.ask(now)

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

    def _check_source(self, entry: Entry) -> None:
        """Take a file back that can no longer be read as it was."""
        source = entry.source
        if isinstance(source, FileSource) and source.failed is not None:
            error, source.failed = source.failed, None
            self._events.append(FileFailed(entry.stream.opening.hex, error.reason, error.detail))
            self.cancel(entry.stream.opening.hex, error.reason)

    # --- receipts -------------------------------------------------------------------------------------------------

    def on_receipts(self, hop: Hop, frame: Receipts, now: float) -> None:
        """Take receipts that a peer passes on.

        Raises:
            DecodeError: one claims more bytes than the file has.
        """
        entry = self._streams.by_short.get(frame.stream)
        if entry is None:
            if frame.stream not in self._streams.declined:
                hop.send(AskOpening(frame.stream))
            return
        most = entry.stream.opening.size_bytes or 0
        if any(item.held_bytes > most for item in frame.entries):
            raise DecodeError(f"a receipt of more than the file's {most} bytes")
        others = [item for item in frame.entries if item.device != self._device]
        stream = entry.stream.opening.stream
        if entry.book.merge(others, lambda item: self._streams.authors.is_genuine(stream, item)):
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
        hops = self._neighbourhood.towards_source(stream)
        if hops:
            entries = entry.book.take(now)
            for hop in hops:
                self._send_receipts(hop, stream, entries)

    def refuse_unopened(self, hop: Hop, declined: Declined, reason: str) -> None:
        """Tell whoever handed on an opening that this device does not take the stream."""
        word = self._streams.authors.last_word(declined.stream, Receipt("refused", 0, reason))
        hop.send(Receipts(declined.short, (word,)))

    def ask_openings(self, shorts: Iterable[int]) -> None:
        """Ask the peers again for openings that were declined before."""
        for short in shorts:
            for hop in self._peers.hops.values():
                hop.send(AskOpening(short))

    def _send_receipts(self, hop: Hop, stream: Stream, entries: list[ReceiptEntry]) -> None:
        for at in range(0, len(entries), MAX_RECEIPTS_PER_FRAME):
            hop.send(Receipts(stream.short, tuple(entries[at : at + MAX_RECEIPTS_PER_FRAME])))

    # --- cancelling -----------------------------------------------------------------------------------------------

    def cancel(self, stream_id: str, reason: str) -> None:
        """Take a stream back that began here; see ``Node.cancel``."""
        for entry in self._streams.sources.values():
            stream = entry.stream
            if stream.opening.hex == stream_id and self._streams.keys is not None:
                said = reason.encode()[:MAX_REASON_BYTES]
                signature = self._streams.authors.signer.sign(PURPOSE_CANCEL, stream.opening.stream + said)
                sealed = self._streams.keys.seal(PURPOSE_CANCEL, signature + said, self._streams.entropy(NONCE_BYTES))
                self._cancelled(entry, Cancel(stream.short, sealed), reason, None)
                return
        raise RefusedError("no-such-stream", f"no stream {stream_id[:40]} began at this device")

    def on_cancel(self, hop: Hop, frame: Cancel) -> None:
        """Drop a stream that its source took back, and pass that on.

        Raises:
            DecodeError: it is not authentic, or not signed by the stream's source.
        """
        entry = self._streams.by_short.get(frame.stream)
        if entry is None or self._streams.keys is None:
            return
        plain = self._streams.keys.open(PURPOSE_CANCEL, frame.sealed)
        signature, said = plain[:SIGNATURE_BYTES], plain[SIGNATURE_BYTES:]
        if not entry.stream.author.is_signed(PURPOSE_CANCEL, entry.stream.opening.stream + said, signature):
            raise DecodeError("a cancel that the stream's source has not signed")
        if entry.stream.role != "done":
            reason = said.decode(errors="replace")
            self._cancelled(entry, frame, reason, hop.peer)
        elif not entry.cancelled:
            # What is complete stays; those beyond this device are told all the same.
            entry.cancelled = True
            self._pass_cancel(entry, frame, hop.peer)

    def _pass_cancel(self, entry: Entry, frame: Cancel, previous: DeviceId | None) -> None:
        peers = dict.fromkeys(self._neighbourhood.peers_of(entry.stream))
        peers.update(dict.fromkeys(hop.peer for hop in self._neighbourhood.reach_of(entry.stream)))
        for peer in peers:
            # Over a silent link too: it is not said again when that is heard again.
            hop = self._peers.hops.get(peer)
            if hop is not None and peer != previous:
                hop.send(frame)

    def _cancelled(self, entry: Entry, frame: Cancel, reason: str, previous: DeviceId | None) -> None:
        stream = entry.stream
        self._pass_cancel(entry, frame, previous)
        self._streams.conclude(entry, Receipt("cancelled", stream.held_bytes, reason))
        self._events.append(StreamCancelled(stream.opening.hex, reason))
        stream.store.discard()
        self._drop(self._streams.bury(entry))

    def _drop(self, stream: Stream) -> None:
        for hop in self._peers.hops.values():
            cursor = hop.cursors.get(stream.short)
            if cursor is not None:
                hop.drop(cursor)
        self.exchange.forget(stream)
        self._forwarder.forget_routes()
