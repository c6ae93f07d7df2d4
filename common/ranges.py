"""Ranges of numbers in a frame's body: half-open and non-empty, each as start (8 bytes) and length (4)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from common.errors import DecodeError
from common.limits import MAX_RANGES

Ranges = tuple[tuple[int, int], ...]

NO_LIMIT: Final = 1 << 56
"""One past the highest chunk number."""
_RANGE: Final = struct.Struct("!QI")
_MAX_LENGTH: Final = 0xFFFFFFFF


def pack_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Return a count and the ranges; of one that is too long for its field its first part."""
    parts = [_RANGE.pack(start, min(stop - start, _MAX_LENGTH)) for start, stop in ranges]
    return bytes([len(parts)]) + b"".join(parts)


def unpack_ranges(body: bytes) -> Ranges:
    """Read what ``pack_ranges`` returned.

    Raises:
        DecodeError: it is cut off, too long, or a range is empty or past 2^56.
    """
    if not body or body[0] > MAX_RANGES or len(body) != 1 + body[0] * _RANGE.size:
        raise DecodeError(f"range list of the wrong length, or of more than {MAX_RANGES}")
    ranges = []
    for start, length in _RANGE.iter_unpack(body[1:]):
        if not length or start + length > NO_LIMIT:
            raise DecodeError("empty range, or past 2^56")
        ranges.append((start, start + length))
    return tuple(ranges)
