"""One file stream on disk: its pieces, the tags they were sealed under, and its records.

Theory of operation. A stream has a folder of its own in the agent's state, with three files: ``meta.json`` (the
sealed opening and what is known of the file), ``tags`` (16 bytes for each piece, zero where it is missing) and
``records`` (every chunk that is no piece of the file, such as the closing record, one after the other). A piece's
bytes go to the ``.part`` file in the receive folder before its tag goes to ``tags``, so after a crash a tag means
bytes; the core verifies them nevertheless. A receiver gathers consecutive pieces and writes them together: a crash
costs it the last few, which it gets again. A source gathers tags until it is told to flush, which it is before their
chunks are sent: no number may be sealed twice with different bytes. The finished file gets its name by a link that
never replaces what is there; ``meta.json`` has the name before the file has it, so that a crash in between does not
make a second file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import shutil
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

from agent.core.store import PieceReader, StoreError
from agent.services.handles import Handles
from agent.services.identity import write_atomically
from agent.services.naming import has_name, take_name
from agent.services.piece_run import PieceRun

log = logging.getLogger(__name__)

TAG_BYTES: Final = 16
_MISSING: Final = bytes(TAG_BYTES)
_RECORD: Final = struct.Struct("<QI16s")
"""A record's number, length and tag; its bytes follow."""
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAGS_READ_BYTES: Final = 1024 * 1024
RUN_BYTES: Final = 128 * 1024
"""Bytes of consecutive pieces that are written together."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What is kept of a stream beside its chunks.

    Attributes:
        opening: sealed, in hex.
        role: ``source`` or ``receive``.
        expires: unix seconds after which the stream is of no use.
        name: the safe name that the file shall have, or has.
        path: at the source the file; at a receiver where its bytes are now.
        size_bytes: of the file.
        piece_bytes: of every piece but the last.
        modified_ns: at the source, when the file was last changed.
        inode: at the source, which file it is.
        done: whether it is complete and verified.
        sha256: of the verified file, in hex.
        final: at a receiver the path that a verified file is about to get, or has.
    """

    opening: str
    role: str
    expires: float
    name: str
    path: str
    size_bytes: int
    piece_bytes: int
    modified_ns: int = 0
    inode: int = 0
    done: bool = False
    sha256: str = ""
    final: str = ""

    @property
    def pieces(self) -> int:
        """How many pieces the file has, numbered from 1."""
        return -(-self.size_bytes // self.piece_bytes)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a stream's ``meta.json``.

        Raises:
            ValueError: it cannot be used.
            OSError: it cannot be read.
        """
        try:
            meta = cls(**json.loads((folder / "meta.json").read_bytes()))
            usable = (
                meta.role in ("source", "receive")
                and isinstance(meta.path, str)
                and isinstance(meta.name, str)
                and isinstance(meta.final, str)
                and isinstance(meta.expires, int | float)
                and type(meta.size_bytes) is int
                and type(meta.piece_bytes) is int
                and meta.size_bytes >= 0 < meta.piece_bytes
                and bytes.fromhex(meta.opening)
            )
        except TypeError as error:
            raise ValueError(f"{folder / 'meta.json'} is not a stream's record") from error
        if not usable:
            raise ValueError(f"{folder / 'meta.json'} is not a stream's record")
        return meta

    def save(self, folder: Path) -> None:
        """Write a stream's ``meta.json``.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(folder / "meta.json", json.dumps(asdict(self)).encode())


class FileStreamStore:
    """One file stream's chunks on disk.

    Args:
        folder: the stream's own folder in the agent's state.
        meta: what is known of the stream; for a new one already saved.
        handles: the open files of all streams.
        reader: at the source, the file.
    """

    def __init__(
        self,
        folder: Path,
        meta: Meta,
        handles: Handles,
        reader: PieceReader | None = None,
    ) -> None:
        self._folder = folder
        self._meta = meta
        self._pieces = meta.pieces
        self._handles = handles
        self._reader = reader
        self._path = Path(meta.path)
        self._tags_path = folder / "tags"
        self._tags_end = _tags_in(self._tags_path)
        self._run = PieceRun()
        self._records, self._records_bytes = _load_records(folder / "records")

    @property
    def meta(self) -> Meta:
        """What is kept of the stream beside its chunks."""
        return self._meta

    def held(self) -> Iterable[tuple[int, int]]:
        """Return the half-open number ranges that have a tag."""
        self.flush()
        return _ranges(itertools.chain(self._tagged(), sorted(self._records)))

    def write(self, number: int, data: bytes, tag: bytes) -> None:
        """Keep a chunk's bytes, then its tag; of a source's piece the tag alone.

        Raises:
            StoreError: no space, or the medium fails.
        """
        try:
            if not self._is_piece(number):
                self._write_record(number, data, tag)
                return
            receives = self._meta.role == "receive"
            if receives and self._meta.done:
                return  # the file is its user's now
            if number != self._run.stop:
                self._write_run()
            self._run.add(number, data if receives else b"", tag)
            if self._run.size_bytes >= RUN_BYTES or (receives and number == self._pieces):
                self._write_run()
        except OSError as error:
            raise store_error(error, f"writing {self._meta.name!r}") from error

    def read(self, number: int) -> bytes | None:
        """Return a chunk's plain bytes; None if the file is gone or shorter now."""
        if not self._is_piece(number):
            record = self._records.get(number)
            return record[1] if record else None
        if self._reader is None and number in self._run:
            return self._run.piece(number)
        offset = (number - 1) * self._meta.piece_bytes
        length = min(self._meta.piece_bytes, self._meta.size_bytes - offset)
        if self._reader is not None:
            return self._reader.read(offset, length)
        try:
            data = os.pread(self._handles.get(self._path, os.O_RDONLY), length, offset)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, f"reading {self._meta.name!r}") from error
        return data if len(data) == length else None

    def tag(self, number: int) -> bytes | None:
        """Return a chunk's tag, or None."""
        if not self._is_piece(number):
            record = self._records.get(number)
            return record[0] if record else None
        if number in self._run:
            return self._run.tag(number)
        if number > self._tags_end:
            return None
        try:
            tags = self._handles.get(self._tags_path, os.O_RDWR | os.O_CREAT)
            tag = os.pread(tags, TAG_BYTES, (number - 1) * TAG_BYTES)
        except OSError:
            return None
        return tag if len(tag) == TAG_BYTES and tag != _MISSING else None

    def flush(self) -> None:
        """Write what was gathered.

        Raises:
            StoreError: no space, or the medium fails.
        """
        try:
            self._write_run()
        except OSError as error:
            raise store_error(error, f"writing {self._meta.name!r}") from error

    def drop_below(self, number: int) -> None:
        """Do nothing: a file is kept whole."""

    def finish(self, digest: bytes | None) -> None:
        """Give the complete file its name, or the next free one after it.

        Raises:
            StoreError: it cannot be named.
        """
        sha256 = digest.hex() if digest else ""
        try:
            self._write_run()
            if self._meta.role == "receive" and not self._meta.done:
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
        if self._meta.role == "receive" and not self._meta.done:
            self._handles.forget(self._path)
            self._path.unlink(missing_ok=True)
        self._handles.forget(self._path)
        self._run.clear()
        self._tags_end = 0
        self._handles.forget(self._tags_path)
        self._handles.forget(self._folder / "records")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._records.clear()

    def _note_final(self, final: Path) -> None:
        """Put on record which name the file is about to get."""
        self._meta = replace(self._meta, final=str(final))
        self._meta.save(self._folder)

    def _write_run(self) -> None:
        """Write the pieces that were gathered, then their tags."""
        run = self._run
        if not run:
            return
        start, data, tags = run.start, b"".join(run.pieces), b"".join(run.tags)
        run.clear()
        if data:
            handle = self._handles.get(self._path, os.O_WRONLY)
            _write_at(handle, data, (start - 1) * self._meta.piece_bytes)
        self._write_tags(start, tags)

    def _write_tags(self, number: int, tags: bytes) -> None:
        handle = self._handles.get(self._tags_path, os.O_RDWR | os.O_CREAT)
        _write_at(handle, tags, (number - 1) * TAG_BYTES)
        self._tags_end = max(self._tags_end, number - 1 + len(tags) // TAG_BYTES)

    def _is_piece(self, number: int) -> bool:
        return 1 <= number <= self._pieces

    def _tagged(self) -> Iterable[int]:
        """Yield the numbers of the pieces that have a tag."""
        try:
            with self._tags_path.open("rb") as tags:
                number = 0
                while block := tags.read(_TAGS_READ_BYTES):
                    for start in range(0, len(block) - TAG_BYTES + 1, TAG_BYTES):
                        number += 1
                        tagged = block[start : start + TAG_BYTES] != _MISSING
                        if tagged and self._is_piece(number):
                            yield number
        except FileNotFoundError:
            return

    def _write_record(self, number: int, data: bytes, tag: bytes) -> None:
        handle = self._handles.get(self._folder / "records", os.O_RDWR | os.O_CREAT)
        record = _RECORD.pack(number, len(data), tag) + data
        try:
            _write_at(handle, record, self._records_bytes)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self._records_bytes)
            raise
        self._records_bytes += len(record)
        self._records[number] = (tag, data)


