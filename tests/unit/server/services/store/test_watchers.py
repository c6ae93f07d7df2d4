import asyncio
import contextlib

from server.services.store.watchers import Watchers


async def no_keys(prefix: str) -> tuple[str, ...]:
    return ()


async def test_changes_that_nobody_took_are_merged() -> None:
    watchers = Watchers()
    async with contextlib.aclosing(watchers.follow("g/", no_keys)) as watch:  # type: ignore[type-var]
        assert await anext(watch) == ()
        for _ in range(1_000):
            watchers.changed("g/a")
            watchers.changed("g/b")
            watchers.changed("other")
        assert await anext(watch) == ("g/a", "g/b")
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not waiting.done()
        watchers.changed("g/c")
        assert await waiting == ("g/c",)
    assert len(watchers) == 0


async def test_a_change_during_the_first_read_is_told_too() -> None:
    watchers = Watchers()

    async def keys(prefix: str) -> tuple[str, ...]:
        watchers.changed("g/late")
        return ("g/a",)

    async with contextlib.aclosing(watchers.follow("g/", keys)) as watch:  # type: ignore[type-var]
        assert await anext(watch) == ("g/a",)
        assert await anext(watch) == ("g/late",)
