"""What one device noticed during a run, and when: its links' states, its graphs, and what one stream brought it.

A simulation writes a trace as it goes. Of a real agent it is put together from what `GET /changes` said from time to
time; there an arrival is known to the length of the shortest silence that agents take down.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.ids import DeviceId


@dataclass(frozen=True, slots=True)
class LinkNote:
    """A link came to another state at a time."""

    at: float
    peer: DeviceId
    state: str


@dataclass(frozen=True, slots=True)
class GraphNote:
    """A graph with these neighbours came into use at a time."""

    at: float
    neighbours: frozenset[DeviceId]


@dataclass(slots=True)
class Trace:
    """One device's.

    Attributes:
        links: Oldest first.
        graphs: Oldest first.
        silences: When nothing new arrived: began and ended, oldest first.
        last_at: When something new arrived for the last time; None if nothing did.
    """

    links: list[LinkNote] = field(default_factory=list)
    graphs: list[GraphNote] = field(default_factory=list)
    silences: list[tuple[float, float]] = field(default_factory=list)
    last_at: float | None = None

    def arrived(self, at: float) -> None:
        """Take down that something new arrived."""
        if self.last_at is not None and at > self.last_at:
            self.silences.append((self.last_at, at))
        self.last_at = at

    def first_arrival(self, after: float) -> float | None:
        """Return when something new first arrived after a time; None if nothing did.

        Between two silences that are known, arrivals are so close together that the time itself is the answer.
        """
        if self.last_at is None or self.last_at <= after:
            return None
        position = bisect.bisect_right(self.silences, after, key=lambda silence: silence[0]) - 1
        if position >= 0 and self.silences[position][1] > after:
            return self.silences[position][1]
        return after

    def take(self, changes: Mapping[str, Any], stream: str, objective: str) -> None:
        """Add what an agent said.

        Args:
            changes: The answer to ``GET /changes``; what it repeats is left out.
            stream: Id in hex of the stream whose arrivals count.
            objective: That of the stream's tree.
        """
        links = [LinkNote(float(note["at"]), str(note["peer"]), str(note["state"])) for note in changes["links"]]
        told = max((note.at for note in self.links), default=float("-inf"))
        self.links += [note for note in links if note.at > told]
        graphs = [
            GraphNote(float(note["at"]), frozenset(note["neighbours"].get(objective, ()))) for note in changes["graphs"]
        ]
        told = max((note.at for note in self.graphs), default=float("-inf"))
        self.graphs += [note for note in graphs if note.at > told]
        arrivals = changes["streams"].get(stream)
        if arrivals is not None:
            told = self.silences[-1][1] if self.silences else float("-inf")
            silences = [(float(began), float(ended)) for began, ended in arrivals["silences"]]
            self.silences += [silence for silence in silences if silence[1] > told]
            self.last_at = float(arrivals["last_at"])
