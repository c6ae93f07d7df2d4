"""What becomes of a stream's chunks here: a file that is hashed in order, or messages for the application.

Nothing is delivered before its source's signature was verified, and nothing waits for that to be passed on: a chunk is
forwarded when it has come.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from agent.core.events import Event, FileFailed, FileVerified, MessageGap, MessageReceived
from agent.core.rangeset import RangeSet
from agent.core.store import StoreError, StreamStore
from common.blocks import DIGEST_BYTES, PROOF_BYTES, Blocks
from common.datagrams import FLAG_END, FLAG_START
from common.limits import MAX_MESSAGE_BYTES
from common.opening import Opening
from common.signing import (
    PURPOSE_BLOCK,
    PURPOSE_MESSAGE,
    SIGNATURE_BYTES,
    Verifier,
    block_statement,
    message_statement,
)

HASH_AT_ONCE: Final = 512
"""Pieces read back and hashed in one call at most, so that a late first piece does not stall the others."""
FINISH_AT_ONCE_BYTES: Final = 1024 * 1024
"""Bytes that the end of a file may wait for the disk to take: a few milliseconds."""
READ_AT_ONCE: Final = 64
"""Pieces of them that are read together."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """Chunks from ``start`` up to ``stop`` are not what their source sent."""

    start: int
    stop: int


Outcome = Event | Refuted
_NOTHING: Final[Iterator[Outcome]] = iter(())


class Sink(Protocol):
    """Takes a stream's chunks in any order."""

    @property
    def verified_below(self) -> int:
        """The number below which everything has proved to be the source's own, or was given up."""

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Outcome]:
        """Take consecutive chunks that were just stored; yields what they mean for the application."""

    def advance(self) -> Iterator[Outcome]:
        """Go on with what is stored already; yields what it means for the application."""

    def skip_below(self, number: int) -> Iterator[Outcome]:
        """Give up the numbers below ``number``."""


class FileHasher:
    """The SHA-256 of a file's pieces in order, some of which are already stored.

    Args:
        blocks: how its chunks are numbered.
        held: the numbers in the store.
        store: where they are.
    """

    def __init__(self, blocks: Blocks, held: RangeSet, store: StreamStore) -> None:
        self._blocks = blocks
        self._held = held
        self._store = store
        self._hash = hashlib.sha256()
        self._proven = self._hash.copy()
        self._proof = blocks.proof_from(1)
        self.next_number = 1
        self.proven_below = 1
        """One past the last proof that was passed."""

    @property
    def done(self) -> bool:
        """Whether every piece was hashed, and every proof passed."""
        return self.next_number > self._blocks.closing

    @property
    def at_proof(self) -> bool:
        """Whether the next chunk is a proof."""
        return self.next_number == self._proof

    def feed(self, start: int, plains: Sequence[bytes]) -> bool:
        """Hash consecutive pieces of one block at once if they are the next ones.

        Returns:
            Whether they were, and the file goes on with a chunk that is not stored yet.
        """
        stop = start + len(plains)
        if start != self.next_number or stop > self._proof:
            return False
        update = self._hash.update
        for plain in plains:
            update(plain)
        self.next_number = stop
        return stop not in self._held

    def catch_up(self, most: int) -> None:
        """Hash stored pieces of this block, at most so many.

        Raises:
            StoreError: a piece cannot be read back.
        """
        end = min(self._proof, self.next_number + most)
        while self.next_number < end:
            start = self.next_number
            held, stop = self._held.until(start, min(start + READ_AT_ONCE, end))
            if not held:
                return
            plains = self._store.read_run(start, stop - start)
            if not plains:
                self._held.discard(start)
                return
            self.feed(start, plains)

    def pass_proof(self) -> None:
        """Go on behind the proof: all before it is what it should be."""
        self._proven = self._hash.copy()
        self.next_number += 1
        self.proven_below = self.next_number
        self._proof = self._blocks.proof_from(self.next_number)

    def go_back(self) -> int:
        """Forget the pieces of this block; return the number of the first."""
        self._hash = self._proven.copy()
        self.next_number = self.proven_below
        return self.next_number

    def digest(self) -> bytes:
        """Return the SHA-256 of what was hashed."""
        return self._hash.digest()


