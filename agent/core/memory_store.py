"""Streams kept in memory: all message streams, and everything in the simulator."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.core.store import PieceReader, Resumed, Role, StoreError
from common.blocks import Blocks
from common.opening import Opening


class BytesReader:
    """A file to be sent that is already in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``."""
        piece = self._data[offset : offset + length]
        if len(piece) != length:
            raise StoreError("io", f"the file ends before byte {offset + length}")
        return piece


@dataclass(slots=True)
class MemoryStreamStore:
    """One stream's chunks, oldest first out when ``limit_bytes`` is passed (None keeps all).

    ``on_forgotten`` is told the number of each chunk that had to go.
    """

    reader: PieceReader | None = None
    piece_bytes: int = 0
    size_bytes: int = 0
    limit_bytes: int | None = None
    on_forgotten: Callable[[int], object] | None = None
    digest: bytes | None = None
    _chunks: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    _tags: dict[int, bytes] = field(default_factory=dict)
    _kept_bytes: int = 0

    def held(self) -> Iterable[tuple[int, int]]:
        """Return what is stored, one range a number (the reader of it merges them)."""
        return [(number, number + 1) for number in sorted(self._tags)]

    def write_run(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        """Keep consecutive chunks; of a source's file the tags and what is not in the file itself."""
        self._tags.update(enumerate(tags, start))
        for number, data in enumerate(pieces, start):
            if self.reader is None or not self._is_piece(number):
                self._kept_bytes += len(data) - len(self._chunks.get(number, b""))
                self._chunks[number] = data
        if self.limit_bytes is not None:
            while self._kept_bytes > self.limit_bytes:
                self._forget(next(iter(self._chunks)))

    def read(self, number: int) -> bytes | None:
        """Return a chunk's plain bytes, or None."""
        if self.reader is not None and self._is_piece(number):
            offset = self._blocks().index_of(number) * self.piece_bytes
            return self.reader.read(offset, min(self.piece_bytes, self.size_bytes - offset))
        return self._chunks.get(number)

    def read_run(self, start: int, count: int) -> list[bytes]:
        """Return the plain bytes of consecutive chunks, up to the first that is not kept."""
        run: list[bytes] = []
        for number in range(start, start + count):
            data = self.read(number)
            if data is None:
                break
            run.append(data)
        return run

    def tags_run(self, start: int, count: int) -> list[bytes | None]:
        """Return the tags of consecutive chunks, None for each that has none."""
        return [self._tags.get(number) for number in range(start, start + count)]

    @property
    def backlog_bytes(self) -> int:
        """Nothing waits: memory is all there is."""
        return 0

    @property
    def unwritten_bytes(self) -> int:
        """Nothing to wait for."""
        return 0

    def hand_over(self, *, overdue_only: bool = False) -> None:
        """Do nothing: nothing is gathered."""

    def flush(self) -> None:
        """Do nothing: memory is all there is."""

    def drop_below(self, number: int) -> None:
        """Forget the chunks below ``number``."""
        while self._chunks and (old := next(iter(self._chunks))) < number:
            self._forget(old)

    def finish(self, digest: bytes | None) -> None:
        """Keep the verified digest, to be read back by a test or the simulator."""
        self.digest = digest

    def discard(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._tags.clear()
        self._kept_bytes = 0

    def content(self) -> bytes:
        """Return a file's bytes, as far as they are here without a hole."""
        pieces = []
        for number in range(1, self._blocks().closing):
            if self._is_piece(number):
                piece = self.read(number)
                if piece is None:
                    break
                pieces.append(piece)
        return b"".join(pieces)

    def _blocks(self) -> Blocks:
        return Blocks.of(self.size_bytes, self.piece_bytes)

    def _is_piece(self, number: int) -> bool:
        blocks = self._blocks()
        return 0 < number < blocks.closing and not blocks.is_proof(number)

    def _forget(self, number: int) -> None:
        self._kept_bytes -= len(self._chunks.pop(number))
        self._tags.pop(number, None)
        if self.on_forgotten is not None:
            self.on_forgotten(number)


class MemoryStores:
    """Streams that live as long as this object: in the simulator it is the device's disk and outlives the node.

    Args:
        capacity_bytes: files larger than what is left of it are refused with ``no-space``; None takes all.
        message_bytes: what a message stream retains.
    """

    def __init__(self, *, capacity_bytes: int | None = None, message_bytes: int | None = None) -> None:
        self.streams: dict[str, MemoryStreamStore] = {}
        self._capacity_bytes = capacity_bytes
        self._message_bytes = message_bytes
        self._openings: dict[str, tuple[bytes, Role]] = {}
        self._tombstones: dict[str, float] = {}

    def receive(self, opening: Opening, sealed: bytes) -> MemoryStreamStore:
        """Make room for a stream to be received."""
        size = opening.size_bytes or 0
        if self._capacity_bytes is not None:
            if size > self._capacity_bytes:
                detail = f"{size} bytes are more than the {self._capacity_bytes} left here"
                raise StoreError("no-space", detail)
            self._capacity_bytes -= size
        store = MemoryStreamStore(
            piece_bytes=opening.piece_bytes, size_bytes=opening.size_bytes or 0, limit_bytes=self._limit(opening)
        )
        return self._add(opening, sealed, store, "receive")

    def source(self, opening: Opening, sealed: bytes, reader: PieceReader | None) -> MemoryStreamStore:
        """Make the record of a stream that starts here."""
        store = MemoryStreamStore(
            reader=reader,
            piece_bytes=opening.piece_bytes,
            size_bytes=opening.size_bytes or 0,
            limit_bytes=self._limit(opening),
        )
        return self._add(opening, sealed, store, "source")

    def resume(self) -> Iterable[Resumed]:
        """Return the file streams kept so far; message streams start anew after a crash."""
        return [
            Resumed(sealed, self.streams[name], "done" if self.streams[name].digest else role)
            for name, (sealed, role) in self._openings.items()
        ]

    def tombstones(self) -> Mapping[str, float]:
        """Return finished streams and when each may be forgotten."""
        return dict(self._tombstones)

    def bury(self, stream: str, expires: float) -> None:
        """Remember a finished stream."""
        self._tombstones[stream] = expires
        self._openings.pop(stream, None)

    def _limit(self, opening: Opening) -> int | None:
        return self._message_bytes if opening.kind == "message" else None

    def _add(self, opening: Opening, sealed: bytes, store: MemoryStreamStore, role: Role) -> MemoryStreamStore:
        self.streams[opening.hex] = store
        if opening.kind == "file":
            self._openings[opening.hex] = (sealed, role)
        return store
