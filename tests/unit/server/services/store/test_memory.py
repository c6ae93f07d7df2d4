import contextlib

import pytest

from server.services.store.memory import MemoryStore
from server.services.store.seam import Entry, KeyValueStore, RevisionConflict


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_is_written_only_by_who_read_its_last_revision() -> None:
    store: KeyValueStore = MemoryStore(monotonic=Clock())
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
    await store.delete("a", 0)
    assert await store.put_if_revision("a", b"3", 0) > second
    await store.close()


async def test_keys_are_listed_by_prefix_and_sorted() -> None:
    store = MemoryStore(monotonic=Clock())
    for key in ("g/b", "g/a", "h/a"):
        await store.put_if_revision(key, b"", 0)
    assert await store.keys("g/") == ("g/a", "g/b")


async def test_a_watch_names_what_exists_and_then_what_changes() -> None:
    store = MemoryStore(monotonic=Clock())
    revision = await store.put_if_revision("g/a", b"", 0)
    async with contextlib.aclosing(store.watch("g/")) as watch:  # type: ignore[type-var]
        assert await anext(watch) == ("g/a",)
        await store.put_if_revision("h/a", b"", 0)
        await store.put_if_revision("g/b", b"", 0)
        await store.delete("g/a", revision)
        assert await anext(watch) == ("g/b", "g/a")


async def test_a_lease_is_one_holder_s_until_it_ends() -> None:
    clock = Clock()
    store = MemoryStore(monotonic=clock)
    assert await store.lease("writer", "one", 10.0)
    assert not await store.lease("writer", "two", 10.0)
    clock.now = 5.0
    assert await store.lease("writer", "one", 10.0)
    clock.now = 14.0
    assert not await store.lease("writer", "two", 10.0)
    clock.now = 15.0
    assert await store.lease("writer", "two", 10.0)
    assert not await store.lease("writer", "two", 0.0)
    assert await store.lease("writer", "one", 10.0)
