"""The moment at which a received file gets its name.

Theory of operation. A name is taken by a link, which never replaces what is there, and then the part's own name goes.
The caller notes the name before it is taken: whoever finds the note after a crash can tell whether the file has it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.services.names import numbered

MAX_COPIES: Final = 10_000
"""Files of one name in the receive folder."""
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def take_name(part: Path, name: str, note: Callable[[Path], None]) -> Path:
    """Rename a received file to the first free form of its name, never over another file.

    Args:
        part: the file.
        name: its safe name.
        note: keeps the name that is tried next, for `has_name` after a crash.

    Raises:
        OSError: it cannot be named.
    """
    for copy in range(1, MAX_COPIES + 1):
        final = part.with_name(numbered(name, copy))
        if os.path.lexists(final):
            continue
        note(final)
        try:
            os.link(part, final, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _reserve(final):
                continue
            part.replace(final)
            return final
        part.unlink()
        return final
    raise FileExistsError(errno.EEXIST, f"{MAX_COPIES} files of that name are there already")


def has_name(part: Path, final: Path, size_bytes: int) -> bool:
    """Say whether a file got the name that was noted for it.

    Args:
        part: where it was received.
        final: the noted name.
        size_bytes: how long it is.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        found = final.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    try:
        return os.path.samestat(found, part.lstat())
    except FileNotFoundError:
        return found.st_size == size_bytes


def _reserve(final: Path) -> bool:
    """Take a name by an empty file, on a medium that knows no links; False if it is taken."""
    try:
        os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    except FileExistsError:
        return False
    return True
