"""Where a stream's bytes are kept: what the core asks for, and the shell and the simulator implement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from common.errors import ArborcastError
from common.opening import Opening

StoreReason = Literal["no-space", "io", "changed", "bad-name", "too-many"]
STORE_REASONS: Final[tuple[str, ...]] = get_args(StoreReason)
Role = Literal["source", "receive", "done"]


class StoreError(ArborcastError):
    """The store cannot take or give the bytes.

    Attributes:
        reason: a short slug that travels in the receipt.
        detail: one sentence for people, with the limit in it.
    """

    def __init__(self, reason: StoreReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class PieceReader(Protocol):
    """The bytes of a file that is being sent."""

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``.

        Raises:
            StoreError: the file cannot be read, or is no longer the one whose sending began.
        """


class StreamStore(Protocol):
    """One stream's chunks by number, with the 16-byte tag under which each was sealed.

    The tag makes a re-seal safe: a chunk read back whose tag differs is never sent (no number is ever sealed twice
    with different bytes).
    """

    def held(self) -> Iterable[tuple[int, int]]:
        """Return the half-open number ranges that were stored before; the core verifies each against its tag."""

    def write_run(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        """Keep the plain bytes and tags of consecutive chunks: all of them, or with an error none.

        Args:
            start: the first chunk's number, from 1.
            pieces: their plain bytes (a source's store keeps of a file's pieces the tags alone).
            tags: one for each.

        Raises:
            StoreError: no space, or the medium fails.
        """

    def read(self, number: int) -> bytes | None:
        """Return a chunk's plain bytes, or None if they are not kept any more."""

    def read_run(self, start: int, count: int) -> list[bytes]:
        """Return the plain bytes of up to ``count`` consecutive chunks from ``start`` that the caller holds.

        It ends before the first chunk that is not kept any more, and may be empty.

        Raises:
            StoreError: the medium fails, or the file that is being sent is no longer the same.
        """

    def tags_run(self, start: int, count: int) -> list[bytes | None]:
        """Return the tags of ``count`` consecutive chunks from ``start``, None for each that has none."""

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were taken and are not on the medium yet, of all streams that share it."""

    @property
    def unwritten_bytes(self) -> int:
        """What the medium has to take before ``finish`` can be through; 0 too if it would fail."""

    def hand_over(self, *, overdue_only: bool = False) -> None:
        """Have what was gathered written, without waiting for it.

        Args:
            overdue_only: only if it has been gathered for long.

        Raises:
            StoreError: no space, or the medium fails.
        """

    def flush(self) -> None:
        """Make the tags written so far outlive a crash; a source calls it before their chunks are sent.

        Raises:
            StoreError: no space, or the medium fails.
        """

    def drop_below(self, number: int) -> None:
        """Forget the chunks below ``number`` (they passed their retention)."""

    def finish(self, digest: bytes | None) -> None:
        """Make a completely received and verified stream final (a file gets its name).

        Args:
            digest: the file's SHA-256; None for a message stream.

        Raises:
            StoreError: the name cannot be taken, or the medium fails.
        """

    def discard(self) -> None:
        """Drop everything that was stored."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A stream found in the store at start."""

    sealed_opening: bytes
    store: StreamStore
    role: Role


class Stores(Protocol):
    """All streams that this device keeps."""

    def receive(self, opening: Opening, sealed: bytes) -> StreamStore:
        """Make room for a stream to be received.

        Raises:
            StoreError: it is refused here; the reason goes to the source.
        """

    def source(self, opening: Opening, sealed: bytes, reader: PieceReader | None) -> StreamStore:
        """Make the record of a stream that starts here; a file's bytes come from ``reader``.

        Raises:
            StoreError: the record cannot be kept.
        """

    def resume(self) -> Iterable[Resumed]:
        """Return the streams of an earlier run that are worth going on with."""

    def tombstones(self) -> Mapping[str, float]:
        """Return finished streams (id in hex) with the unix seconds at which each may be forgotten."""

    def bury(self, stream: str, expires: float) -> None:
        """Remember a finished stream until ``expires`` (unix seconds), so that no repeat revives it."""
