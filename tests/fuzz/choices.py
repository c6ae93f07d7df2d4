"""Bytes as decisions: what a fuzzer changes in its input changes what a target does, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

EDGES: Final = (0, 1, 2, 255, 256, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**56, 2**63, 2**64 - 1)
"""Numbers at which fields end."""
HOSTILE: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    2**32,
    2**53,
    2**64,
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "A",
    "\0",
    "\ud800",
    "../../etc/passwd",
    "A" * 65,
    "é" * 300,
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    [],
    {},
    [[]],
    {"type": "graph"},
    [None] * 20_000,
)
"""Values that a reader of JSON did not expect."""


class Choices:
    """Reads decisions from bytes; when they run out every decision is the first.

    Args:
        data: the bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def raw(self, count: int) -> bytes:
        """Take so many bytes, or what is left."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.raw(len(self._data))

    def below(self, count: int) -> int:
        """Take a number from 0 to ``count`` - 1."""
        return int.from_bytes(self.raw(1 if count <= 256 else 4), "big") % count

    def pick(self, options: Sequence[_T]) -> _T:
        """Take one of some things."""
        return options[self.below(len(options))]

    def number(self, most: int, *near: int) -> int:
        """Take a number from 0 to ``most``: near one that means something, at an edge, or any."""
        way = self.below(4)
        if way == 0 and near:
            found = self.pick(near) + self.below(5) - 2
        elif way == 1:
            found = self.pick(EDGES)
        elif way == 2:
            found = self.below(64)
        else:
            found = int.from_bytes(self.raw(8), "big")
        return max(0, min(found, most))

    def edited(self, example: Any) -> Any:
        """Return a JSON value with up to four places changed."""
        for _ in range(self.below(5)):
            example = self._edit(example)
        return example

    def _edit(self, value: Any) -> Any:
        if isinstance(value, dict) and value and self.below(8):
            key = self.pick(list(value))
            way = self.below(8)
            if way == 0:
                return {other: kept for other, kept in value.items() if other != key}
            if way == 1:
                return {**value, self.pick(("", "\0", "-1", str(2**40), "Z")): value[key]}
            return {**value, key: self._edit(value[key])}
        if isinstance(value, list) and value and self.below(8):
            at = self.below(len(value))
            way = self.below(8)
            if way == 0:
                return value[:at] + value[at + 1 :]
            if way == 1:
                return value * 2
            return [*value[:at], self._edit(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and value and self.below(2):
            at = self.below(len(value))
            return value[:at] + self.raw(self.below(4)).decode(errors="replace") + value[at + self.below(3) :]
        if type(value) is int and self.below(2):
            return value + self.pick((1, -1, 2**16, -(2**16)))
        return self.pick(HOSTILE)
