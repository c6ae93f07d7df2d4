import contextlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import ConfigError, TransportError
from server.services.store.seam import Entry, RevisionConflict
from server.services.store.sqlite import SqliteStore


class Wall:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def store(tmp_path: Path, wall: Wall) -> AsyncIterator[SqliteStore]:
    found = SqliteStore.open(tmp_path / "state.sqlite3", wall=wall)
    yield found
    await found.close()


async def test_a_key_is_written_only_by_who_read_its_last_revision(store: SqliteStore) -> None:
    assert await store.get("a") is None
    first = await store.put_if_revision("a", b"1", 0)
    assert await store.get("a") == Entry(b"1", first)
    with pytest.raises(RevisionConflict, match=f"a is at revision {first}, not 0"):
        await store.put_if_revision("a", b"2", 0)
    second = await store.put_if_revision("a", b"2", first)
    assert second > first
    with pytest.raises(RevisionConflict):
        await store.delete("a", first)
    await store.delete("a", second)
    assert await store.get("a") is None
    assert await store.put_if_revision("a", b"3", 0) > second


async def test_keys_are_listed_by_prefix_and_sorted(store: SqliteStore) -> None:
    for key in ("g/b", "g/a", "h/a", "f/z"):
        await store.put_if_revision(key, b"", 0)
    assert await store.keys("g/") == ("g/a", "g/b")
    assert await store.keys("") == ("f/z", "g/a", "g/b", "h/a")


async def test_a_watch_names_what_exists_and_then_what_changes(store: SqliteStore) -> None:
    revision = await store.put_if_revision("g/a", b"", 0)
    async with contextlib.aclosing(store.watch("g/")) as watch:  # type: ignore[type-var]
        assert await anext(watch) == ("g/a",)
        await store.put_if_revision("g/b", b"", 0)
        await store.delete("g/a", revision)
        assert await anext(watch) == ("g/b", "g/a")


async def test_a_lease_is_one_holder_s_until_it_ends(store: SqliteStore, wall: Wall) -> None:
    assert await store.lease("writer", "one", 10.0)
    assert not await store.lease("writer", "two", 10.0)
    wall.now += 10.0
    assert await store.lease("writer", "two", 10.0)
    assert not await store.lease("writer", "two", 0.0)
    assert await store.lease("writer", "one", 10.0)


async def test_everything_is_there_after_the_file_was_closed(tmp_path: Path, wall: Wall) -> None:
    path = tmp_path / "state.sqlite3"
    store = SqliteStore.open(path, wall=wall)
    revision = await store.put_if_revision("a", b"\x00\xff", 0)
    await store.close()
    again = SqliteStore.open(path, wall=wall)
    assert await again.get("a") == Entry(b"\x00\xff", revision)
    await again.close()


def modes(directory: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_only_its_owner_can_read_the_file(tmp_path: Path, store: SqliteStore) -> None:
    await store.put_if_revision("a", b"1", 0)
    assert modes(tmp_path) == {0o600}


async def test_a_second_server_is_kept_out(tmp_path: Path, store: SqliteStore, wall: Wall) -> None:
    with pytest.raises(ConfigError, match="another server uses"):
        SqliteStore.open(tmp_path / "state.sqlite3", wall=wall)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, wall: Wall) -> None:
    path = tmp_path / "state.sqlite3"
    path.write_bytes(b"this is not a database, and long enough to be looked at" * 20)
    with pytest.raises(ConfigError, match="cannot use"):
        SqliteStore.open(path, wall=wall)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path, wall: Wall) -> None:
    with pytest.raises(ConfigError, match="cannot use"):
        SqliteStore.open(tmp_path / "missing" / "state.sqlite3", wall=wall)


async def test_a_failing_engine_is_a_transport_error(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("disk full")

        def close(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(store, "_connection", Broken())
        with pytest.raises(TransportError, match="disk full"):
            await store.get("a")
    assert await store.get("a") is None
