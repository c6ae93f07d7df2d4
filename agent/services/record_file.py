"""One stream's chunks that are no pieces of its file, the proofs of its blocks, one after the other in a file."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Final

from agent.services.disk_writer import write_at
from agent.services.handles import Handles

_RECORD: Final = struct.Struct("<QI16s")
"""A record's number, length and tag; its bytes follow."""


class RecordFile:
    """The file, and what is in it. An end that a crash tore is cut off.

    Args:
        path: where it is, or shall be.
        handles: the open files of all streams.

    Attributes:
        records: tag and bytes by number.
    """

    def __init__(self, path: Path, handles: Handles) -> None:
        self._path = path
        self._handles = handles
        self.records, self._size_bytes = _load(path)

    def write(self, number: int, data: bytes, tag: bytes) -> None:
        """Keep a record.

        Raises:
            OSError: the medium fails; nothing of it is kept.
        """
        handle = self._handles.get(self._path, os.O_RDWR | os.O_CREAT)
        record = _RECORD.pack(number, len(data), tag) + data
        try:
            write_at(handle, [record], self._size_bytes)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self._size_bytes)
            raise
        self._size_bytes += len(record)
        self.records[number] = (tag, data)

    def sync(self) -> None:
        """Have the disk take what was written.

        Raises:
            OSError: the medium fails.
        """
        os.fsync(self._handles.get(self._path, os.O_RDWR | os.O_CREAT))

    def forget(self) -> None:
        """Close it: the stream is dropped."""
        self._handles.forget(self._path)
        self.records.clear()


def _load(path: Path) -> tuple[dict[int, tuple[bytes, bytes]], int]:
    """Return the records and the length of what is whole."""
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
