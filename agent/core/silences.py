"""For how long a stream brought nothing new: what a user notices of a link that died."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

SILENCE_S: Final = 0.02
"""A pause between two arrivals that is worth a note: shorter ones are the pacing of a link from 1 Mbit/s on."""
SILENCES_KEPT: Final = 64
"""Of each stream; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When a stream brought something new.

    Attributes:
        last_at: when it did for the last time, monotonic seconds.
        silences: the pauses of at least `SILENCE_S` before that: when each began and ended.
    """

    last_at: float
    silences: tuple[tuple[float, float], ...]


class Silences:
    """The last pauses of one stream."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[tuple[float, float]] = deque(maxlen=SILENCES_KEPT)

    def note(self, began: float, ended: float) -> None:
        """Take down that nothing new came between two times, if that was long."""
        if ended - began >= SILENCE_S:
            self._kept.append((began, ended))

    def kept(self) -> tuple[tuple[float, float], ...]:
        """Return those that are remembered, oldest first."""
        return tuple(self._kept)
