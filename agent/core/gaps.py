"""What is missing of one stream: since when, what waited long enough, and what was asked of whom.

Numbers that are missing are looked at now and then. What is missing at two looks that lie a *patience* apart, the first
of it still the first, has stalled: nobody seems to be bringing it. What is known to be held by some peer is *pulled*
from then on: asked for, a part at a time, until it has come.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.rangeset import RangeSet
from common.ids import DeviceId


@dataclass(slots=True)
class Asked:
    """What was asked of one peer.

    Attributes:
        numbers: those that have not come yet.
        moved_at: when they were asked for, or some of them came, monotonic seconds.
    """

    numbers: RangeSet
    moved_at: float


class Gaps:
    """How one stream's gaps move.

    Attributes:
        pulled: what waited long enough, and some peer has.
        asked: what was asked for and has not come, by peer.
        failed: who last let something unanswered.
        passed: who was asked last for what nobody reported.
    """

    __slots__ = ("_brought_at", "_checked", "_checked_at", "_seen", "asked", "failed", "passed", "pulled")

    def __init__(self) -> None:
        self.pulled = RangeSet()
        self.asked: dict[DeviceId, Asked] = {}
        self.failed: DeviceId | None = None
        self.passed: DeviceId | None = None
        self._seen = RangeSet()
        self._checked = RangeSet()
        self._checked_at: float | None = None
        self._brought_at: float | None = None

    def outstanding(self) -> RangeSet:
        """Return all that was asked for and has not come."""
        numbers = RangeSet()
        for asked in self.asked.values():
            numbers.union_update(asked.numbers)
        return numbers

    def ask(self, peer: DeviceId, numbers: RangeSet, now: float) -> None:
        """Note that numbers were asked of a peer."""
        asked = self.asked.setdefault(peer, Asked(RangeSet(), now))
        asked.numbers.union_update(numbers)
        asked.moved_at = now

    def ask_elsewhere(self, peer: DeviceId, numbers: RangeSet) -> list[DeviceId]:
        """Expect numbers that another peer is about to be asked for of no one else.

        Returns:
            The peers of whom nothing more is expected; they are still in ``asked``.
        """
        given_up = []
        for other, asked in self.asked.items():
            if other != peer:
                asked.numbers = asked.numbers.difference(numbers)
                if not asked.numbers:
                    given_up.append(other)
        return given_up

    def note_missing(self, missing: RangeSet, now: float) -> list[DeviceId]:
        """Take what is missing now, and with it what has come since the last time.

        Returns:
            The peers that have answered all they were asked for; they are still in ``asked``.
        """
        came = self._seen.difference(missing)
        self._seen = missing
        if not came:
            return []
        answered = []
        for peer, asked in self.asked.items():
            left = asked.numbers.intersection(missing)
            came.difference_update(asked.numbers)
            if len(left) < len(asked.numbers):
                asked.moved_at = now
            asked.numbers = left
            if not left:
                answered.append(peer)
        if came:
            self._brought_at = now
        return answered

    def silent(self, since: float) -> list[DeviceId]:
        """Return the peers of whose answers nothing has come since then."""
        return [peer for peer, asked in self.asked.items() if asked.moved_at <= since]

    def look_anew(self) -> None:
        """Take nothing for stalled that was missing before now."""
        self._checked_at = None

    def stalled(self, missing: RangeSet, last: int | None, now: float, patience: float) -> RangeSet:
        """Return what has been missing for so long that nobody seems to be bringing it.

        Args:
            missing: what is missing now.
            last: the highest number held.
            now: monotonic seconds.
            patience: how long what comes unasked may stay away, seconds.
        """
        nothing = RangeSet()
        rest = missing.difference(self.pulled)
        rest.difference_update(self.outstanding())
        if not rest:
            self._checked_at = None
            return nothing
        if self._checked_at is not None and now - self._checked_at < patience:
            return nothing
        before = nothing if self._checked_at is None else self._checked
        self._checked_at, self._checked = now, rest
        if before.first() != rest.first():
            return nothing
        wanted = rest.intersection(before)
        end = wanted.last()
        if last is not None and end is not None and self._brought_at is not None and now - self._brought_at < patience:
            wanted.remove_range(last, max(end + 1, last + 1))
        return wanted
