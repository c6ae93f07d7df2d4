"""Chunks that are larger than one hop's path takes: cut into fragments by the hop, joined before anything opens them.

Theory of operation. A stream's chunks have one size for good, and a path may come to take less. Its hop then sends the
sealed bytes in 2 to 8 fragments, each a datagram with a hop number of its own; the numbers follow each other, so those
of one chunk are told from all others by the number less the index. Nothing authenticates a fragment. What is joined is
an ordinary chunk's datagram, and is opened as one; only then are the hop numbers of all its fragments acknowledged. A
chunk of which a fragment was lost is sent again whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from common.datagrams import (
    CHUNK_HEADER,
    CHUNK_OVERHEAD_BYTES,
    CHUNK_TYPES,
    FRAGMENT_HEADER,
    FRAGMENT_HEADERS_BYTES,
    HOP_HEADER,
    HOP_HEADER_BYTES,
)
from common.errors import DecodeError
from common.limits import MAX_DATAGRAM_BYTES, MAX_FRAGMENTS

JOIN_WITHIN_S: Final = 1.0
"""Seconds for which the fragments of a chunk are kept that is not whole."""
MAX_JOINING: Final = 256
"""Chunks of one hop that may be incomplete at a time; the oldest gives way."""
MAX_JOINING_BYTES: Final = 1024 * 1024
"""Bytes of their fragments."""
MAX_JOINED: Final = 1_024
"""Joined chunks of one hop that may wait to be acknowledged: for their stream's opening, for instance."""
_LOW: Final = 0xFFFFFFFF


def split(chunk: bytes, kind: int, mtu_bytes: int) -> list[bytes]:
    """Return a sealed chunk in fragments, each without its hop header; all but the last are of one size.

    Args:
        chunk: chunk header, ciphertext and tag.
        kind: as what the chunk goes: DATA, REPEAT or PULLED.
        mtu_bytes: what a datagram may take.
    """
    count = -(-len(chunk) // (mtu_bytes - FRAGMENT_HEADERS_BYTES))
    size = -(-len(chunk) // count)
    (short, _) = CHUNK_HEADER.unpack_from(chunk)
    return [
        FRAGMENT_HEADER.pack(short, kind, index << 4 | count) + chunk[index * size : (index + 1) * size]
        for index in range(count)
    ]


@dataclass(slots=True)
class _Joining:
    """A chunk that is not whole yet."""

    claims: tuple[int, ...]
    since: float
    size_bytes: int = 0
    parts: dict[int, bytes] = field(default_factory=dict)


class Joiner:
    """Joins what one peer's hop sends in fragments, within bounds."""

    def __init__(self) -> None:
        self._joining: dict[int, _Joining] = {}
        self._size_bytes = 0
        # By hop number: how many fragments a chunk came in, and which chunk. Anybody can send fragments, so that
        # another chunk of the same number, an authentic one, must not be taken for it.
        self._joined: dict[int, tuple[int, int]] = {}

    def add(self, datagram: bytes, now: float) -> bytes | None:
        """Take a fragment.

        Args:
            datagram: the whole of it.
            now: monotonic seconds.

        Returns:
            The chunk's datagram if this fragment makes it whole; its hop number is that of the first fragment.

        Raises:
            DecodeError: it is no fragment, or contradicts those before it; it is not kept.
        """
        if len(datagram) <= FRAGMENT_HEADERS_BYTES:
            raise DecodeError("an empty fragment")
        first, session, number, epoch, age = HOP_HEADER.unpack_from(datagram)
        short, kind, place = FRAGMENT_HEADER.unpack_from(datagram, HOP_HEADER_BYTES)
        index, count = place >> 4, place & 15
        if kind not in CHUNK_TYPES or not 2 <= count <= MAX_FRAGMENTS or index >= count:
            raise DecodeError(f"fragment {index} of {count} of type {kind}")
        self._forget_old(now)
        number = (number - index) & _LOW
        claims = (short, kind, count, first & 15, session, epoch)
        joining = self._joining.get(number)
        if joining is None:
            joining = self._joining[number] = _Joining(claims, now)
        elif joining.claims != claims:
            raise DecodeError("a fragment of another chunk than those before it")
        if index in joining.parts:
            return None
        joining.parts[index] = datagram[FRAGMENT_HEADERS_BYTES:]
        joining.size_bytes += len(datagram)
        self._size_bytes += len(datagram)
        if len(joining.parts) < count:
            self._keep_bounds()
            return None
        self._drop(number)
        header = HOP_HEADER.pack(kind << 4 | first & 15, session, number, epoch, age)
        joined = header + b"".join(joining.parts[each] for each in range(count))
        if not CHUNK_OVERHEAD_BYTES <= len(joined) <= MAX_DATAGRAM_BYTES:
            limits = f"{CHUNK_OVERHEAD_BYTES} to {MAX_DATAGRAM_BYTES}"
            raise DecodeError(f"fragments of {len(joined)} bytes; a chunk has {limits}")
        if len(self._joined) >= MAX_JOINED:
            del self._joined[next(iter(self._joined))]
        self._joined[number] = count, hash(joined)
        return joined

    def take_count(self, number: int, datagram: bytes) -> int:
        """Return how many hop numbers, from this one (low 32 bits) on, a chunk came under: 1 if it came whole."""
        count, joined = self._joined.pop(number, (1, 0))
        return count if joined == hash(datagram) else 1

    def _forget_old(self, now: float) -> None:
        while self._joining:
            number, oldest = next(iter(self._joining.items()))
            if now - oldest.since <= JOIN_WITHIN_S:
                return
            self._drop(number)

    def _keep_bounds(self) -> None:
        while len(self._joining) > MAX_JOINING or self._size_bytes > MAX_JOINING_BYTES:
            self._drop(next(iter(self._joining)))

    def _drop(self, number: int) -> None:
        self._size_bytes -= self._joining.pop(number).size_bytes
