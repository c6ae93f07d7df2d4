"""The share of datagrams that a link loses, from whatever there is: probes, acknowledged packets, trains.

Theory of operation. While data flows, acknowledgements count thousands of packets. What a full queue of our own drops
is not the link's loss: so only packets count that found that queue shallow (`shallow`), where there are enough of them.
They are counted by windows of half a second, and those that lost far more than the usual one are left out, for a queue
that overflows loses many at once. The rest are taken together, so that the figure stands on as many packets as there
are; as soon as the latest windows say something else than those before, only the latest count.

While nothing flows there is a probe a second, or four. They show that a link loses something, but not how much: a
minute of them is too little for that. So one lost probe counts as one in a minute's probes, and raises a `doubt` that a
series of small datagrams settles; its result stands until probes, counted from then on, contradict it.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from statistics import median
from typing import Final, NamedTuple

WINDOW_S: Final = 0.5
"""Seconds of one window while data flows."""
WINDOW_PACKETS: Final = 50
"""Packets of one window at least; a thin flow takes longer for them."""
WINDOW_MOST_S: Final = 5.0
"""Seconds after which a window ends with however few."""
WINDOWS: Final = 20
"""Windows that count at most."""
SHALLOW_SHARE: Final = 0.2
"""Share of a window's packets that have to have found a shallow queue to count alone."""
LATEST: Final = 3
"""Windows that have to agree on another figure before those before them are forgotten; as many make a first one."""
CHANGED: Final = 0.02
"""Share by which they have to differ, beside what chance explains."""
FLOW_FRESH_S: Final = 15.0
"""Seconds for which windows count after the last one: then what flowed is history."""
OUTLIER: Final = 2.0
"""Factor of the usual share from which on, less `CHANGED`, a window shows a full queue and not the link."""
PROBES_S: Final = 60.0
"""Seconds for which probes count."""
PROBES_LEAST: Final = 60
"""Probes that a share is taken of at least: one of the first ten is no tenth."""
SERIES_FRESH_S: Final = 300.0
"""Seconds for which a series counts."""
SERIES_PACKETS: Final = 2_400
"""Datagrams of a series: at 5 % loss their share is within 1 point of it in 39 of 40 cases."""
PAST_PACKETS: Final = 4_800
"""Datagrams of earlier series at most that count as well, where they agree."""
AGREE_SIGMA: Final = 2.0
"""Standard deviations by which two series may differ and agree."""
SERIES_CLEAN: Final = 1
"""Datagrams that the first train of a series may lose and end it."""
DOUBT_SIGMA: Final = 1.5
"""Standard deviations, of about so many probes lost, that contradict a series."""


class _Count(NamedTuple):
    """Packets whose fate is known: when it was, how many, and how many of them were lost."""

    at: float
    sent: int
    lost: int
    shallow: bool = False
    """Whether they all found a shallow queue."""

    @property
    def share(self) -> float:
        return max(self.lost, 0) / self.sent


