"""All streams at this device: how each comes to be, and when it may be forgotten."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, cast

from agent.core.authors import Authors
from agent.core.channels import Channel, ChannelTable
from agent.core.entry import Entry
from agent.core.events import Event, FileFailed, FileVerified, ForgeryFound, Receipt, StreamOpened
from agent.core.memory_store import MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.receipts import ReceiptBook
from agent.core.retention import Retention
from agent.core.routing import GraphTable
from agent.core.sinks import FileSink, MessageSink, Outcome, Refuted, Sink
from agent.core.source import FileSource, MessageSource
from agent.core.store import STORE_REASONS, PieceReader, Resumed, Role, StoreError, StoreReason, Stores, StreamStore
from agent.core.stream import RING_PART, Stream
from agent.core.verification import Verification
from common.blocks import Blocks
from common.datagrams import CHUNK_OVERHEAD_BYTES
from common.errors import DecodeError, RefusedError
from common.fields import decode_key
from common.ids import ChannelId, DeviceId, GroupId
from common.limits import MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_STREAMS, MAX_TOMBSTONES, MIN_DATAGRAM_BYTES
from common.messages import Roster
from common.opening import STREAM_ID_BYTES, STREAM_KEY_BYTES, Opening, StreamKind
from common.sealing import NONCE_BYTES, GroupKeys, key_epoch_of
from common.signing import PURPOSE_OPENING, Signer

FILE_LIFETIME_S: Final = 86_400.0
"""How long a file's opening is good for."""
MESSAGE_LIFETIME_S: Final = 30 * 86_400.0
RING_IDLE_S: Final = 2.0
"""After how long without a chunk moving a finished stream gives its memory back; its store serves on."""
_SURROGATES: Final = ("\ud800", "\udfff")
_MOST_OPENING_BYTES: Final = 1_150
"""Bytes of a sealed opening that fit the smallest datagram with the hop's header, seal and framing."""


@dataclass(frozen=True, slots=True)
class Declined:
    """An opening that this device does not take.

    Attributes:
        stream: the stream's id.
        reason: a short slug.
    """

    stream: bytes
    reason: str

    @property
    def short(self) -> int:
        """The stream's short form."""
        return int.from_bytes(self.stream[:4], "big")


