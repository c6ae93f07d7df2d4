"""The tags of one stream's pieces: 16 bytes for each in a file, zero where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.services.disk_writer import write_at
from agent.services.handles import Handles
from agent.services.piece_run import PieceRun

TAG_BYTES: Final = 16
_MISSING: Final = bytes(TAG_BYTES)
_READ_BYTES: Final = 1024 * 1024


class TagFile:
    """The file.

    Args:
        path: where it is, or shall be.
        handles: the open files of all streams.

    Attributes:
        stop: one past the highest number that may have a tag here.
    """

    def __init__(self, path: Path, handles: Handles) -> None:
        self.path = path
        self._handles = handles
        try:
            self.stop = path.stat().st_size // TAG_BYTES + 1
        except FileNotFoundError:
            self.stop = 1

    def read(self, start: int, count: int) -> list[bytes | None]:
        """Return consecutive tags, None for each that is missing or cannot be read."""
        have = max(0, min(count, self.stop - start))
        tags: list[bytes | None] = [None] * count
        if not have:
            return tags
        try:
            handle = self._handles.get(self.path, os.O_RDWR | os.O_CREAT)
            data = os.pread(handle, have * TAG_BYTES, (start - 1) * TAG_BYTES)
        except OSError:
            return tags
        for index in range(len(data) // TAG_BYTES):
            tag = data[index * TAG_BYTES : (index + 1) * TAG_BYTES]
            if tag != _MISSING:
                tags[index] = tag
        return tags

    def write(self, runs: Iterable[PieceRun]) -> None:
        """Write the tags of runs.

        Raises:
            OSError: the medium fails.
        """
        write_tags(self._handles.get(self.path, os.O_RDWR | os.O_CREAT), runs)

    def numbers(self) -> Iterable[int]:
        """Yield the numbers that have a tag, ascending.

        Raises:
            OSError: the medium fails.
        """
        try:
            with self.path.open("rb") as file:
                number = 0
                while block := file.read(_READ_BYTES):
                    for at in range(0, len(block) - TAG_BYTES + 1, TAG_BYTES):
                        number += 1
                        if block[at : at + TAG_BYTES] != _MISSING:
                            yield number
        except FileNotFoundError:
            return

    def sync(self) -> None:
        """Have the disk take what was written.

        Raises:
            OSError: the medium fails.
        """
        os.fsync(self._handles.get(self.path, os.O_RDWR | os.O_CREAT))

    def forget(self) -> None:
        """Close it: the stream is dropped."""
        self.stop = 1
        self._handles.forget(self.path)


def write_tags(handle: int, runs: Iterable[PieceRun]) -> None:
    """Write the tags of runs to an open file.

    Raises:
        OSError: the medium fails.
    """
    for run in runs:
        write_at(handle, [b"".join(run.tags)], (run.start - 1) * TAG_BYTES)
