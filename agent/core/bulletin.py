"""What the server was told last of each link, and which of it is so different now that it should know at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from common.ids import DeviceId
from common.messages import QosFigures

LOOK_S: Final = 0.25
"""Seconds between two looks, and so between two reports out of turn."""
RATE_SHARE: Final = 0.3
"""Share of the bandwidth told by which it has to differ: less is what measuring it twice differs by."""
DELAY_SHARE: Final = 0.3
"""Share of the delay told by which it has to differ."""
DELAY_S: Final = 0.002
"""Seconds by which the delay has to differ as well: busy hosts make as much."""
LOSS_SHARE: Final = 0.02
"""Share of datagrams lost by which the loss has to differ."""


class Bulletin:
    """The figures told last, by peer."""

    def __init__(self) -> None:
        self._told: dict[DeviceId, QosFigures] = {}
        self._look_at = 0.0

    def due(self, now: float) -> bool:
        """Tell whether it is time to look, at most four times a second; the next look is counted from this one."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        return True

    def tell_all(self, figures: Mapping[DeviceId, QosFigures]) -> None:
        """Note that the server is told the figures of all links."""
        self._told = dict(figures)

    def tell_changed(self, figures: Mapping[DeviceId, QosFigures]) -> dict[DeviceId, QosFigures]:
        """Return the figures that the server should know at once, and note that it is told.

        Args:
            figures: as they are now; links that it was never told of wait for their report.
        """
        changed = {
            peer: found for peer, found in figures.items() if peer in self._told and matters(self._told[peer], found)
        }
        self._told.update(changed)
        return changed


def matters(told: QosFigures, found: QosFigures) -> bool:
    """Tell whether figures differ so much that the planner might choose another tree for it."""
    return (
        _differs(told.bandwidth_bps, found.bandwidth_bps, RATE_SHARE, 0.0)
        or _differs(told.delay_s, found.delay_s, DELAY_SHARE, DELAY_S)
        or _differs(told.loss, found.loss, 0.0, LOSS_SHARE)
    )


def _differs(told: float | None, found: float | None, share: float, least: float) -> bool:
    """Tell whether a figure differs by more than a share of what was told, and by more than a least amount."""
    if told is None or found is None:
        return (told is None) != (found is None)
    return abs(found - told) > max(share * told, least)
