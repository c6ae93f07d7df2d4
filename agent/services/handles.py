"""Open files, so that a chunk costs no opening."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

_MOST_OPEN: Final = 256


class Handles:
    """Open files of all streams, the least used closed first."""

    def __init__(self, most: int = _MOST_OPEN) -> None:
        self._most = most
        self._open: OrderedDict[tuple[Path, int], int] = OrderedDict()

    def get(self, path: Path, flags: int) -> int:
        """Return a descriptor for a regular file, opening it if it is not.

        Raises:
            OSError: it cannot be opened.
        """
        key = (path, flags)
        handle = self._open.get(key)
        if handle is None:
            handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._open[key] = handle
            if len(self._open) > self._most:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(key)
        return handle

    def forget(self, path: Path) -> None:
        """Close what is open of one file."""
        for key in [key for key in self._open if key[0] == path]:
            os.close(self._open.pop(key))

    def close(self) -> None:
        """Close everything."""
        while self._open:
            os.close(self._open.popitem()[1])
