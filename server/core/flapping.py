"""Links that come and go: one that was lost twice in a minute is held down for a while.

Theory of operation. Each loss moves the tree, and so does each return. A link that is lost again within `WITHIN_S` of
the last time is held down: it counts, but the planner takes it only where there is no other way. That lasts for
`FIRST_S` and twice as long each time, up to `MOST_S`; `FORGET_S` without a loss make it a link like any other.

Only a link between two devices that both live can flap. The planner's topology tells of no other losses. But a device
that was killed looks alive until its lease runs out, so the losses just before it subscribes anew, and just after, are
taken as its own and not as its links'.
"""

import heapq
from dataclasses import dataclass
from typing import Final

from common.ids import DeviceId, LinkKey
from common.limits import LEASE_S

WITHIN_S: Final = 60.0
"""Seconds between two losses of a link that make it flap."""
FIRST_S: Final = 10.0
"""Seconds for which it is held down the first time."""
MOST_S: Final = 300.0
"""Seconds for which it is held down at most."""
FORGET_S: Final = 600.0
"""Seconds without a loss after which nothing is held against it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held against a link.

    Attributes:
        until: until when it is held down, monotonic seconds.
        times: how often it has been held down lately, this time included.
    """

    until: float
    times: int


@dataclass(slots=True)
class _Record:
    """One link's losses.

    Attributes:
        lost_at: when it was lost last.
        held: what is held against it since.
        away: whether it has not come back since.
        before: what was held against it, and when it was lost, before that loss.
    """

    lost_at: float
    held: Held | None = None
    away: bool = True
    before: tuple[float, Held | None] | None = None


class Flapping:
    """The losses of a group's links.

    Attributes:
        count: how often a link was held down.
    """

    def __init__(self) -> None:
        """Start with nothing held against any link."""
        self.count = 0
        self._records: dict[LinkKey, _Record] = {}
        self._restarted: dict[DeviceId, float] = {}
        self._down: dict[LinkKey, Held] = {}
        self._untils: list[tuple[float, LinkKey]] = []

    def held(self, key: LinkKey) -> Held | None:
        """Return what is held against a link; None if it may be used like any other."""
        return self._down.get(key)

    def down(self) -> dict[LinkKey, None]:
        """Return the links that are held down, whether they are there or not."""
        return dict.fromkeys(self._down)

    def on_lost(self, key: LinkKey, *, now: float) -> None:
        """Note that a link between two living devices is lost."""
        if any(now < self._restarted.get(device, float("-inf")) + LEASE_S for device in key):
            return
        self._forget(now)
        record = self._records.get(key)
        if record is None:
            self._records[key] = _Record(now)
            return
        record.before = (record.lost_at, record.held)
        if now <= record.lost_at + WITHIN_S:
            times = 1 if record.held is None else record.held.times + 1
            record.held = Held(now + min(FIRST_S * 2 ** (times - 1), MOST_S), times)
            self._down[key] = record.held
            heapq.heappush(self._untils, (record.held.until, key))
            self.count += 1
        record.lost_at = now
        record.away = True

    def on_back(self, key: LinkKey) -> None:
        """Note that a link counts again."""
        record = self._records.get(key)
        if record is not None:
            record.away = False

    def on_restart(self, device: DeviceId, *, now: float) -> None:
        """Note that a device has begun anew: that its links were lost just now was its own doing."""
        self._restarted[device] = now
        for key in [key for key, record in self._records.items() if device in key and record.away]:
            record = self._records[key]
            self._down.pop(key, None)
            if record.before is None:
                del self._records[key]
                continue
            record.lost_at, record.held = record.before
            record.before = None
            record.away = False
            if record.held is not None and record.held.until > now:
                self._down[key] = record.held

    def on_gone(self, device: DeviceId) -> None:
        """Forget a device that is no member any more, and its links."""
        self._restarted.pop(device, None)
        self._records = {key: record for key, record in self._records.items() if device not in key}
        self._down = {key: held for key, held in self._down.items() if device not in key}

    def next_expiry(self) -> float | None:
        """Return when `take_expired` may have something; None if no link is held down."""
        return self._untils[0][0] if self._untils else None

    def take_expired(self, *, now: float) -> list[LinkKey]:
        """Return the links that are held down no longer; each once."""
        found = []
        while self._untils and self._untils[0][0] <= now:
            _, key = heapq.heappop(self._untils)
            held = self._down.get(key)
            if held is not None and held.until <= now:
                del self._down[key]
                found.append(key)
        return found

    def _forget(self, now: float) -> None:
        """Forget the links that were not lost for long: what is kept is no more than flapped lately."""
        self._records = {key: record for key, record in self._records.items() if now <= record.lost_at + FORGET_S}
