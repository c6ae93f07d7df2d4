"""One file stream on disk: its pieces, the tags they were sealed under, and its records.

Theory of operation. A stream has a folder of its own in the agent's state, with three files: ``meta.json`` (the
sealed opening and what is known of the file), ``tags`` (16 bytes for each piece, zero where it is missing) and
``records`` (every chunk that is no piece of the file, the proofs of its blocks, one after the other). A piece's
bytes go to the ``.part`` file in the receive folder before its tag goes to ``tags``, so after a crash a tag means
bytes; the core verifies them nevertheless. A receiver gathers pieces and has them written together by another thread
(``disk_writer``); what is not written yet is read from memory. A crash costs it the last few, which it gets again. A
source gathers tags until it is told to flush, which it is before their chunks are sent: no number may be sealed twice
with different bytes. The disk itself has them for certain only once the agent has stopped in good order; ``meta.json``
says in which run of the host they were written before, and a source whose host went down meanwhile goes on no more.
The finished file gets its name by a link that never replaces what is there; ``meta.json`` has the name before the file
has it, so that a crash in between does not make a second file.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.core.store import PieceReader, StoreError
from agent.services.disk_writer import DiskWriter, write_at
from agent.services.handles import Handles
from agent.services.naming import take_name
from agent.services.piece_run import Gathering, PieceRun
from agent.services.record_file import RecordFile
from agent.services.stream_meta import Meta
from agent.services.tag_file import TagFile, write_tags

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 256 * 1024
"""Bytes of pieces that are written together."""
GATHER_S: Final = 1.0
"""Seconds after which pieces are gathered no longer, few as they may be: a crash costs them."""
MOST_GATHERED_RUNS: Final = 64
"""Runs that are written together at most: where pieces come in no order, each is a call of its own."""
MOST_GATHERED_TAGS: Final = 4_096
"""Tags that a source gathers at most."""
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileStreamStore:
    """One file stream's chunks on disk.

    Args:
        folder: the stream's own folder in the agent's state.
        meta: what is known of the stream; for a new one already saved.
        handles: the open files of all streams.
        writer: writes what is received.
        reader: at the source, the file.
    """

    def __init__(
        self,
        folder: Path,
        meta: Meta,
        handles: Handles,
        writer: DiskWriter,
        reader: PieceReader | None = None,
    ) -> None:
        self._folder = folder
        self._meta = meta
        self._blocks = meta.blocks
        self._receives = meta.role == "receive"
        self._handles = handles
        self._writer = writer
        self._reader = reader
        self._path = Path(meta.path)
        self._tags = TagFile(folder / "tags", handles)
        self._records = RecordFile(folder / "records", handles)
        self._gathered = Gathering()
        self._lane = writer.lane(self._write_runs)

    @property
    def meta(self) -> Meta:
        """What is kept of the stream beside its chunks."""
        return self._meta

    @property
    def backlog_bytes(self) -> int:
        """Bytes that were taken and are not on the disk yet, of all streams."""
        return self._gathered.size_bytes + self._writer.queued_bytes

    @property
    def unwritten_bytes(self) -> int:
        """What the disk has to take before all of this stream is on it; 0 too if the disk has failed."""
        if self._lane.failure is not None:
            return 0
        gathered_bytes = self._gathered.size_bytes
        return gathered_bytes + self._writer.queued_bytes if gathered_bytes else self._lane.ahead_bytes

    def held(self) -> Iterable[tuple[int, int]]:
        """Return the half-open number ranges that have a tag."""
        self.flush()
        tagged = (number for number in self._tags.numbers() if self._is_piece(number))
        return _ranges(heapq.merge(tagged, sorted(self._records.records)))

    def write_run(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        """Take consecutive chunks: bytes and tags, of a source's pieces the tags alone.

        Raises:
            StoreError: no space, or the medium fails, with these or with what was taken before.
        """
        try:
            if self._is_piece(start):
                self._gather(start, pieces, tags)
            else:
                self._records.write(start, pieces[0], tags[0])
        except OSError as error:
            raise store_error(error, f"writing {self._meta.name!r}") from error

    def read(self, number: int) -> bytes | None:
        """Return a chunk's plain bytes; None if the file is gone or shorter now."""
        run = self.read_run(number, 1)
        return run[0] if run else None

    def read_run(self, start: int, count: int) -> list[bytes]:
        """Return consecutive chunks' plain bytes, as far as the file has them.

        Raises:
            StoreError: the medium fails, or the file that is being sent is no longer the same.
        """
        number, stop = start, start + count
        waiting = [run for run in self._waiting() if run.start < stop and start < run.stop] if self._receives else ()
        run: list[bytes] = []
        while number < stop:
            some = self._read_some(number, stop, waiting)
            if not some:
                break
            run += some
            number += len(some)
        return run

    def tags_run(self, start: int, count: int) -> list[bytes | None]:
        """Return consecutive chunks' tags, None for each that has none."""
        waiting = self._waiting()
        stop = start + count
        tags = self._tags.read(start, count)
        for run in reversed(waiting):
            first, last = max(start, run.start), min(stop, run.stop)
            if first < last:
                tags[first - start : last - start] = run.tags[first - run.start : last - run.start]
        proof = self._blocks.proof_from(start)
        while start <= proof < stop:
            record = self._records.records.get(proof)
            tags[proof - start] = record[0] if record else None
            proof = stop if proof == self._blocks.closing else self._blocks.proof_from(proof + 1)
        return tags

    def flush(self) -> None:
        """Write what was gathered, and wait for it.

        Raises:
            StoreError: no space, or the medium fails.
        """
        try:
            self._flush()
        except OSError as error:
            raise store_error(error, f"writing {self._meta.name!r}") from error

    def hand_over(self, *, overdue_only: bool = False) -> None:
        """Have what was gathered written, without waiting.

        Args:
            overdue_only: only if it has been gathered for GATHER_S.

        Raises:
            StoreError: no space, or the medium fails.
        """
        if overdue_only and not self._overdue():
            return
        try:
            self._hand_over()
        except OSError as error:
            raise store_error(error, f"writing {self._meta.name!r}") from error

    def make_safe(self) -> None:
        """At a source: let the tags of all that was cut outlive a power cut, and note that they do.

        Raises:
            StoreError: no space, or the medium fails.
        """
        if self._receives or not self._meta.boot:
            return
        try:
            self._flush()
            self._tags.sync()
            self._records.sync()
            self._meta = replace(self._meta, boot="")
            self._meta.save(self._folder, sync=True)
        except OSError as error:
            raise store_error(error, f"writing {self._meta.name!r}") from error

    def drop_below(self, number: int) -> None:
        """Do nothing: a file is kept whole."""

    def finish(self, digest: bytes | None) -> None:
        """Give the complete file its name, or the next free one after it.

        Raises:
            StoreError: some of it cannot be written, or it cannot be named.
        """
        sha256 = digest.hex() if digest else ""
        self.flush()
        try:
            if self._receives and not self._meta.done:
                self._handles.forget(self._path)
                self._meta = replace(self._meta, sha256=sha256)
                self._path = take_name(self._path, self._meta.name, self._note_final)
            self._meta = replace(self._meta, done=True, sha256=sha256, path=str(self._path))
        except OSError as error:
            raise store_error(error, f"naming {self._meta.name!r}") from error
        try:
            self._meta.save(self._folder)
        except OSError as error:
            # The file has its name and the record says which: the next start completes it.
            log.warning("= the end of %r is not on record yet: %s", self._meta.name, error)

    def discard(self) -> None:
        """Drop what is kept of the stream; a finished file and a source's file stay."""
        self._gathered.clear()
        self._lane.cancel()
        if self._receives and not self._meta.done:
            self._path.unlink(missing_ok=True)
        self._handles.forget(self._path)
        self._tags.forget()
        self._records.forget()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _note_final(self, final: Path) -> None:
        """Put on record which name the file is about to get."""
        self._meta = replace(self._meta, final=str(final))
        self._meta.save(self._folder)

    def _is_piece(self, number: int) -> bool:
        return 1 <= number < self._blocks.closing and not self._blocks.is_proof(number)

    def _offset(self, number: int) -> int:
        return self._blocks.index_of(number) * self._meta.piece_bytes

    def _gather(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        """Take pieces; hand them over when there is enough of them to be worth a call."""
        gathered, now = self._gathered, time.monotonic()
        if not self._receives:
            gathered.add(start, (), tags, now)
            if sum(len(run.tags) for run in gathered.runs) >= MOST_GATHERED_TAGS:
                self._flush()
            return
        if self._meta.done:
            return  # the file is its user's now
        self._lane.check()
        gathered.add(start, pieces, tags, now)
        if (
            gathered.size_bytes >= BATCH_BYTES
            or len(gathered.runs) >= MOST_GATHERED_RUNS
            or now - gathered.began_at >= GATHER_S
        ):
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the writer what was gathered; a source's tags are written at once."""
        gathered = self._gathered
        if not gathered.runs:
            return
        if self._receives:
            self._lane.put(gathered.runs, gathered.size_bytes)
        else:
            self._tags.write(gathered.runs)
        self._tags.stop = max(self._tags.stop, *(run.stop for run in gathered.runs))
        gathered.clear()

    def _overdue(self) -> bool:
        return bool(self._gathered.runs) and time.monotonic() - self._gathered.began_at >= GATHER_S

    def _flush(self) -> None:
        self._hand_over()
        self._lane.wait()

    def _write_runs(self, runs: Sequence[PieceRun]) -> None:
        """Write pieces, then their tags. It runs on the writer's thread and shares nothing with the other."""
        with _opened(self._path, os.O_WRONLY) as part:
            for run in runs:
                write_at(part, run.pieces, self._offset(run.start))
        with _opened(self._tags.path, os.O_WRONLY | os.O_CREAT) as tags:
            write_tags(tags, runs)

    def _waiting(self) -> list[PieceRun]:
        """Return the runs that are in memory still, newest first."""
        runs = [run for batch in self._lane.pending for run in batch.runs]
        runs += self._gathered.runs
        runs.reverse()
        return runs

    def _read_some(self, number: int, stop: int, waiting: Sequence[PieceRun]) -> list[bytes]:
        """Return chunks from ``number`` that lie together: in memory, or in the file."""
        if not self._is_piece(number):
            record = self._records.records.get(number)
            return [record[1]] if record else []
        stop = min(stop, self._blocks.proof_from(number))
        for run in waiting:
            if number in run:
                return run.pieces[number - run.start : stop - run.start]
            if number < run.start < stop:
                stop = run.start
        size = self._meta.piece_bytes
        offset = self._offset(number)
        data = self._read_file(offset, min((stop - number) * size, self._meta.size_bytes - offset))
        return [data[at : at + size] for at in range(0, len(data), size)]

    def _read_file(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; of a received one that is gone or shorter now the whole pieces that are left."""
        if self._reader is not None:
            return self._reader.read(offset, length)
        try:
            data = os.pread(self._handles.get(self._path, os.O_RDONLY), length, offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise store_error(error, f"reading {self._meta.name!r}") from error
        return data if len(data) == length else data[: len(data) - len(data) % self._meta.piece_bytes]


def store_error(error: OSError, doing: str) -> StoreError:
    """Say what the medium said, as the core and the sender shall hear it."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return StoreError("no-space", f"no space left {doing}: {reason}")
    return StoreError("io", f"{doing} failed: {reason}")


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a regular file."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _ranges(numbers: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Join ascending numbers to half-open ranges."""
    first = end = 0
    for number in numbers:
        if number != end:
            if end > first:
                yield first, end
            first = number
        end = number + 1
    if end > first:
        yield first, end
