"""The watchers of a store that lives in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable


class Watchers:
    """Who watches which prefix, and which keys changed since it last looked."""

    def __init__(self) -> None:
        """Start with none."""
        self._watchers: list[tuple[str, dict[str, None], asyncio.Event]] = []

    def __len__(self) -> int:
        """Count the open watches."""
        return len(self._watchers)

    def changed(self, key: str) -> None:
        """Tell everybody who watches a key; a change not yet taken is merged with this one."""
        for prefix, pending, wake in self._watchers:
            if key.startswith(prefix):
                pending[key] = None
                wake.set()

    async def follow(
        self, prefix: str, keys: Callable[[str], Awaitable[tuple[str, ...]]]
    ) -> AsyncIterator[tuple[str, ...]]:
        """Give first all keys under a prefix, then those that change.

        Args:
            prefix: what the keys start with.
            keys: lists the keys that exist now.
        """
        pending: dict[str, None] = {}
        wake = asyncio.Event()
        entry = (prefix, pending, wake)
        # Registered before the first read: a change in between is told twice rather than never.
        self._watchers.append(entry)
        try:
            yield await keys(prefix)
            while True:
                await wake.wait()
                wake.clear()
                changed = tuple(pending)
                pending.clear()
                yield changed
        finally:
            self._watchers.remove(entry)