def complete_naming(folder: Path, meta: Meta) -> Meta | None:
    """Complete what a crash left of a verified file's naming.

    Args:
        folder: the stream's own.
        meta: its record.

    Returns:
        The record as it is now: unchanged if the file has not got its name. None if it got it and its user took it
        away.

    Raises:
        OSError: the receive folder cannot be read.
    """
    if meta.role != "receive" or meta.done or not meta.final:
        return meta
    part, final = Path(meta.path), Path(meta.final)
    if not has_name(part, final, meta.size_bytes):
        return meta if os.path.lexists(part) else None
    named = replace(meta, done=True, path=meta.final)
    with contextlib.suppress(OSError):  # such as a full disk: the next start comes here again
        part.unlink(missing_ok=True)
        named.save(folder)
    return named


def store_error(error: OSError, doing: str) -> StoreError:
    """Say what the medium said, as the core and the sender shall hear it."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return StoreError("no-space", f"no space left {doing}: {reason}")
    return StoreError("io", f"{doing} failed: {reason}")


def _tags_in(path: Path) -> int:
    """Return how many tags a file has room for."""
    try:
        return path.stat().st_size // TAG_BYTES
    except FileNotFoundError:
        return 0


def _write_at(handle: int, data: bytes, offset: int) -> None:
    written = os.pwrite(handle, data, offset)
    while written < len(data):
        more = os.pwrite(handle, data[written:], offset + written)
        if more == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more


def _load_records(path: Path) -> tuple[dict[int, tuple[bytes, bytes]], int]:
    """Read the records file and cut off a torn end; return the records and the file's length."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    records = {}
    good = 0
    while good + _RECORD.size <= len(data):
        number, length, tag = _RECORD.unpack_from(data, good)
        end = good + _RECORD.size + length
        if end > len(data):
            break
        records[number] = (tag, data[good + _RECORD.size : end])
        good = end
    if good < len(data):
        os.truncate(path, good)
    return records, good


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