class FileSink:
    """A file that arrives: verified block by block, and done with the last one.

    Args:
        opening: its fixed facts.
        blocks: how its chunks are numbered.
        author: verifies what its source signed.
        held: the numbers in the store.
        store: where they are.
    """

    def __init__(self, opening: Opening, blocks: Blocks, author: Verifier, held: RangeSet, store: StreamStore) -> None:
        self._opening = opening
        self._author = author
        self._held = held
        self._store = store
        self._hasher = FileHasher(blocks, held, store)
        self._ended = False

    @property
    def verified_below(self) -> int:
        """The number below which every block has its proof."""
        return self._hasher.proven_below

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Outcome]:
        """Hash what is in order."""
        if self._hasher.feed(start, plains):
            # The common case: in order, and nothing stored behind it waits to be hashed.
            return _NOTHING
        return self.advance()

    def advance(self) -> Iterator[Outcome]:
        """Hash what is stored and in order, check proofs, and finish the file when all of it is there."""
        if self._ended:
            return
        try:
            refuted = self._verify()
            if refuted is not None:
                yield refuted
                return
            whole = self._hasher.done
            # Nothing more comes that would take the last pieces along, and for long nothing may of a stalled file.
            self._store.hand_over(overdue_only=not whole)
            if not whole or self._store.unwritten_bytes > FINISH_AT_ONCE_BYTES:
                return  # the disk may be behind: `advance` is called again while it catches up
            self._ended = True
            digest = self._hasher.digest()
            self._store.finish(digest)
        except StoreError as error:
            self._ended = True
            yield FileFailed(self._opening.hex, error.reason, error.detail)
            return
        opening = self._opening
        yield FileVerified(
            opening.hex, opening.channel, opening.source, opening.name, opening.size_bytes or 0, digest.hex()
        )

    def _verify(self) -> Refuted | None:
        """Go through what is stored and in order, a bounded part; return what proves not to be the source's own."""
        hasher = self._hasher
        left = HASH_AT_ONCE
        while left > 0 and hasher.next_number in self._held:
            before = hasher.next_number
            if not hasher.at_proof:
                hasher.catch_up(left)
            elif (refuted := self._judge(before)) is not None:
                return refuted
            left -= max(1, hasher.next_number - before)
        return None

    def _judge(self, number: int) -> Refuted | None:
        """Compare the pieces so far with a proof."""
        proof = self._store.read(number)
        if proof is None:
            self._held.discard(number)
            return None
        expected, signature = proof[:DIGEST_BYTES], proof[DIGEST_BYTES:]
        statement = block_statement(self._opening.stream, number, expected)
        if len(proof) != PROOF_BYTES or not self._author.is_signed(PURPOSE_BLOCK, statement, signature):
            return Refuted(number, number + 1)
        if self._hasher.digest() != expected:
            start = self._hasher.go_back()
            return Refuted(start, max(number, start + 1))
        self._hasher.pass_proof()
        return None

    def skip_below(self, number: int) -> Iterator[Outcome]:
        """Fail: a file has no gaps, without some piece it never completes."""
        if not self._ended:
            self._ended = True
            yield FileFailed(self._opening.hex, "expired", "pieces passed their retention before they arrived")


class _Assembled(NamedTuple):
    """A message that waits to be verified: its first and last number, and its bytes with the signature at their end."""

    first: int
    last: int
    data: bytes


class MessageSink:
    """Messages in their source's order: chunks from one marked START to one marked END.

    They are put together as they come, and verified when they are asked for: what has to be sent goes first.

    Args:
        opening: the stream's fixed facts.
        author: verifies what its source signed.
        held: the numbers in the store.
        store: where they are.
        flags: the chunks' flags.
    """

    def __init__(
        self, opening: Opening, author: Verifier, held: RangeSet, store: StreamStore, flags: dict[int, int]
    ) -> None:
        self._opening = opening
        self._author = author
        self._held = held
        self._store = store
        self._flags = flags
        self._next = 1
        self._assembled: deque[_Assembled] = deque()
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._first: int | None = None
        self._after_gap = False
        self._behind_gap = False
        """Whether no message was verified since the last gap: its rest may still be found to be no beginning."""

    @property
    def verified_below(self) -> int:
        """The number below which every message was delivered, or given up."""
        return self._assembled[0].first if self._assembled else self._next - len(self._parts)

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Outcome]:
        """Put messages together from what is in order; `advance` delivers them."""
        if start == self._next:
            for plain in plains:
                self._take(flags, plain)
        return _NOTHING

    def advance(self) -> Iterator[Outcome]:
        """Deliver what is stored and in order, up to what is refuted."""
        while True:
            for outcome in self._deliver():
                yield outcome
                if isinstance(outcome, Refuted):
                    return
            if self._next not in self._held:
                return
            plain = self._store.read(self._next)
            if plain is None:
                yield from self.skip_below(self._next + 1)
            else:
                self._take(self._flags.get(self._next, 0), plain)

    def skip_below(self, number: int) -> Iterator[Outcome]:
        """Give up what is below ``number``, and say so."""
        yield from self._deliver()
        if number <= self._next:
            return
        opening = self._opening
        yield MessageGap(opening.channel, opening.source, opening.hex, self._next, number - 1)
        self._next = number
        self._after_gap = self._behind_gap = True
        self._drop_parts()

    def _take(self, flags: int, plain: bytes) -> None:
        """Take the next chunk. Where a source would never put it, what came so far is handed on to fail."""
        number = self._next
        self._next += 1
        if flags & FLAG_START:
            if self._parts:
                self._assemble(number - 1, b"")
            self._first, self._after_gap = number, False
        elif self._first is None:
            if not self._after_gap:
                self._first = number
                self._assemble(number, b"")
            return
        self._size_bytes += len(plain)
        self._parts.append(plain)
        if self._size_bytes > MAX_MESSAGE_BYTES + SIGNATURE_BYTES:
            self._assemble(number, b"")
        elif flags & FLAG_END:
            self._assemble(number, b"".join(self._parts))

    def _assemble(self, last: int, data: bytes) -> None:
        self._assembled.append(_Assembled(last if self._first is None else self._first, last, data))
        self._drop_parts()

    def _deliver(self) -> Iterator[Outcome]:
        """Verify what was put together, and hand it on."""
        opening = self._opening
        while self._assembled:
            first, last, data = self._assembled.popleft()
            payload, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
            statement = message_statement(opening.stream, first, last, payload)
            if not self._author.is_signed(PURPOSE_MESSAGE, statement, signature):
                self._go_back(first)
                yield Refuted(first, last + 1)
                return
            self._behind_gap = False
            yield MessageReceived(opening.channel, opening.source, opening.hex, last, payload)

    def _go_back(self, number: int) -> None:
        self._next = number
        self._after_gap = self._behind_gap
        self._assembled.clear()
        self._drop_parts()

    def _drop_parts(self) -> None:
        self._parts.clear()
        self._size_bytes = 0
        self._first = None