class LossMeter:
    """One direction of one link.

    Attributes:
        share: of datagrams lost, 0 to 1.
        doubt: whether a series is needed to tell how much is lost.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self.doubt = False
        self._windows: deque[_Count] = deque(maxlen=WINDOWS)
        self._window_at: float | None = None
        # What was known when this window began: of all packets, and of those of a shallow queue.
        self._all = self._shallow = (0, 0)
        self._probes: deque[_Count] = deque()
        self._series: _Count | None = None
        self._past: _Count | None = None

    @property
    def series_wanted(self) -> bool:
        """Whether the series that has begun needs another train."""
        return self._series is not None and self._series.lost > SERIES_CLEAN and self._series.sent < SERIES_PACKETS

    def on_flow(self, all_packets: tuple[int, int], shallow: tuple[int, int], now: float) -> bool:
        """Take in what an ACK told.

        Args:
            all_packets: packets of this session whose fate is known, and how many of them were lost; less than before
                where some came late.
            shallow: the same of the packets that found a shallow queue.
            now: monotonic seconds.

        Returns:
            Whether a window has ended.
        """
        if self._window_at is None or now - self._window_at > FLOW_FRESH_S:
            self._windows.clear()
            self._window_at, self._all, self._shallow = now, all_packets, shallow
            return True
        age, count = now - self._window_at, all_packets[0] - self._all[0]
        if age < WINDOW_S or (count < WINDOW_PACKETS and age < WINDOW_MOST_S):
            return False
        if count > 0:
            alone = shallow[0] - self._shallow[0] >= SHALLOW_SHARE * count
            after, before = (shallow, self._shallow) if alone else (all_packets, self._all)
            self._windows.append(_Count(now, after[0] - before[0], after[1] - before[1], alone))
            self._forget_changed()
            self._update(now)
        self._window_at, self._all, self._shallow = now, all_packets, shallow
        return True

    def on_probes(self, sent: int, lost: int, now: float) -> None:
        """Take in probes; those beside a flow say nothing that it does not say better.

        Args:
            sent: probes whose fate has become known.
            lost: how many of them were lost.
            now: monotonic seconds.
        """
        if self._flows(now):
            self._probes.clear()
        elif sent > 0:
            self._probes.append(_Count(now, sent, lost))
        self._update(now)

    def on_series(self, sent: int, arrived: int, now: float, *, first: bool) -> None:
        """Take in one train of a series.

        Args:
            sent: datagrams.
            arrived: how many of them.
            now: monotonic seconds.
            first: whether the series begins with it.
        """
        lost = sent - arrived
        if first:
            self._past = self._all_series(now)
        elif self._series is not None:
            sent, lost = sent + self._series.sent, lost + self._series.lost
        self._series = _Count(now, sent, lost)
        self._probes.clear()
        self._update(now)

    def _all_series(self, now: float) -> _Count | None:
        """Return what the series say together: the last one, and those before it where they agree with it."""
        series, past = self._series, self._past
        if series is None or now - series.at > SERIES_FRESH_S:
            return None
        if past is None:
            return series
        most = max(series.share, past.share)
        if abs(series.share - past.share) > AGREE_SIGMA * sqrt(most / series.sent + most / past.sent):
            return series
        part = min(1.0, PAST_PACKETS / past.sent)
        return _Count(series.at, series.sent + round(part * past.sent), series.lost + round(part * past.lost))

    def _flows(self, now: float) -> bool:
        return len(self._windows) >= LATEST and now - self._windows[-1].at <= FLOW_FRESH_S

    def _update(self, now: float) -> None:
        while self._probes and now - self._probes[0].at > PROBES_S:
            self._probes.popleft()
        if self._flows(now):
            flow = self._flow()
            self.share, self.doubt = flow.share, False
            # It stands, as a series does, when nothing flows any more.
            self._series, self._past = flow, None
            return
        sent, lost = sum(each.sent for each in self._probes), sum(each.lost for each in self._probes)
        series = self._all_series(now)
        if series is None:
            self.share = lost / max(sent, PROBES_LEAST)
            self.doubt = lost > 0
            return
        expected = sent * series.share
        self.share = (max(series.lost, 0) + lost) / (series.sent + sent)
        self.doubt = abs(lost - expected) > DOUBT_SIGMA * sqrt(expected + 1)

    def _flow(self) -> _Count:
        """Return what the windows say together: those of shallow queues, or else the lower half of all."""
        windows = [each for each in self._windows if each.shallow]
        if len(windows) < LATEST:
            # What a queue drops varies, what a link loses does not.
            ordered = sorted(self._windows, key=lambda each: each.share)
            windows = ordered[: (len(ordered) + 1) // 2]
        most = OUTLIER * median(each.share for each in windows) + CHANGED
        usual = [each for each in windows if each.share <= most]
        return _Count(self._windows[-1].at, sum(each.sent for each in usual), sum(each.lost for each in usual))

    def _forget_changed(self) -> None:
        """Forget the windows before the latest where these say something else."""
        windows = list(self._windows)
        before, latest = windows[:-LATEST], windows[-LATEST:]
        if not before:
            return
        then, now = median(each.share for each in before), median(each.share for each in latest)
        chance = sqrt(max(then, now) / min(each.sent for each in latest))
        if abs(now - then) > CHANGED + chance:
            self._windows = deque(latest, maxlen=WINDOWS)
