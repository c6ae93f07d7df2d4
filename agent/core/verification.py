"""Chunks of an earlier run, checked against their tags before they count as held."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from agent.core.entry import Entry
from agent.core.rangeset import RangeSet
from agent.core.store import StoreError
from agent.core.stream import SEALED_AT_ONCE

VERIFY_AT_ONCE: Final = 1_024
"""Chunks that are checked in one call, so that a large file does not stall the rest."""


class Verification:
    """The streams whose stored chunks are still being checked.

    Args:
        drops: counts chunks that are not what they were, by reason.
    """

    def __init__(self, drops: Counter[str]) -> None:
        self._drops = drops
        self._waiting: deque[tuple[Entry, RangeSet]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, entry: Entry) -> bool:
        return any(waiting is entry for waiting, _ in self._waiting)

    def add(self, entry: Entry, ranges: RangeSet) -> None:
        """Queue a stream with the numbers that its store says it keeps."""
        self._waiting.append((entry, ranges))

    def run(self) -> list[Entry]:
        """Check some chunks; return the streams that are through."""
        done = []
        left = VERIFY_AT_ONCE
        while self._waiting and left > 0:
            entry, ranges = self._waiting[0]
            for start, stop in ranges.take(left):
                left -= stop - start
                self._verify(entry, start, stop)
            if not ranges:
                self._waiting.popleft()
                done.append(entry)
        return done

    def _verify(self, entry: Entry, start: int, stop: int) -> None:
        while start < stop:
            end = min(start + SEALED_AT_ONCE, stop)
            try:
                intact = entry.stream.verify_stored(start, end)
            except StoreError:
                # One that cannot be read does not condemn those round it.
                intact = self._verify_one_by_one(entry, start, end)
            start += intact
            if start < end:
                self._drops["resume-chunk-changed"] += 1
                start += 1

    def _verify_one_by_one(self, entry: Entry, start: int, stop: int) -> int:
        for number in range(start, stop):
            try:
                if not entry.stream.verify_stored(number, number + 1):
                    self._drops["resume-chunk-changed"] += 1
            except StoreError:
                self._drops["resume-chunk-unreadable"] += 1
        return stop - start
