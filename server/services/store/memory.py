"""A store that forgets: for tests, and for groups that need not outlive their server."""

from collections.abc import AsyncIterator, Callable

from server.services.store.seam import Entry, RevisionConflict
from server.services.store.watchers import Watchers


class MemoryStore:
    """Everything in dictionaries."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        """Start empty.

        Args:
            monotonic: gives monotonic seconds, for leases.
        """
        self._monotonic = monotonic
        self._entries: dict[str, Entry] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._watchers = Watchers()
        # One count for all keys, as SQLite's: a key that is removed and made again does not reuse a revision.
        self._revision = 0

    async def get(self, key: str) -> Entry | None:
        """Read a key; None where there is none."""
        return self._entries.get(key)

    async def keys(self, prefix: str) -> tuple[str, ...]:
        """List the keys that start with a prefix, sorted."""
        return tuple(sorted(key for key in self._entries if key.startswith(prefix)))

    async def put_if_revision(self, key: str, value: bytes, revision: int) -> int:
        """Write a key if it is still at a revision; 0 for a key that does not exist.

        Raises:
            RevisionConflict: it is at another.
        """
        self._check(key, revision)
        self._revision += 1
        self._entries[key] = Entry(value, self._revision)
        self._watchers.changed(key)
        return self._revision

    async def delete(self, key: str, revision: int) -> None:
        """Remove a key if it is still at a revision.

        Raises:
            RevisionConflict: it is at another.
        """
        self._check(key, revision)
        self._entries.pop(key, None)
        self._watchers.changed(key)

    def watch(self, prefix: str) -> AsyncIterator[tuple[str, ...]]:
        """Tell which keys under a prefix to read: first all of them, then those that change."""
        return self._watchers.follow(prefix, self.keys)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take, renew or (0 seconds) give back a lease; tell whether the holder has it now."""
        now = self._monotonic()
        owner, until = self._leases.get(key, (holder, now))
        if owner != holder and until > now:
            return False
        self._leases[key] = (holder, now + seconds)
        return seconds > 0

    async def close(self) -> None:
        """Do nothing: what is in memory needs no farewell."""

    def _check(self, key: str, revision: int) -> None:
        entry = self._entries.get(key)
        found = 0 if entry is None else entry.revision
        if found != revision:
            raise RevisionConflict(f"{key} is at revision {found}, not {revision}")
