"""The seam: what every store can do.

One server uses a SQLite file; replicas will share an engine behind the same calls.

Every watch is "read the current state, then follow; read again on every reconnect": a watch tells which keys changed,
and its first answer names all of them. Changes that nobody has taken yet are merged, so a slow watcher costs no
memory.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from common.errors import ArborcastError


class RevisionConflict(ArborcastError):
    """Somebody else wrote the key since it was read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value; `revision` grows with each write of its key, and is never used twice for one key."""

    value: bytes
    revision: int


class KeyValueStore(Protocol):
    """What a store can do. Every call raises TransportError when the engine fails."""

    async def get(self, key: str) -> Entry | None:
        """Read a key; None where there is none."""
        ...

    async def keys(self, prefix: str) -> tuple[str, ...]:
        """List the keys that start with a prefix, sorted."""
        ...

    async def put_if_revision(self, key: str, value: bytes, revision: int) -> int:
        """Write a key if nobody has since it was read.

        Args:
            key: the key.
            value: what it shall hold.
            revision: the revision that was read; 0 for a key that did not exist.

        Returns:
            The new revision.

        Raises:
            RevisionConflict: the key is at another revision; nothing was written.
        """
        ...

    async def delete(self, key: str, revision: int) -> None:
        """Remove a key if nobody has written it since it was read.

        Raises:
            RevisionConflict: the key is at another revision; nothing was removed.
        """
        ...

    def watch(self, prefix: str) -> AsyncIterator[tuple[str, ...]]:
        """Tell which keys under a prefix to read: first all of them, then those that change, until closed."""
        ...

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; tell whether the holder has it now.

        Args:
            key: what is leased.
            holder: who wants it.
            seconds: for how long, from now; 0 gives it back.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the engine."""
        ...
