"""The simulated time and what is due in it.

One heap of ``(time, order, action, argument)``. Things due at the same time happen in the order in which they were put
down, so a run is the same each time. Nothing is ever taken out: an action that is no longer wanted looks for itself
when it comes up, and does nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

Action = Callable[[Any], None]


class Agenda:
    """What happens when.

    Attributes:
        now: Simulated seconds since the start.
    """

    __slots__ = ("_heap", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._order = 0

    def put(self, at: float, action: Action, argument: Any = None) -> None:
        """Put an action down.

        Args:
            at: Simulated seconds; what lies in the past happens next.
            action: Called with ``argument`` when its time has come.
            argument: Given to the action.
        """
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, action, argument))

    def after(self, seconds: float, action: Action, argument: Any = None) -> None:
        """Put an action down for some seconds from now."""
        self.put(self.now + seconds, action, argument)

    def run_to(self, until: float) -> None:
        """Let everything happen that is due up to a time, and stop there.

        Args:
            until: Simulated seconds.
        """
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= until:
            at, _, action, argument = pop(heap)
            if at > self.now:
                self.now = at
            action(argument)
        self.now = max(self.now, until)


class Alarm:
    """One timer that is set again after every input, and seldom rings.

    The heap holds at most a few entries for it: setting it later than it stands costs nothing, for it looks again when
    it comes up.
    """

    __slots__ = ("_agenda", "_ring", "_standing", "_wanted")

    def __init__(self, agenda: Agenda, ring: Callable[[], None]) -> None:
        """Make a timer that is not set.

        Args:
            agenda: The simulated time.
            ring: Called when the time has come; it should set the alarm again.
        """
        self._agenda = agenda
        self._ring = ring
        self._wanted: float | None = None
        self._standing: float = _NEVER

    def set(self, at: float | None) -> None:
        """Set the alarm to a time, or to none."""
        self._wanted = at
        if at is not None and at < self._standing:
            self._standing = at
            self._agenda.put(at, self._due, at)

    def _due(self, at: float) -> None:
        if at != self._standing:
            return  # An earlier time was set after this one was put down; that entry looked after the rest.
        self._standing = _NEVER
        wanted = self._wanted
        if wanted is None:
            return
        if wanted > at:
            self.set(wanted)
            return
        self._wanted = None
        self._ring()


_NEVER: Final = float("inf")
