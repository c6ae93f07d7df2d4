"""One stream at one device: what is held, how a chunk is opened and sealed, and who else holds what.

A chunk is sealed once, by its source; every other device keeps the sealed bytes for a while in a bounded ring and
forwards them as they are. Older chunks are sealed again from the store, and sent only if the tag comes out as it was:
no number is ever sealed twice with different bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag

from agent.core.dispute import Dispute
from agent.core.rangeset import RangeSet
from agent.core.ring import SealedRing
from agent.core.routing import GraphTable
from agent.core.silences import Silences
from agent.core.sinks import Sink
from agent.core.store import Role, StoreError, StreamStore
from agent.core.supply import Supply
from agent.core.window import BitmapWindow, LastNumber, RepeatTest
from common.datagrams import (
    CHUNK_HEADER,
    CHUNK_HEADER_BYTES,
    CHUNK_OVERHEAD_BYTES,
    FLAG_END,
    FLAG_PROOF,
    FLAG_START,
    NUMBER_MASK,
    PacketType,
)
from common.errors import DecodeError
from common.limits import STREAM_MEMORY_BYTES
from common.messages import ChannelSpec
from common.opening import Opening
from common.ranges import NO_LIMIT
from common.sealing import NONCE_BYTES, TAG_BYTES, Sealer
from common.signing import Verifier

RING_PART: Final = 2
"""Part of it for sealed chunks, which the slower next hops and repairs need: one in so many."""
RESEALED_PART: Final = 8
"""Part of it for chunks that were read back and sealed again, for next hops that are far behind."""
CREDIT_PART: Final = 4
"""Part of it for chunks that neighbours may send, and that the store has not written yet."""
SEALED_AT_ONCE: Final = 64
"""Chunks that are read back and sealed again in one call: about a train."""
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
        author: verifies what its source signed.
        graphs: an empty table for graphs that travel with the stream.
        now: monotonic seconds.
        memory_bytes: what it may take of this device's memory.
    """

    def __init__(
        self,
        opening: Opening,
        sealed_opening: bytes,
        spec: ChannelSpec,
        store: StreamStore,
        role: Role,
        sink: Sink | None,
        author: Verifier,
        graphs: GraphTable,
        now: float,
        memory_bytes: int = STREAM_MEMORY_BYTES,
    ) -> None:
        self.opening = opening
        self.sealed_opening = sealed_opening
        self.spec = spec
        self.store = store
        self.role: Role = role
        self.sink = sink
        self.author = author
        self.short = opening.short
        self.datagram_bytes = opening.piece_bytes + CHUNK_OVERHEAD_BYTES
        self.urgent = opening.kind == "message"
        self.socket_channel = spec.name if spec.sockets == "per-channel" else None
        self.held = RangeSet()
        self.blocks = opening.blocks
        """How a file's chunks are numbered; None for an open-ended stream."""
        self.closing = None if self.blocks is None else self.blocks.closing
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
        self.supply = Supply()
        self.dispute: Dispute | None = None
        """Chunks that were not the source's own, and are fetched again."""
        self.silences = Silences()
        """When no chunk arrived for long."""
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
        self._ring = SealedRing(memory_bytes // RING_PART, opening.piece_bytes)
        # Apart from the others: what a slow next hop still needs must not push out what the fast ones need next.
        self._resealed = SealedRing(memory_bytes // RESEALED_PART, opening.piece_bytes)
        self.credit_bytes = memory_bytes // CREDIT_PART
        """What neighbours may send that the store has not written yet."""
        self._granted = 0
        self._repeat = _repeat_test(spec)

    @property
    def complete(self) -> bool:
        """Whether every number of a stream of known length is held."""
        closing = self.closing
        return closing is not None and len(self.held) == closing

    @property
    def held_bytes(self) -> int:
        """Plain bytes held of a file (an estimate by whole pieces while it is incomplete)."""
        blocks = self.blocks
        pieces = len(self.held) if blocks is None else blocks.pieces_of(len(self.held) - (blocks.closing in self.held))
        return min(self.opening.size_bytes or 0, pieces * self.opening.piece_bytes)

    def is_repeated(self, start: int, stop: int, kind: int) -> bool:
        """Whether any of these chunks was here before, by the channel's repeat test (M7).

        The channel's own test judges first crossings. What was sent again or asked for is judged by what is held, or
        a window, or the literal rule, would refuse every repair.
        """
        if start < self.lowest or self.held.until(start, stop) != (False, stop):
            return True
        test = self._repeat
        if test is None or kind != PacketType.DATA:
            return False
        return any(test.seen(number) for number in range(start, stop))

    def open(self, start: int, flags: int, chunks: Sequence[bytes]) -> list[bytes]:
        """Verify and decrypt consecutive chunks (chunk header, ciphertext, tag).

        Raises:
            DecodeError: one is not authentic, the flags are not those of such a chunk, or a number is past the end of
                the file.
        """
        self._check_numbers(start, start + len(chunks), flags)
        open_raw = self._sealer.open_raw
        try:
            return [
                open_raw(number.to_bytes(NONCE_BYTES, "big"), chunk[CHUNK_HEADER_BYTES:], chunk[:CHUNK_HEADER_BYTES])
                for number, chunk in enumerate(chunks, start)
            ]
        except InvalidTag as error:
            raise DecodeError("chunk does not authenticate") from error

    def _check_numbers(self, start: int, stop: int, flags: int) -> None:
        blocks = self.blocks
        if blocks is None:
            if flags & ~(FLAG_START | FLAG_END):
                raise DecodeError("chunk flags that a message has not")
            return
        if not 0 < start < stop <= blocks.closing + 1:
            raise DecodeError("chunk number outside the file")
        proof = blocks.proof_from(start)
        if flags != (FLAG_PROOF if start == proof else 0) or stop > proof + (start == proof):
            raise DecodeError("chunk flags that do not fit the number")

    def on_arrival(self, now: float) -> None:
        """Note that new chunks arrived."""
        self.silences.note(self.progress_at, now)
        self.progress_at = self.active_at = now

    def keep(self, start: int, flags: int, chunks: Sequence[bytes], plains: Sequence[bytes]) -> None:
        """Store verified consecutive chunks and mark them held.

        Raises:
            StoreError: the store cannot take them; they are not held, but may be forwarded from the ring.
        """
        self._ring.put(start, chunks)
        self.store.write_run(start, plains, [chunk[-TAG_BYTES:] for chunk in chunks])
        if flags:
            self.flags.update(dict.fromkeys(range(start, start + len(chunks)), flags))
        self.mark(start, start + len(chunks))

    def mark(self, start: int, stop: int) -> None:
        """Hold numbers."""
        if self._repeat is not None:
            for number in range(start, stop):
                self._repeat.mark(number)
        self.held.add_range(start, stop)
        self.stop = max(self.stop, stop)
        self.have_due = True

    def remember(self, start: int, chunks: Sequence[bytes]) -> None:
        """Keep the sealed bytes of consecutive chunks in the ring."""
        self._ring.put(start, chunks)

    def forget_ring(self) -> None:
        """Give the memory of sealed chunks back: nobody has asked for one for a while."""
        self._ring.clear()
        self._resealed.clear()

    def seal(self, start: int, flags: int, plains: Sequence[bytes]) -> list[bytes]:
        """Seal consecutive chunks at their source, for the first time (the caller keeps their tags)."""
        short, seal_raw = self.short, self._sealer.seal_raw
        out = []
        for number, plain in enumerate(plains, start):
            header = CHUNK_HEADER.pack(short, flags << 56 | number)
            out.append(header + seal_raw(number.to_bytes(NONCE_BYTES, "big"), plain, header))
        return out

    def sealed(self, start: int, stop: int) -> list[bytes]:
        """Return held chunks as they travel: from the ring, or sealed again under the tag rule.

        Returns:
            The chunks from ``start`` on, up to the first that is not to be had from the same place; none if ``start``
            itself is lost.
        """
        found = self._ring.run(start, stop) or self._resealed.run(start, stop)
        if found:
            return found
        held, stop = self.held.until(start, min(stop, start + SEALED_AT_ONCE))
        if not held:
            return []
        try:
            chunks = self._seal_again(start, stop)
        except StoreError:
            chunks = []
        if chunks:
            self._resealed.put(start, chunks)
        else:
            self.held.discard(start)
        return chunks

    def _seal_again(self, start: int, stop: int) -> list[bytes]:
        """Seal stored chunks again, up to the first whose tag does not come out as it was."""
        plains = self.store.read_run(start, stop - start)
        tags = self.store.tags_run(start, len(plains))
        chunks: list[bytes] = []
        last = start + len(plains) - 1
        if not self.flags and (self.blocks is None or last < self.blocks.proof_from(start)):
            chunks = self.seal(start, 0, plains)
        else:
            for number, plain in enumerate(plains, start):
                chunks += self.seal(number, self.flags_of(number), [plain])
        for count, (chunk, tag) in enumerate(zip(chunks, tags, strict=True)):
            if chunk[-TAG_BYTES:] != tag:
                return chunks[:count]
        return chunks

    def flags_of(self, number: int) -> int:
        """Return the flags under which a chunk was sealed."""
        if self.blocks is not None and self.blocks.is_proof(number):
            return FLAG_PROOF
        return self.flags.get(number, 0)

    def verify_stored(self, start: int, stop: int) -> int:
        """Check stored chunks of an earlier run against their tags, and hold those that are intact.

        Returns:
            How many from ``start`` on are intact; the one after them is not.

        Raises:
            StoreError: the medium fails.
        """
        intact = len(self._seal_again(start, stop))
        self.mark(start, start + intact)
        return intact

    def refute(self, start: int, stop: int) -> None:
        """Let go of chunks that turned out not to be the source's own: they are to be fetched again, of one peer."""
        self.held.remove_range(start, stop)
        self.forget_ring()
        for number in range(start, stop):
            self.flags.pop(number, None)
        if self.dispute is None or self.dispute.start != start:
            self.dispute = Dispute(start, stop)
        self.dispute.stop = max(self.dispute.stop, stop)
        self.dispute.refuted()
        self.have_due = True

    def close_dispute(self) -> None:
        """Note whether what was in dispute has proved to be the source's own by now."""
        if self.dispute is not None and (self.sink is None or self.sink.verified_below > self.dispute.start):
            self.dispute = None

    def grant(self) -> int:
        """Return the number up to which neighbours may send: as many chunks as there is memory for, whichever they are.

        What is not kept here, or not received, takes no memory.
        """
        if self.refused is not None or self.role != "receive":
            return NO_LIMIT
        self._granted = max(self._granted, self._credit())
        return self._granted

    def credit_grew(self) -> bool:
        """Whether neighbours should hear of more credit, because what they were told is about to be used up."""
        if not self._granted or self.refused is not None or self.role != "receive":
            return False
        half = self.credit_bytes // self.opening.piece_bytes // 2
        held_below = self.held.past_missing(self.lowest, half)
        return self._granted < held_below and self._credit() > self._granted

    def _credit(self) -> int:
        room = max(self.credit_bytes - self.store.backlog_bytes, 0)
        return min(self.held.past_missing(self.lowest, room // self.opening.piece_bytes), NO_LIMIT)

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
