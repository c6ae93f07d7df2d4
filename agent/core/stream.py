"""One stream at one device: what is held, how a chunk is opened and sealed, and who else holds what.

A chunk is sealed once, by its source; every other device keeps the sealed bytes for a while in a bounded ring and
forwards them as they are. Older chunks are sealed again from the store, and sent only if the tag comes out as it was:
no number is ever sealed twice with different bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from cryptography.exceptions import InvalidTag

from agent.core.rangeset import RangeSet
from agent.core.routing import GraphTable
from agent.core.sinks import Sink
from agent.core.store import Role, StoreError, StreamStore
from agent.core.window import BitmapWindow, LastNumber, RepeatTest
from common.datagrams import CHUNK_HEADER, CHUNK_HEADER_BYTES, FLAG_CLOSING, KNOWN_FLAGS, NUMBER_MASK, PacketType
from common.errors import DecodeError
from common.messages import ChannelSpec
from common.opening import Opening
from common.sealing import TAG_BYTES, Sealer, nonce_of

RING_BYTES: Final = 8 * 1024 * 1024
"""Sealed chunks kept in memory per stream, for the slower next hops and for repairs."""
WINDOW_NUMBERS: Final = 4_096


class Stream:
    """A stream as this device sees it.

    Args:
        opening: its fixed facts.
        sealed_opening: the opening as it travels.
        spec: the rules of its channel.
        store: where its chunks are kept.
        role: ``source`` here, to ``receive``, or ``done`` (complete, kept to serve others).
        sink: what takes the chunks in; None at the source.
        graphs: an empty table for graphs that travel with the stream.
        now: monotonic seconds.
    """

    def __init__(
        self,
        opening: Opening,
        sealed_opening: bytes,
        spec: ChannelSpec,
        store: StreamStore,
        role: Role,
        sink: Sink | None,
        graphs: GraphTable,
        now: float,
    ) -> None:
        self.opening = opening
        self.sealed_opening = sealed_opening
        self.spec = spec
        self.store = store
        self.role: Role = role
        self.sink = sink
        self.short = opening.short
        self.urgent = opening.kind == "message"
        self.socket_channel = spec.name if spec.sockets == "per-channel" else None
        self.held = RangeSet()
        self.closing = opening.closing_number
        """The number of a file's closing record; None for an open-ended stream."""
        self.stop = 1 if self.closing is None else self.closing + 1
        """One past the highest number known to exist."""
        self.lowest = 1
        """The lowest number still retained here."""
        self.refused: str | None = None
        """Why this device does not keep the stream; it still relays it."""
        self.progress_at = now
        """When a chunk last arrived, or was cut."""
        self.active_at = now
        """When a chunk last arrived, was cut, sent or asked for."""
        self.wanted = RangeSet()
        """What peers want of a stream that this device does not keep."""
        self.finished_at: float | None = None
        self.have_due = False
        self.have_unsettled = False
        self.graphs = graphs
        """The graphs embedded in the stream (M12); empty for the other manners."""
        self.graph_blobs: dict[int, bytes] = {}
        """Those graphs as they travel, by epoch."""
        self.flags: dict[int, int] = {}
        """Flags of the chunks that have any; plain data chunks of files have none."""
        self._sealer = Sealer(opening.key)
        self._ring: OrderedDict[int, bytes] = OrderedDict()
        self._ring_bytes = 0
        self._repeat = _repeat_test(spec)

    @property
    def complete(self) -> bool:
        """Whether every number of a stream of known length is held."""
        closing = self.closing
        return closing is not None and len(self.held) == closing

    @property
    def held_bytes(self) -> int:
        """Plain bytes held of a file (an estimate by whole pieces while it is incomplete)."""
        size = self.opening.size_bytes or 0
        closing = self.closing
        pieces = len(self.held) - (closing is not None and closing in self.held)
        return min(size, pieces * self.opening.piece_bytes)

    def is_repeated(self, number: int, kind: int) -> bool:
        """Make the repeat test (M7), before a chunk is opened.

        The channel's own test judges first crossings. What was sent again or asked for is judged by what is held, or
        a window, or the literal rule, would refuse every repair.
        """
        if number < self.lowest or number in self.held:
            return True
        return self._repeat is not None and kind == PacketType.DATA and self._repeat.seen(number)

    def open(self, number: int, flags: int, chunk: bytes) -> bytes:
        """Verify and decrypt a chunk (chunk header, ciphertext, tag).

        Raises:
            DecodeError: it is not authentic, its flags are unknown, or its number is past the end of the file.
        """
        if flags & ~KNOWN_FLAGS:
            raise DecodeError("unknown chunk flags")
        closing = self.closing
        if closing is not None and not 0 < number <= closing:
            raise DecodeError("chunk number outside the file")
        try:
            return self._sealer.open_raw(nonce_of(number), chunk[CHUNK_HEADER_BYTES:], chunk[:CHUNK_HEADER_BYTES])
        except InvalidTag as error:
            raise DecodeError("chunk does not authenticate") from error

    def keep(self, number: int, flags: int, chunk: bytes, plain: bytes) -> None:
        """Store a verified chunk and mark it held.

        Raises:
            StoreError: the store cannot take it; the chunk is not held, but may be forwarded from the ring.
        """
        self.remember(number, chunk)
        self.store.write(number, plain, chunk[-TAG_BYTES:])
        if flags:
            self.flags[number] = flags
        self.mark(number)

    def mark(self, number: int) -> None:
        """Hold a number."""
        if self._repeat is not None:
            self._repeat.mark(number)
        self.held.add(number)
        if number >= self.stop:
            self.stop = number + 1
        self.have_due = True

    def remember(self, number: int, chunk: bytes) -> None:
        """Keep a chunk's sealed bytes in the ring."""
        ring = self._ring
        self._ring_bytes += len(chunk) - len(ring.get(number, b""))
        ring[number] = chunk
        while self._ring_bytes > RING_BYTES:
            self._ring_bytes -= len(ring.popitem(last=False)[1])

    def forget_ring(self) -> None:
        """Give the memory of sealed chunks back: nobody has asked for one for a while."""
        self._ring.clear()
        self._ring_bytes = 0

    def seal(self, number: int, flags: int, plain: bytes) -> bytes:
        """Seal a chunk at its source, for the first time (the caller keeps its tag)."""
        header = CHUNK_HEADER.pack(self.short, flags << 56 | number)
        return header + self._sealer.seal_raw(nonce_of(number), plain, header)

    def sealed(self, number: int) -> bytes | None:
        """Return a held chunk as it travels: from the ring, or sealed again under the tag rule; None if it is lost."""
        chunk = self._ring.get(number)
        if chunk is not None:
            return chunk
        if number not in self.held:
            return None
        tag = self.store.tag(number)
        try:
            plain = self.store.read(number)
        except StoreError:
            plain = None
        if plain is not None and tag is not None:
            chunk = self.seal(number, self.flags_of(number), plain)
            if chunk[-TAG_BYTES:] == tag:
                self.remember(number, chunk)
                return chunk
        self.held.discard(number)
        return None

    def flags_of(self, number: int) -> int:
        """Return the flags under which a chunk was sealed."""
        if number == self.closing:
            return FLAG_CLOSING
        return self.flags.get(number, 0)

    def verify_stored(self, number: int) -> bool:
        """Check one stored chunk of an earlier run against its tag, and hold it if it is intact."""
        plain, tag = self.store.read(number), self.store.tag(number)
        if plain is None or tag is None:
            return False
        if self.seal(number, self.flags_of(number), plain)[-TAG_BYTES:] != tag:
            return False
        self.mark(number)
        return True

    def missing(self) -> RangeSet:
        """Return the numbers known to exist that are neither held nor given up."""
        return self.held.missing(self.lowest, self.stop)

    def give_up_below(self, number: int) -> None:
        """Stop waiting for numbers below ``number``: nobody retains them any more."""
        self.lowest = max(self.lowest, number)
        self.stop = max(self.stop, self.lowest)
        self.have_due = True


def split_word(word: int) -> tuple[int, int]:
    """Split the second field of a chunk header into flags and number."""
    return word >> 56, word & NUMBER_MASK


def _repeat_test(spec: ChannelSpec) -> RepeatTest | None:
    """Return the channel's test for first crossings besides what is held."""
    if spec.repeat == "window":
        return BitmapWindow(WINDOW_NUMBERS)
    return LastNumber() if spec.repeat == "last" else None
