"""The source's side of a stream: cutting bytes into numbered chunks, each sealed once, and signing for them.

A file is cut no faster than its fastest next hop takes it; the slower ones follow with cursors of their own. A
message is cut at once; the publisher waits only while too much is still owed to its own next hops.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from agent.core.sinks import FileHasher
from agent.core.store import StoreError
from agent.core.stream import Stream
from common.blocks import Blocks
from common.datagrams import FLAG_END, FLAG_PROOF, FLAG_START
from common.errors import RefusedError
from common.limits import MAX_MESSAGE_BYTES
from common.sealing import TAG_BYTES
from common.signing import PURPOSE_BLOCK, PURPOSE_MESSAGE, SIGNATURE_BYTES, Signer, block_statement, message_statement

CUT_AHEAD: Final = 256
"""Chunks owed to the fastest next hop beyond which a file is not cut further."""
CUT_AT_ONCE: Final = 512
"""Chunks cut in one call: a restarted source cuts all it cut before again, and must not stall its links meanwhile."""
MAX_PUBLISH_QUEUE_BYTES: Final = 8 * 1024 * 1024
"""Published bytes that may wait to be cut; beyond it the publisher is told to wait."""


class Cut(NamedTuple):
    """Consecutive chunks that were just cut.

    Attributes:
        start: the first one's number.
        chunks: as they travel; at least one.
        fresh: False if an earlier run of the agent had cut them already.
    """

    start: int
    chunks: list[bytes]
    fresh: bool


class FileSource:
    """Cuts a file.

    Args:
        stream: the stream, with role ``source``.
        blocks: how its chunks are numbered.
        signer: signs as this device.
    """

    def __init__(self, stream: Stream, blocks: Blocks, signer: Signer) -> None:
        self.stream = stream
        self._blocks = blocks
        self._signer = signer
        self._next = 1
        self._hasher = FileHasher(blocks, stream.held, stream.store)
        self.failed: StoreError | None = None

    @property
    def done(self) -> bool:
        """Whether the closing record was cut."""
        return self._next > self._blocks.closing

    def cut(self, most: int) -> Cut | None:
        """Cut up to ``most`` chunks; None when there are none, or the file cannot be read (``failed`` says why).

        A number that an earlier run sealed is sealed again only if its tag comes out the same.
        """
        start = self._next
        if self.done or self.failed is not None:
            return None
        held, stop = self.stream.held.until(start, start + most)
        try:
            proof = self._blocks.proof_from(start)
            if start < proof:
                flags = 0
                plains = self.stream.store.read_run(start, min(stop, proof) - start)
                if not plains:
                    raise StoreError("io", "the file is no longer there")
                self._hasher.feed(start, plains)
            else:
                flags = FLAG_PROOF
                plains = [self._prove(start)]
            chunks = self._seal(start, flags, plains)
        except StoreError as error:
            self.failed = error
            return None
        self._next = start + len(chunks)
        return Cut(start, chunks, not held)

    def _prove(self, number: int) -> bytes:
        digest = self._hasher.digest()
        self._hasher.pass_proof()
        return digest + self._signer.sign(PURPOSE_BLOCK, block_statement(self.stream.opening.stream, number, digest))

    def _seal(self, start: int, flags: int, plains: list[bytes]) -> list[bytes]:
        stream = self.stream
        chunks = stream.seal(start, flags, plains)
        before = stream.store.tags_run(start, len(chunks))
        if not any(before):
            stream.keep(start, flags, chunks, plains)
            return chunks
        for number, (chunk, plain, tag) in enumerate(zip(chunks, plains, before, strict=True), start):
            if tag is None:
                stream.keep(number, flags, [chunk], [plain])
            elif tag != chunk[-TAG_BYTES:]:
                raise StoreError("changed", "the file changed while it was being sent")
            else:
                stream.remember(number, [chunk])
                stream.mark(number, number + 1)
        return chunks


class MessageSource:
    """Cuts messages.

    Args:
        stream: the stream, with role ``source``.
        signer: signs as this device.
    """

    def __init__(self, stream: Stream, signer: Signer) -> None:
        self.stream = stream
        self._signer = signer
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
        first = self._next + len(self._queue)
        last = first + (len(payload) + SIGNATURE_BYTES - 1) // size
        data = payload + self._signer.sign(
            PURPOSE_MESSAGE, message_statement(self.stream.opening.stream, first, last, payload)
        )
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        for index, piece in enumerate(pieces):
            flags = (FLAG_START if index == 0 else 0) | (FLAG_END if index == len(pieces) - 1 else 0)
            self._queue.append((flags, piece))
        self._queued_bytes += len(data)
        return last

    def cut(self, most: int) -> Cut | None:
        """Cut up to ``most`` chunks, all of which begin or end a message alike; None when there are none."""
        queue = self._queue
        if not queue:
            return None
        flags = queue[0][0]
        pieces: list[bytes] = []
        while queue and len(pieces) < most and queue[0][0] == flags:
            pieces.append(queue.popleft()[1])
        self._queued_bytes -= sum(map(len, pieces))
        start = self._next
        chunks = self.stream.seal(start, flags, pieces)
        self.stream.keep(start, flags, chunks, pieces)
        self._next = start + len(chunks)
        return Cut(start, chunks, fresh=True)


Source = FileSource | MessageSource
