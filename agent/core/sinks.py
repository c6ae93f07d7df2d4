"""What becomes of a stream's chunks here: a file that is hashed in order, or messages for the application."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
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


class Sink(Protocol):
    """Takes a stream's chunks in any order."""

    def on_chunk(self, number: int, flags: int, plain: bytes) -> Iterator[Event]:
        """Take a chunk that was just stored; yields what it means for the application."""

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

    def feed(self, number: int, plain: bytes) -> bool:
        """Hash a piece at once if it is the next one.

        Returns:
            Whether it was, and the file goes on with a piece that is not stored yet.
        """
        if number != self.next_number or number > self._pieces:
            return False
        self._hash.update(plain)
        self.next_number = number + 1
        return number < self._pieces and number + 1 not in self._held

    def catch_up(self) -> bool:
        """Hash stored pieces, at most HASH_AT_ONCE; return whether more are waiting.

        Raises:
            StoreError: a piece cannot be read back.
        """
        for _ in range(HASH_AT_ONCE):
            if self.done or self.next_number not in self._held:
                return False
            plain = self._store.read(self.next_number)
            if plain is None:
                self._held.discard(self.next_number)
                return False
            self.feed(self.next_number, plain)
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

    def on_chunk(self, number: int, flags: int, plain: bytes) -> Iterator[Event]:
        """Hash what is in order; check the closing record."""
        if number == self._closing_number:
            self._expected = plain
        elif self._hasher.feed(number, plain):
            # The common case: in order, and nothing stored behind it waits to be hashed.
            return _NOTHING
        return self.advance()

    def advance(self) -> Iterator[Event]:
        """Hash what is stored and in order; finish the file when all of it is."""
        if self._ended:
            return
        try:
            self._hasher.catch_up()
            if not self._hasher.done or self._closing() is None:
                return
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

    def on_chunk(self, number: int, flags: int, plain: bytes) -> Iterator[Event]:
        """Deliver what is in order."""
        if number != self._next:
            return
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
