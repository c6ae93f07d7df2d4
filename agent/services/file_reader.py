"""A file that is being sent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.core.store import StoreError


class FileReader:
    """Reads pieces of one regular file and notices when it is no longer the same.

    Args:
        path: absolute.

    Raises:
        StoreError: there is no such file, it cannot be read, or it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1
        try:
            # Non-blocking, or opening a named pipe would wait for a writer.
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise StoreError("io", f"cannot read {path}: {error.strerror}") from error
        facts = os.fstat(self._handle)
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise StoreError("io", f"cannot send {path}: it is not a regular file")
        self.size_bytes = facts.st_size
        self.modified_ns = facts.st_mtime_ns
        self.inode = facts.st_ino

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``.

        Raises:
            StoreError: the file changed since it was opened, or the medium fails.
        """
        try:
            data = os.pread(self._handle, length, offset)
            facts = os.fstat(self._handle)
        except OSError as error:
            raise StoreError("io", f"cannot read {self.path}: {error.strerror}") from error
        now = (facts.st_size, facts.st_mtime_ns)
        if len(data) != length or now != (self.size_bytes, self.modified_ns):
            raise StoreError("changed", f"{self.path} was changed while it was being sent")
        return data

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        """Close a file that nobody sends any more."""
        self.close()
