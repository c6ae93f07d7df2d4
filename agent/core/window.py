"""Repeat tests: has a chunk of this number been here before?

A stored stream (file, message) is judged by the numbers it holds, which have no lower edge: a repair may come
arbitrarily late. A channel may choose a stricter test for first crossings: `BitmapWindow` is bounded and is for live
streams; `LastNumber` is the method's literal rule, which takes every reordered first copy for a repeat. A test is made
in two steps, because a number must be checked before its chunk is opened and marked only after the chunk verified.
"""

from typing import Protocol

MIN_WINDOW = 4096


class RepeatTest(Protocol):
    """What decides whether a numbered chunk is repeated."""

    def seen(self, number: int) -> bool:
        """Tell whether the chunk of this number (at least 0) is repeated."""
        ...

    def mark(self, number: int) -> None:
        """Remember the number (at least 0) of a chunk that verified."""
        ...


class BitmapWindow:
    """The repeat test of a live stream: a bitmap below the highest number marked.

    A number that lies `size` or more below the highest counts as repeated. The bitmap is a ring of bytes with one byte
    more than the window needs, so that moving it forward clears whole bytes and never shifts.

    Args:
        size: How many numbers the window spans, at least 4,096.

    Raises:
        ValueError: The window is too small.

    Source:
        RFC 4303 section 3.4.3; RFC 6479 section 2.
    """

    __slots__ = ("_bytes", "_ring", "_size", "_top")

    def __init__(self, size: int = MIN_WINDOW) -> None:
        if size < MIN_WINDOW:
            raise ValueError(f"a window of {size} numbers is below the least, {MIN_WINDOW}")
        self._size = size
        self._bytes = (size + 7) // 8 + 1
        self._ring = bytearray(self._bytes)
        self._top = -1

    def seen(self, number: int) -> bool:
        """Tell whether the number was marked or lies below the window."""
        if number > self._top:
            return False
        if number + self._size <= self._top:
            return True
        return bool(self._ring[(number >> 3) % self._bytes] >> (number & 7) & 1)

    def mark(self, number: int) -> None:
        """Remember the number; nothing if it lies below the window."""
        ring = self._ring
        top = self._top
        if number > top:
            ahead = (number >> 3) - (top >> 3)
            if ahead >= self._bytes:
                ring[:] = bytes(self._bytes)
            else:
                for block in range((top >> 3) + 1, (number >> 3) + 1):
                    ring[block % self._bytes] = 0
            self._top = number
        elif number + self._size <= top:
            return
        ring[(number >> 3) % self._bytes] |= 1 << (number & 7)


class LastNumber:
    """The method's literal rule: a number that is not above the last one stored is repeated.

    Source:
        EP 4 258 623 A1 (M7).
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = -1

    def seen(self, number: int) -> bool:
        """Tell whether the number is at most the last one stored."""
        return number <= self.last

    def mark(self, number: int) -> None:
        """Store the number if it is the highest so far."""
        self.last = max(self.last, number)