class StreamTable:
    """Opens, resumes, finishes and forgets streams.

    Args:
        device: this device.
        group: its group.
        datagram_bytes: the largest datagram this device sends.
        memory_bytes: what one stream may take of its memory.
        signer: signs as this device.
        channels: the group's channels.
        stores: where streams are kept.
        drops: counts what was dropped, by reason.
        events: where news for the shell go.
        entropy: returns so many bytes that nobody can guess.
        wall_offset: unix time minus monotonic time, seconds.
    """

    def __init__(
        self,
        device: DeviceId,
        group: GroupId,
        datagram_bytes: int,
        memory_bytes: int,
        *,
        signer: Signer,
        channels: ChannelTable,
        stores: Stores,
        drops: Counter[str],
        events: deque[Event],
        entropy: Callable[[int], bytes],
        wall_offset: float,
    ) -> None:
        self.by_short: dict[int, Entry] = {}
        self.sources: dict[int, Entry] = {}
        self.declined: dict[int, None] = {}
        """Streams (short forms) that this device does not take, or no more; their chunks are dropped unheld."""
        self.keys: GroupKeys | None = None
        self._device = device
        self._group = group
        self.group_mtu_bytes: int | None = None
        """The largest datagram that every link of the group takes, as the server says; None before it did."""
        self.own_mtu_bytes: int | None = None
        """The same of this device's own links; it serves until the server has spoken."""
        self._datagram_bytes = datagram_bytes
        self._memory_bytes = memory_bytes
        self.authors = Authors(device, group, signer, drops)
        self._undelivered: dict[int, Entry] = {}
        self._channels = channels
        self._stores = stores
        self._drops = drops
        self._events = events
        self.entropy = entropy
        self._wall_offset = wall_offset
        self._buried = dict(stores.tombstones())
        self._messages: dict[ChannelId, MessageSource] = {}
        self._to_resume: list[Resumed] | None = None
        self.verification = Verification(drops)

    @property
    def datagram_bytes(self) -> int:
        """How large the chunks' datagrams of a stream may be that is opened now; it keeps that size for good."""
        return min(self.group_mtu_bytes or self.own_mtu_bytes or MIN_DATAGRAM_BYTES, self._datagram_bytes)

    # --- keys -----------------------------------------------------------------------------------------------------

    def set_keys(self, roster: Roster) -> None:
        """Take the group's keys, and those that its members sign with."""
        self.authors.set_roster(roster)
        keys = {epoch: decode_key(key) for epoch, key in roster.group_keys.items()}
        if keys:
            self.keys = GroupKeys(self._group, keys)

    def sealed_opening(self, stream: Stream) -> bytes:
        """Return a stream's opening under the group key of today."""
        if self.keys is not None and key_epoch_of(stream.sealed_opening) != self.keys.newest:
            stream.sealed_opening = self._seal_opening(self.keys, stream.opening)
        return stream.sealed_opening

    # --- streams that begin here ----------------------------------------------------------------------------------

    def open_file(
        self,
        channel: ChannelId,
        name: str,
        size_bytes: int,
        reader: PieceReader,
        members: Iterable[DeviceId],
        now: float,
    ) -> str:
        """Open a file stream with this device as its source; see ``Node.send_file``."""
        if not 0 < len(name.encode(errors="surrogatepass")) <= MAX_NAME_BYTES:
            raise RefusedError("bad-name", f"a file's name has 1 to {MAX_NAME_BYTES} bytes")
        if "\0" in name or any(_SURROGATES[0] <= letter <= _SURROGATES[1] for letter in name):
            raise RefusedError("bad-name", "a file's name is text: UTF-8 without NUL")
        if not 0 <= size_bytes <= MAX_FILE_BYTES:
            raise RefusedError("too-large", f"{size_bytes} bytes; at most {MAX_FILE_BYTES} are taken")
        entry = self._open_source(channel, "file", name, size_bytes, reader, now)
        entry.source = self._file_source(entry.stream)
        for device in members:
            if device != self._device:
                entry.book.put(device, Receipt("waiting"))
        return entry.stream.opening.hex

    def publish(self, channel: ChannelId, payload: bytes, now: float) -> tuple[str, int]:
        """Publish a message; see ``Node.publish``."""
        source = self._messages.get(channel)
        if source is not None and self.keys is not None and source.key_epoch != self.keys.newest:
            # Somebody left: what is published from now on is not for who knows the old key.
            source.stream.finished_at = now
            source = None
        if source is None or channel not in self._channels.by_name:
            entry = self._open_source(channel, "message", "", None, None, now)
            entry.source = source = self._messages[channel] = MessageSource(entry.stream, self.authors.signer)
            source.key_epoch = key_epoch_of(entry.stream.sealed_opening)
        return source.stream.opening.hex, source.publish(payload)

    def _open_source(
        self,
        channel: ChannelId,
        kind: StreamKind,
        name: str,
        size_bytes: int | None,
        reader: PieceReader | None,
        now: float,
    ) -> Entry:
        found = self._channels.by_name.get(channel)
        if found is None:
            known = ", ".join(self._channels.by_name) or "none"
            raise RefusedError("unknown-channel", f"the group has no channel {channel!r}; it has: {known}")
        if found.spec.kind != kind:
            raise RefusedError("wrong-kind", f"channel {channel} carries {found.spec.kind}s, not {kind}s")
        if self.keys is None:
            raise RefusedError("not-enrolled", "this device has no group key yet")
        if len(self.by_short) >= MAX_STREAMS:
            raise RefusedError(
                "too-many-streams", f"{len(self.by_short)} streams are open; at most {MAX_STREAMS} may be"
            )
        wall = now + self._wall_offset
        opening = Opening(
            stream=self._fresh_id(),
            channel=channel,
            source=self._device,
            kind=kind,
            key=self.entropy(STREAM_KEY_BYTES),
            piece_bytes=self.datagram_bytes - CHUNK_OVERHEAD_BYTES,
            name=name,
            size_bytes=size_bytes,
            created=wall,
            expires=wall + (FILE_LIFETIME_S if kind == "file" else MESSAGE_LIFETIME_S),
        ).signed(self.authors.signer)
        sealed = self._seal_opening(self.keys, opening)
        if len(sealed) > _MOST_OPENING_BYTES:
            raise RefusedError("bad-name", "the name's special characters take more room than one datagram has")
        store = self._stores.source(opening, sealed, reader)
        entry = self._add(opening, sealed, found, store, "source", now)
        self.sources[entry.stream.short] = entry
        found.manner.on_source(now)
        return entry

    def _fresh_id(self) -> bytes:
        while True:
            stream = self.entropy(STREAM_ID_BYTES)
            if int.from_bytes(stream[:4], "big") not in self.by_short and any(stream[:4]):
                return stream

    def _seal_opening(self, keys: GroupKeys, opening: Opening) -> bytes:
        return keys.seal(PURPOSE_OPENING, opening.encode(), self.entropy(NONCE_BYTES))

    # --- streams that arrive --------------------------------------------------------------------------------------

    def open_received(self, sealed: bytes, now: float) -> Entry | Declined | None:
        """Take an opening that a peer handed on.

        Returns:
            Its stream; or why this device does not take it; or None if it is not authentic. Both are counted.
        """
        opening = self._read_opening(sealed)
        if opening is None:
            return None
        reason = self._reason_against(opening, now)
        if reason is not None:
            self._drops[reason] += 1
            self._decline(opening.short)
            return Declined(opening.stream, reason)
        entry = self.by_short.get(opening.short)
        if entry is not None:
            return entry
        return self._receive(opening, sealed, self._channels.by_name[opening.channel], now)

    def _read_opening(self, sealed: bytes) -> Opening | None:
        if self.keys is None:
            self._drops["opening-without-group-key"] += 1
            return None
        try:
            opening = Opening.decode_untrusted(self.keys.open(PURPOSE_OPENING, sealed), self._group)
        except DecodeError:
            self._drops["opening-not-authentic"] += 1
            return None
        return opening if self.authors.vouch_for(opening) else None

    def _reason_against(self, opening: Opening, now: float) -> str | None:
        if opening.expires <= now + self._wall_offset:
            return "opening-expired"
        if opening.hex in self._buried:
            return "opening-of-finished-stream"
        entry = self.by_short.get(opening.short)
        if entry is not None:
            return None if entry.stream.opening.stream == opening.stream else "opening-short-form-taken"
        if opening.source == self._device:
            return "opening-of-own-lost-stream"
        if opening.channel not in self._channels.by_name:
            return "unknown-channel"
        return "too-many-streams" if len(self.by_short) >= MAX_STREAMS else None

    def _decline(self, short: int) -> None:
        self.declined[short] = None
        if len(self.declined) > MAX_STREAMS:
            del self.declined[next(iter(self.declined))]

    def _receive(self, opening: Opening, sealed: bytes, channel: Channel, now: float) -> Entry:
        try:
            store = self._stores.receive(opening, sealed)
        except StoreError as error:
            entry = self._add(opening, sealed, channel, MemoryStreamStore(), "receive", now)
            self.refuse(entry, error, now)
            return entry
        return self._add(opening, sealed, channel, store, "receive", now)

    def refuse(self, entry: Entry, error: StoreError, now: float) -> None:
        """Keep the stream no more; it is relayed still, from a bounded memory."""
        stream = entry.stream
        if stream.refused is not None:
            return
        stream.refused = error.reason
        stream.store.discard()
        stream.store = MemoryStreamStore(limit_bytes=self._memory_bytes // RING_PART, on_forgotten=stream.held.discard)
        # Only what this memory keeps can be served from here on.
        stream.held.difference_update(stream.held.copy())
        stream.sink = None
        stream.finished_at = now
        # What is not kept needs no credit: the neighbours are to hear of it.
        stream.have_due = True
        self.conclude(entry, Receipt("refused", 0, f"{error.reason}: {error.detail}"))
        self._events.append(FileFailed(stream.opening.hex, error.reason, error.detail))

    def conclude(self, entry: Entry, receipt: Receipt) -> None:
        """Say this device's last word about a stream."""
        said = self.authors.last_word(entry.stream.opening.stream, receipt)
        signed = replace(receipt, reason=said.reason, signature=said.signature)
        entry.book.put(self._device, signed)

    def deliver_soon(self, entry: Entry) -> None:
        """Note that messages have come, to be delivered when what has to be sent has gone."""
        self._undelivered[entry.stream.short] = entry

    def deliver(self, now: float) -> None:
        """Verify and deliver the messages that have come."""
        while self._undelivered:
            _, entry = self._undelivered.popitem()
            if entry.stream.sink is not None:
                for event in entry.stream.sink.advance():
                    self.note(entry, event, now)

    def note(self, entry: Entry, event: Outcome, now: float) -> None:
        """Take what a sink says, and tell the shell."""
        stream = entry.stream
        if isinstance(event, Refuted):
            opening = stream.opening
            self._drops["chunks-refuted"] += event.stop - event.start
            stream.refute(event.start, event.stop)
            bringer = stream.supply.bringer
            event = ForgeryFound(opening.hex, opening.source, event.start, event.stop - 1, bringer)
        if isinstance(event, FileFailed) and event.reason in STORE_REASONS:
            self.refuse(entry, StoreError(cast(StoreReason, event.reason), event.detail), now)
            return
        self._events.append(event)
        if isinstance(event, FileVerified):
            stream.role = "done"
            stream.finished_at = now
            self.conclude(entry, Receipt("verified", event.size_bytes))
        elif isinstance(event, FileFailed):
            stream.finished_at = now
            stream.have_due = True
            stream.refused = event.reason
            self.conclude(entry, Receipt("refused", stream.held_bytes, f"{event.reason}: {event.detail}"))

    # --- streams of an earlier run --------------------------------------------------------------------------------

    def begin_resume(self, now: float) -> None:
        """Go on with the streams in the store, once keys and channels are known."""
        if self._to_resume is None:
            self._to_resume = list(self._stores.resume())
        if self.keys is None or not self._channels.by_name:
            return
        waiting, self._to_resume = self._to_resume, []
        for found in waiting:
            self._resume(self.keys, found, now)

    def _resume(self, keys: GroupKeys, found: Resumed, now: float) -> None:
        if key_epoch_of(found.sealed_opening) > keys.newest and self._to_resume is not None:
            self._to_resume.append(found)  # the roster of this run has not come yet
            return
        try:
            opening = Opening.decode_untrusted(keys.open(PURPOSE_OPENING, found.sealed_opening), self._group)
        except DecodeError:
            self._drops["resume-not-authentic"] += 1
            return
        channel = self._channels.by_name.get(opening.channel)
        expired = opening.expires <= now + self._wall_offset
        if channel is None or expired or opening.short in self.by_short or opening.hex in self._buried:
            self._drops["resume-stale"] += 1
            return
        entry = self._add(opening, found.sealed_opening, channel, found.store, found.role, now)
        ranges = RangeSet(found.store.held())
        if found.role == "done":
            entry.stream.held.union_update(ranges)
            entry.stream.finished_at = now
            self.conclude(entry, Receipt("verified", opening.size_bytes or 0))
        else:
            if found.role == "receive":
                entry.stream.supply.interrupted(None)
            self.verification.add(entry, ranges)

    def verify_some(self, now: float) -> None:
        """Check some chunks of an earlier run against their tags; a source that is through goes on."""
        for entry in self.verification.run():
            if entry.stream.role == "source":
                entry.source = self._file_source(entry.stream)
                self.sources[entry.stream.short] = entry
                self._channels.of(entry.stream).manner.on_resume(now)

    def on_channels(self) -> list[int]:
        """Reconsider what was declined: its channel may be among the new ones; return the short forms to ask for."""
        declined = list(self.declined)
        self.declined.clear()
        return declined

    # --- the end --------------------------------------------------------------------------------------------------

    def moving(self, now: float) -> bool:
        """Whether any stream wants to be looked after often."""
        if self.verification or self._to_resume:
            return True
        return any(
            entry.stream.have_due
            or entry.stream.have_unsettled
            or entry.book.due_at() is not None
            or (entry.stream.role == "receive" and bool(entry.stream.missing()))
            or now - entry.stream.progress_at < 1.0
            for entry in self.by_short.values()
        )

    def expire(self, now: float) -> list[Stream]:
        """Forget what passed its retention; return the streams that are gone."""
        wall = now + self._wall_offset
        for name in [name for name, expires in self._buried.items() if expires <= wall]:
            del self._buried[name]
        gone = []
        for entry in list(self.by_short.values()):
            stream = entry.stream
            self._expire_chunks(entry, now)
            if stream.opening.expires <= wall:
                gone.append(self.bury(entry))
            elif stream.finished_at is not None:
                idle_s = now - max(stream.finished_at, stream.active_at)
                if idle_s > stream.spec.retention_s:
                    gone.append(self.bury(entry))
                elif idle_s > RING_IDLE_S:
                    stream.forget_ring()
        return gone

    def _expire_chunks(self, entry: Entry, now: float) -> None:
        if entry.retention is None:
            return
        above = entry.retention.expire(now)
        stream = entry.stream
        if above > stream.lowest:
            stream.lowest = above
            self.skip(entry, now)
            stream.store.drop_below(above)
            for number in [number for number in stream.flags if number < above]:
                del stream.flags[number]

    def skip(self, entry: Entry, now: float) -> None:
        """Give up what is missing below the lowest number retained; what is held there is delivered before."""
        stream, sink = entry.stream, entry.stream.sink
        if sink is None:
            return
        for start, _ in stream.held.intersection(RangeSet([(1, stream.lowest)])):
            for event in chain(sink.skip_below(start), sink.advance()):
                self.note(entry, event, now)
        for event in sink.skip_below(stream.lowest):
            self.note(entry, event, now)

    def bury(self, entry: Entry) -> Stream:
        """Forget a stream, and refuse to begin it again until its opening has expired."""
        stream = entry.stream
        opening = stream.opening
        if len(self.by_short) >= MAX_STREAMS:
            # There is room again for a stream that was one too many.
            self.declined.clear()
        self._decline(stream.short)
        self.by_short.pop(stream.short, None)
        self.sources.pop(stream.short, None)
        if entry.source is not None and self._messages.get(opening.channel) is entry.source:
            del self._messages[opening.channel]
        self._buried[opening.hex] = opening.expires
        if len(self._buried) > MAX_TOMBSTONES:
            del self._buried[next(iter(self._buried))]
        stream.store.discard()
        self._stores.bury(opening.hex, opening.expires)
        return stream

    # --- inside ---------------------------------------------------------------------------------------------------

    def _add(
        self, opening: Opening, sealed: bytes, channel: Channel, store: StreamStore, role: Role, now: float
    ) -> Entry:
        graphs = GraphTable(self._device, self._wall_offset)
        author = self.authors.verifier(opening)
        stream = Stream(opening, sealed, channel.spec, store, role, None, author, graphs, now, self._memory_bytes)
        if role == "receive":
            stream.sink = self._sink(stream)
        entry = Entry(stream, ReceiptBook())
        if opening.kind == "message":
            self._finish_older(opening, now)
            entry.retention = Retention(channel.spec.retention_bytes, channel.spec.retention_s)
        self.by_short[stream.short] = entry
        self._events.append(
            StreamOpened(opening.hex, opening.channel, opening.source, opening.kind, opening.name, opening.size_bytes)
        )
        return entry

    def _finish_older(self, opening: Opening, now: float) -> None:
        """Let the streams that a source published in before go when their retention has passed."""
        for entry in self.by_short.values():
            other = entry.stream
            same = (other.opening.source, other.opening.channel) == (opening.source, opening.channel)
            older = other.opening.created < opening.created
            if same and older and other.opening.kind == "message" and other.finished_at is None:
                other.finished_at = now

    def _file_source(self, stream: Stream) -> FileSource:
        return FileSource(stream, cast(Blocks, stream.blocks), self.authors.signer)

    def _sink(self, stream: Stream) -> Sink:
        if stream.blocks is not None:
            return FileSink(stream.opening, stream.blocks, stream.author, stream.held, stream.store)
        return MessageSink(stream.opening, stream.author, stream.held, stream.store, stream.flags)
