"""How large a datagram may be on the way to one peer: found by padded probes, watched while data flows.

Theory of operation. A search sends one probe of each size that is in question, the largest first, so that on a path
that keeps the order the first answer is the result. What got no answer is tried again; the search ends with an answer
to the largest size, or after `TRIES`. The first answer already counts, a later and larger one raises it. Searches for
more come again with growing pauses.

When so many large datagrams in a row are lost that chance is unlikely, a search runs the other way: the size in use,
all below it, and the least. An answer to the size in use says that nothing changed; else the largest size that was
answered holds from now on. No answer at all says that the link is dead, which is not this module's business.

Probes are control datagrams that need no acknowledgement: their loss is no loss of data, and slows nothing down.

Source:
    RFC 8899 (the search, the black hole, the raise timer).
"""

from __future__ import annotations

from typing import Final

from common.errors import DecodeError
from common.limits import MIN_DATAGRAM_BYTES

IP_MTUS: Final = (1_280, 1_400, 1_420, 1_450, 1_460, 1_492, 1_500, 8_896, 9_000)
"""Bytes of IP packets that paths are known to take: the least of IPv6, IPsec, WireGuard, VXLAN, some clouds' networks,
PPPoE, Ethernet, and jumbo frames of two kinds."""
IPV4_HEADERS_BYTES: Final = 28
"""IPv4 and UDP."""
IPV6_HEADERS_BYTES: Final = 48
"""IPv6 and UDP."""
TRIES: Final = 3
"""Probes of one size in one search (RFC 8899 section 5.1.2, MAX_PROBES)."""
RAISE_FIRST_S: Final = 30.0
"""Seconds until a path is asked for more again; the pause doubles up to RAISE_MOST_S."""
RAISE_MOST_S: Final = 600.0
"""Seconds between two such searches at most (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER)."""
SUSPECT_LOST: Final = 8
"""Large datagrams lost in a row, none of them acknowledged, that make the size itself suspect."""


class PathMtu:
    """The search on one path; a new session begins a new one.

    Args:
        limit_bytes: the largest datagram that both ends take.
        ipv6: whether the path is IPv6.
        now: monotonic seconds.

    Attributes:
        mtu_bytes: bytes of UDP payload that the path takes; the least that every path does until more is known.
        measured: whether that has been looked at: an answer came, or the first search ended without one.
    """

    def __init__(self, limit_bytes: int, *, ipv6: bool, now: float) -> None:
        headers = IPV6_HEADERS_BYTES if ipv6 else IPV4_HEADERS_BYTES
        known = [size - headers for size in IP_MTUS if MIN_DATAGRAM_BYTES < size - headers < limit_bytes]
        self._rungs = (limit_bytes, *reversed(known)) if limit_bytes > MIN_DATAGRAM_BYTES else ()
        self.mtu_bytes = MIN_DATAGRAM_BYTES
        self.measured = not self._rungs
        self._sizes = self._rungs
        self._probed: dict[int, None] = {}
        self._best = 0
        self._tries = 0
        self._shrinking = False
        self._pause = RAISE_FIRST_S
        self._due: float | None = now if self._rungs else None
        self._raise_at = now
        self._lost = 0

    def poll_probes(self, now: float, timeout_s: float) -> tuple[int, ...]:
        """Return the sizes of the probes that are due.

        Args:
            now: monotonic seconds.
            timeout_s: after how long a probe counts as lost, seconds.
        """
        if self._due is None or now < self._due:
            return ()
        if self._tries == TRIES:
            self._end(now)
            return ()
        self._tries += 1
        self._due = now + timeout_s
        sizes = tuple(size for size in self._sizes if size > self._best)
        self._probed.update(dict.fromkeys(sizes))
        return sizes

    def poll_timeout(self) -> float | None:
        """Return when ``poll_probes`` has something to do; None: never."""
        return self._due

    def on_answer(self, size_bytes: int, now: float) -> None:
        """Take the peer's word that a probe of that size arrived.

        Raises:
            DecodeError: no probe of that size was sent.
        """
        if size_bytes not in self._probed:
            raise DecodeError(f"no probe of {size_bytes} bytes was sent")
        self.measured = True
        self._best = max(self._best, size_bytes)
        if not self._shrinking:
            self.mtu_bytes = max(self.mtu_bytes, size_bytes)
        if self._sizes and self._best >= self._sizes[0]:
            self._end(now)

    def is_large(self, size_bytes: int) -> bool:
        """Whether a datagram's fate says something about the size in use; those of an earlier, larger size do not."""
        return MIN_DATAGRAM_BYTES < size_bytes <= self.mtu_bytes

    def on_feedback(self, arrived: int, lost: int, now: float) -> None:
        """Note what became of large datagrams.

        Args:
            arrived: how many the peer has acknowledged now.
            lost: how many count as lost now.
            now: monotonic seconds.
        """
        self._lost = 0 if arrived else self._lost + lost
        if self._lost >= SUSPECT_LOST and not self._shrinking and self.mtu_bytes > MIN_DATAGRAM_BYTES:
            self._shrinking = True
            self._raise_at = now if self._due is None or self._tries else self._due
            below = (size for size in self._rungs if size <= self.mtu_bytes)
            self._begin((*below, MIN_DATAGRAM_BYTES), now)

    def _begin(self, sizes: tuple[int, ...], at: float) -> None:
        self._sizes = sizes
        self._best = 0
        self._tries = 0
        self._due = at

    def _end(self, now: float) -> None:
        """Take what the search found, and set the next one for more."""
        self.measured = True
        at = now + self._pause
        if self._shrinking:
            self._shrinking = False
            self._lost = 0
            shrunk = 0 < self._best < self.mtu_bytes
            if shrunk:
                self.mtu_bytes = self._best
                self._pause = RAISE_FIRST_S
            at = now + self._pause if shrunk else max(now, self._raise_at)
        else:
            self._pause = min(2 * self._pause, RAISE_MOST_S)
        above = tuple(size for size in self._rungs if size > self.mtu_bytes)
        self._begin(above, at)
        if not above:
            self._due = None
