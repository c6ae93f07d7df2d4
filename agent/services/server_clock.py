"""How far this host's clock is from the server's: openings, epochs and tokens are dated, and devices compare them.

Every answer of the server is dated, to the second. A clock that is wrong by a little does no harm; past the limit
streams count as expired, and epochs as others than they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

from common.limits import MAX_CLOCK_SKEW_S

log = logging.getLogger(__name__)

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


class ServerClock:
    """What the dates of the server's answers say.

    Args:
        wall: gives this host's unix seconds.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._told = False
        self.skew_s: float | None = None
        """How far this host's clock is ahead of the server's, seconds; None before an answer has come."""

    def note(self, date: str | None) -> None:
        """Take the date of an answer that has just come."""
        try:
            moment = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        self.skew_s = self._wall() - moment
        wrong = self.wrong()
        if wrong and not self._told:
            log.warning("= %s", wrong)
        self._told = bool(wrong)

    def wrong(self) -> str | None:
        """Return what is wrong with this host's clock, in a sentence; None if nothing is."""
        if self.skew_s is None or abs(self.skew_s) <= MAX_CLOCK_SKEW_S:
            return None
        where = "ahead of" if self.skew_s > 0 else "behind"
        return (
            f"this device's clock is {_span(abs(self.skew_s))} {where} the server's, and more than"
            f" {_span(MAX_CLOCK_SKEW_S)} make streams expire early or be refused: set one of them right"
        )


def _span(seconds: float) -> str:
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} s"
