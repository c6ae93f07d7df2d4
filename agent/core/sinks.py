"""What becomes of a stream's chunks here: a file that is hashed in order, or messages for the application."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from agent.core.events import Event, FileFailed, FileVerified, MessageGap, MessageReceived
from agent.core.rangeset import RangeSet
from agent.core.store import StoreError, StreamStore
from common.datagrams import FLAG_END, FLAG_START
from common.limits import MAX_MESSAGE_BYTES
from common.opening import Opening

_NOTHING: Final[Iterator[Event]] = iter(())
HASH_AT_ONCE: Final = 512
"""Pieces read back and hashed in one call at most, so that a late first piece does not stall the others."""
FINISH_AT_ONCE_BYTES: Final = 1024 * 1024
"""Bytes that the end of a file may wait for the disk to take: a few milliseconds."""
READ_AT_ONCE: Final = 64
"""Pieces of them that are read together."""


class Sink(Protocol):
    """Takes a stream's chunks in any order."""

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Event]:
        """Take consecutive chunks that were just stored; yields what they mean for the application."""

    def advance(self) -> Iterator[Event]:
        """Go on with what is stored already; yields what it means for the application."""

    def skip_below(self, number: int) -> Iterator[Event]:
        """Give up the numbers below ``number``."""


class FileHasher:
    """The SHA-256 of a file's pieces in order, some of which are already stored.

    Args:
        pieces: how many there are.
        held: the numbers in the store.
        store: where they are.
    """

    def __init__(self, pieces: int, held: RangeSet, store: StreamStore) -> None:
        self._pieces = pieces
        self._held = held
        self._store = store
        self._hash = hashlib.sha256()
        self.next_number = 1

    @property
    def done(self) -> bool:
        """Whether every piece was hashed."""
        return self.next_number > self._pieces

    def feed(self, start: int, plains: Sequence[bytes]) -> bool:
        """Hash consecutive pieces at once if they are the next ones.

        Returns:
            Whether they were, and the file goes on with a piece that is not stored yet.
        """
        stop = start + len(plains)
        if start != self.next_number or stop > self._pieces + 1:
            return False
        update = self._hash.update
        for plain in plains:
            update(plain)
        self.next_number = stop
        return stop <= self._pieces and stop not in self._held

    def catch_up(self) -> bool:
        """Hash stored pieces, at most HASH_AT_ONCE; return whether more are waiting.

        Raises:
            StoreError: a piece cannot be read back.
        """
        for _ in range(HASH_AT_ONCE // READ_AT_ONCE):
            start = self.next_number
            held, stop = self._held.until(start, min(start + READ_AT_ONCE, self._pieces + 1))
            if self.done or not held:
                return False
            plains = self._store.read_run(start, stop - start)
            if not plains:
                self._held.discard(start)
                return False
            self.feed(start, plains)
        return not self.done and self.next_number in self._held

    def digest(self) -> bytes:
        """Return the SHA-256 of what was hashed."""
        return self._hash.digest()


class FileSink:
    """A file that arrives: done when every piece is hashed and the closing record agrees."""

    def __init__(self, opening: Opening, held: RangeSet, store: StreamStore) -> None:
        self._opening = opening
        self._held = held
        self._store = store
        self._closing_number = opening.pieces + 1
        self._hasher = FileHasher(opening.pieces, held, store)
        self._expected: bytes | None = None
        self._ended = False

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Event]:
        """Hash what is in order; check the closing record."""
        if start == self._closing_number:
            self._expected = plains[0]
        elif self._hasher.feed(start, plains):
            # The common case: in order, and nothing stored behind it waits to be hashed.
            return _NOTHING
        return self.advance()

    def advance(self) -> Iterator[Event]:
        """Hash what is stored and in order; finish the file when all of it is."""
        if self._ended:
            return
        try:
            self._hasher.catch_up()
            whole = self._hasher.done and self._closing() is not None
            # Nothing more comes that would take the last pieces along, and for long nothing may of a stalled file.
            self._store.hand_over(overdue_only=not whole)
            if not whole or self._store.unwritten_bytes > FINISH_AT_ONCE_BYTES:
                return  # the disk may be behind: `advance` is called again while it catches up
        except StoreError as error:
            yield self._fail(error.reason, error.detail)
            return
        self._ended = True
        digest = self._hasher.digest()
        if digest != self._expected:
            yield self._fail("hash-mismatch", "the file's SHA-256 is not the one its source announced")
            return
        try:
            self._store.finish(digest)
        except StoreError as error:
            yield self._fail(error.reason, error.detail)
            return
        opening = self._opening
        yield FileVerified(
            opening.hex, opening.channel, opening.source, opening.name, opening.size_bytes or 0, digest.hex()
        )

    def _closing(self) -> bytes | None:
        """Return the closing record, which may have come in an earlier run."""
        if self._expected is None and self._closing_number in self._held:
            self._expected = self._store.read(self._closing_number)
        return self._expected

    def skip_below(self, number: int) -> Iterator[Event]:
        """Fail: a file has no gaps, without some piece it never completes."""
        if not self._ended:
            yield self._fail("expired", "pieces passed their retention before they arrived")

    def _fail(self, reason: str, detail: str) -> FileFailed:
        self._ended = True
        return FileFailed(self._opening.hex, reason, detail)


class MessageSink:
    """Messages in their source's order: chunks from one marked START to one marked END."""

    def __init__(self, opening: Opening, held: RangeSet, store: StreamStore, flags: dict[int, int]) -> None:
        self._opening = opening
        self._held = held
        self._store = store
        self._flags = flags
        self._next = 1
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._inside = False

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Event]:
        """Deliver what is in order."""
        if start != self._next:
            return
        for plain in plains:
            yield from self._take(flags, plain)
        yield from self.advance()

    def advance(self) -> Iterator[Event]:
        """Deliver what is stored and in order."""
        while self._next in self._held:
            plain = self._store.read(self._next)
            if plain is None:
                yield from self.skip_below(self._next + 1)
                continue
            yield from self._take(self._flags.get(self._next, 0), plain)

    def skip_below(self, number: int) -> Iterator[Event]:
        """Give up what is below ``number``, and say so."""
        if number <= self._next:
            return
        opening = self._opening
        yield MessageGap(opening.channel, opening.source, opening.hex, self._next, number - 1)
        self._next = number
        self._drop_parts()

    def _take(self, flags: int, plain: bytes) -> Iterator[Event]:
        number = self._next
        self._next += 1
        if flags & FLAG_START:
            self._drop_parts()
            self._inside = True
        if not self._inside:
            return
        self._size_bytes += len(plain)
        if self._size_bytes > MAX_MESSAGE_BYTES:
            self._drop_parts()
            return
        self._parts.append(plain)
        if flags & FLAG_END:
            payload = b"".join(self._parts)
            self._drop_parts()
            opening = self._opening
            yield MessageReceived(opening.channel, opening.source, opening.hex, number, payload)

    def _drop_parts(self) -> None:
        self._parts.clear()
        self._size_bytes = 0
        self._inside = False
