"""The store in a SQLite file: one thread of its own, so that the event loop never waits for the disk.

Every write is on the disk before its call returns (WAL, synchronous=FULL). Only one server may use a file: an
exclusive lock, which the kernel releases when its process dies, keeps a second one out.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from common.errors import ConfigError, TransportError
from server.services.store.seam import Entry, RevisionConflict
from server.services.store.watchers import Watchers

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (1, 0);
"""
_NEXT_PREFIX = "\U0010ffff"

_T = TypeVar("_T")


class SqliteStore:
    """Everything in one SQLite file."""

    def __init__(self, connection: sqlite3.Connection, lock: int, *, wall: Callable[[], float]) -> None:
        """Use a connection; see `open`."""
        self._connection = connection
        self._lock = lock
        self._wall = wall
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._watchers = Watchers()

    @classmethod
    def open(cls, path: Path, *, wall: Callable[[], float]) -> Self:
        """Open a file, or make it (mode 0600).

        Args:
            path: where.
            wall: gives unix seconds, for leases.

        Raises:
            ConfigError: it cannot be opened, is no such file, or another server uses it.
        """
        lock = -1
        try:
            lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
        except BlockingIOError as error:
            os.close(lock)
            raise ConfigError(f"another server uses {path}") from error
        except (OSError, sqlite3.Error) as error:
            if lock >= 0:
                os.close(lock)
            raise ConfigError(f"cannot use {path}: {error}") from error
        return cls(connection, lock, wall=wall)

    async def get(self, key: str) -> Entry | None:
        """Read a key; None where there is none."""
        return await self._in_thread(lambda: self._get(key))

    async def keys(self, prefix: str) -> tuple[str, ...]:
        """List the keys that start with a prefix, sorted."""
        query = "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key"

        def read() -> tuple[str, ...]:
            return tuple(row[0] for row in self._connection.execute(query, (prefix, prefix + _NEXT_PREFIX)))

        return await self._in_thread(read)

    async def put_if_revision(self, key: str, value: bytes, revision: int) -> int:
        """Write a key if it is still at a revision; 0 for a key that does not exist.

        Raises:
            RevisionConflict: it is at another.
        """

        def write() -> int:
            self._check(key, revision)
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("UPDATE counter SET revision = revision + 1")
                (new,) = self._connection.execute("SELECT revision FROM counter").fetchone()
                self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, value, new))
            return int(new)

        new = await self._in_thread(write)
        self._watchers.changed(key)
        return new

    async def delete(self, key: str, revision: int) -> None:
        """Remove a key if it is still at a revision.

        Raises:
            RevisionConflict: it is at another.
        """

        def remove() -> None:
            self._check(key, revision)
            self._connection.execute("DELETE FROM entries WHERE key = ?", (key,))

        await self._in_thread(remove)
        self._watchers.changed(key)

    def watch(self, prefix: str) -> AsyncIterator[tuple[str, ...]]:
        """Tell which keys under a prefix to read: first all of them, then those that change."""
        return self._watchers.follow(prefix, self.keys)

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take, renew or (0 seconds) give back a lease; tell whether the holder has it now."""
        now = self._wall()

        def take() -> bool:
            row = self._connection.execute("SELECT holder, until FROM leases WHERE key = ?", (key,)).fetchone()
            if row is not None and row[0] != holder and row[1] > now:
                return False
            self._connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (key, holder, now + seconds))
            return seconds > 0

        return await self._in_thread(take)

    async def close(self) -> None:
        """Finish what is under way, close the file and release its lock."""
        await self._in_thread(self._connection.close)
        self._thread.shutdown()
        os.close(self._lock)

    def _get(self, key: str) -> Entry | None:
        row = self._connection.execute("SELECT value, revision FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else Entry(bytes(row[0]), int(row[1]))

    def _check(self, key: str, revision: int) -> None:
        """Compare revisions; nobody else writes in between, for all writes are this one thread's."""
        entry = self._get(key)
        found = 0 if entry is None else entry.revision
        if found != revision:
            raise RevisionConflict(f"{key} is at revision {found}, not {revision}")

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise TransportError(f"the store failed: {error}") from error
