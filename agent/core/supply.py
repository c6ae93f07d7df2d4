"""Who brings a stream to this device unasked, and what of it nobody is bringing.

While somebody brings a stream, what is missing is given time: it may be under way, or on its way again. When the one
that brought it has lost its link, or says that it brings no more, what is missing is *adrift* and worth asking for at
once. Who brings it next begins at some number: from there on it is to be waited for again, but not what is below.
The two may come to be known in either order, for the new tree's first chunk races the news from the old one.
"""

from __future__ import annotations

from enum import Enum

from common.ids import DeviceId
from common.ranges import NO_LIMIT


class Concerned(Enum):
    """Whom else it concerns that a peer brings no more."""

    NOBODY = "nobody"
    BEHIND = "those behind this device"
    BRINGER = "who brings the stream now: it may have been behind this device until then, and lack the same"


class Supply:
    """How one stream comes in.

    Attributes:
        bringer: the peer that last brought something unasked; None if nobody did, or that has come to an end.
        adrift_below: nobody is bringing what is missing below this number; 0 where nothing is known to be amiss.
        left_to: who still delivers what it has reported, though it brings no more.
    """

    __slots__ = ("_former", "_former_below", "adrift_below", "bringer", "left_to")

    def __init__(self) -> None:
        self.bringer: DeviceId | None = None
        self.adrift_below = 0
        self.left_to: DeviceId | None = None
        self._former: DeviceId | None = None
        self._former_below = 0

    def brought(self, peer: DeviceId, number: int) -> None:
        """Note that another peer than before brings the stream unasked, from a number on."""
        if self.bringer is not None:
            self._former, self._former_below = self.bringer, number
        self.bringer = peer
        self.adrift_below = min(self.adrift_below, number)

    def interrupted(self, peer: DeviceId | None, *, delivering: bool = False) -> Concerned:
        """Note that a peer brings no more.

        Args:
            peer: the peer; None if nobody ever brought anything.
            delivering: whether what it has reported is still on its way.

        Returns:
            Whom else that concerns.
        """
        if peer == self.left_to and not delivering:
            self.left_to = None
        if peer == self.bringer:
            self.bringer, self.adrift_below = None, NO_LIMIT
            concerned = Concerned.BEHIND
        elif peer == self._former:
            self.adrift_below = max(self.adrift_below, self._former_below)
            concerned = Concerned.BRINGER
        else:
            return Concerned.NOBODY
        self.left_to = peer if delivering else None
        self._former = None
        return concerned

    def whole(self) -> None:
        """Note that nothing is missing: what will be is not adrift, as long as somebody brings the stream."""
        if self.bringer is not None:
            self.adrift_below = 0
