"""When a busy socket is looked at: on every arrival, or at intervals.

Theory of operation. A wake of the event loop costs as much as a dozen datagrams do. Packets of a file that arrive one
by one, a tenth of a millisecond apart, would cost a wake each; so once large datagrams wake the loop often, their
socket is looked at every `INTERVAL_S` instead, and what has gathered meanwhile is taken together. A socket that is
quiet again wakes the loop as before; so does one that brings small datagrams only: a short message is not held up
unless large datagrams come by the same socket, five hundred a second or more.

Source: interrupt moderation and polling of network cards (Linux NAPI).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

LARGE_BYTES: Final = 1_000
"""Bytes from which a datagram is large."""
RAPID_S: Final = 0.002
"""Seconds between two wakes with large datagrams below which the second one is rapid."""
RAPID_WAKES: Final = 16
"""Rapid wakes in a row from which the socket is looked at by intervals."""
INTERVAL_S: Final = 0.002
"""Seconds between two looks."""
QUIET_LOOKS: Final = 3
"""Looks in a row without a large datagram after which the socket wakes the loop again."""
FULL_PART: Final = 2
"""Part of what the kernel's buffer holds, one in so many, that must not gather between two looks."""


class Look(Enum):
    """When to look at a socket next."""

    ON_ARRIVAL = "on arrival"
    AT_ONCE = "at once"
    LATER = "later"


class Moderation:
    """Decides that for one socket.

    Args:
        buffer_bytes: what the kernel's buffer holds.
    """

    __slots__ = ("_at", "_most_bytes", "_quiet", "_rapid")

    def __init__(self, buffer_bytes: int) -> None:
        self._most_bytes = buffer_bytes // FULL_PART
        self._at = 0.0
        self._rapid = 0
        self._quiet = 0

    def on_wake(self, now: float, largest_bytes: int) -> Look:
        """Take note that an arrival woke the loop.

        Args:
            now: monotonic seconds.
            largest_bytes: of the datagrams that it brought.
        """
        if largest_bytes >= LARGE_BYTES:
            self._rapid = self._rapid + 1 if now - self._at < RAPID_S else 0
            self._at = now
        if self._rapid < RAPID_WAKES:
            return Look.ON_ARRIVAL
        self._rapid = self._quiet = 0
        return Look.LATER

    def on_look(self, size_bytes: int, largest_bytes: int, *, more: bool) -> Look:
        """Take note of what a look at the interval brought.

        Args:
            size_bytes: of all datagrams.
            largest_bytes: of one of them.
            more: whether there may be more at once.
        """
        if more or size_bytes > self._most_bytes:
            return Look.AT_ONCE
        self._quiet = self._quiet + 1 if largest_bytes < LARGE_BYTES else 0
        return Look.LATER if self._quiet < QUIET_LOOKS else Look.ON_ARRIVAL
