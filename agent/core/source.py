"""The source's side of a stream: cutting bytes into numbered chunks, each sealed once.

A file is cut no faster than its fastest next hop takes it; the slower ones follow with cursors of their own. A
message is cut at once; the publisher waits only while too much is still owed to its own next hops.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from agent.core.sinks import FileHasher
from agent.core.store import StoreError
from agent.core.stream import Stream
from common.datagrams import FLAG_CLOSING, FLAG_END, FLAG_START
from common.errors import RefusedError
from common.limits import MAX_MESSAGE_BYTES
from common.sealing import TAG_BYTES

CUT_AHEAD: Final = 256
"""Chunks owed to the fastest next hop beyond which a file is not cut further."""
CUT_AT_ONCE: Final = 512
"""Chunks cut in one call: a restarted source cuts all it cut before again, and must not stall its links meanwhile."""
MAX_PUBLISH_QUEUE_BYTES: Final = 8 * 1024 * 1024
"""Published bytes that may wait to be cut; beyond it the publisher is told to wait."""

Cut = tuple[int, bytes]
"""A chunk's number, and its form as it travels."""


class FileSource:
    """Cuts a file.

    Args:
        stream: the stream, with role ``source``.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._pieces = stream.opening.pieces
        self._next = 1
        self._hasher = FileHasher(self._pieces, stream.held, stream.store)
        self.failed: StoreError | None = None

    @property
    def done(self) -> bool:
        """Whether the closing record was cut."""
        return self._next > self._pieces + 1

    def cut(self) -> Cut | None:
        """Cut the next chunk; None when there is none, or the file cannot be read (then ``failed`` says why).

        A number that an earlier run sealed is sealed again only if its tag comes out the same.
        """
        number = self._next
        if self.done or self.failed is not None:
            return None
        try:
            if number <= self._pieces:
                plain = self.stream.store.read(number)
                if plain is None:
                    raise StoreError("io", "the file is no longer there")
                self._hasher.feed(number, plain)
                flags = 0
            else:
                plain, flags = self._hasher.digest(), FLAG_CLOSING
            chunk = self._seal(number, flags, plain)
        except StoreError as error:
            self.failed = error
            return None
        self._next = number + 1
        return number, chunk

    def _seal(self, number: int, flags: int, plain: bytes) -> bytes:
        stream = self.stream
        chunk = stream.seal(number, flags, plain)
        before = stream.store.tag(number)
        if before is None:
            stream.keep(number, flags, chunk, plain)
        elif before != chunk[-TAG_BYTES:]:
            raise StoreError("changed", "the file changed while it was being sent")
        else:
            stream.remember(number, chunk)
            stream.mark(number)
        return chunk


class MessageSource:
    """Cuts messages.

    Args:
        stream: the stream, with role ``source``.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.key_epoch = 0
        """Under which group key its opening was sealed."""
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued_bytes = 0
        self._next = 1

    def publish(self, payload: bytes) -> int:
        """Take a message; return the number of its last chunk.

        Raises:
            RefusedError: it is too large, or too much waits already.
        """
        if len(payload) > MAX_MESSAGE_BYTES:
            detail = f"a message of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are taken"
            raise RefusedError("too-large", detail)
        if self._queued_bytes + len(payload) > MAX_PUBLISH_QUEUE_BYTES:
            detail = f"{self._queued_bytes} bytes wait already; at most {MAX_PUBLISH_QUEUE_BYTES} may"
            raise RefusedError("busy", detail)
        size = self.stream.opening.piece_bytes
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for index, piece in enumerate(pieces):
            flags = (FLAG_START if index == 0 else 0) | (FLAG_END if index == len(pieces) - 1 else 0)
            self._queue.append((flags, piece))
        self._queued_bytes += len(payload)
        return self._next + len(self._queue) - 1

    def cut(self) -> Cut | None:
        """Cut the next chunk, or return None."""
        if not self._queue:
            return None
        flags, piece = self._queue.popleft()
        self._queued_bytes -= len(piece)
        number = self._next
        chunk = self.stream.seal(number, flags, piece)
        self.stream.keep(number, flags, chunk, piece)
        self._next = number + 1
        return number, chunk


Source = FileSource | MessageSource
