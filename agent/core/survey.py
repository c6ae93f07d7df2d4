"""Who of a device's links is measured by a train, and when: one at a time, and only while it carries nothing else.

Theory of operation. A link whose bandwidth nobody has declared or measured is searched soon after it opens, by a few
trains; what is known is looked at again after pauses that double up to minutes, and sooner when the link's delay or
loss changed clearly. What the operator declared needs no train; only where less was measured since is it worth to see
whether that has passed. A link that seems to lose something gets a series of small datagrams besides, which tells how
much. All of that together stays below a hundredth of the link.

While any stream flows through the device, only what was never measured is: a train between two others' data measures
the host.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from agent.core.hop import Hop
from agent.core.link import Link
from agent.core.train import MOST_BYTES_S, PORTION_S, Outgoing, RateSearch, TrainReceiver
from common.errors import DecodeError
from common.ids import DeviceId
from common.limits import USUAL_DATAGRAM_BYTES
from common.path_frames import Train, TrainReport

FIRST_S: Final = 0.5
"""Seconds after a link is there until its first train."""
BETWEEN_S: Final = 0.3
"""Seconds between two trains of a device, on average: each lets the queue of the one before go."""
LOOK_S: Final = 1.0
"""Seconds between two looks for a link that wants a train."""
AGAIN_FIRST_S: Final = 120.0
"""Seconds until a result is looked at again, twice as many each time; five fast links cost 0.2 s of a core."""
AGAIN_MOST_S: Final = 300.0
"""Seconds until that at most."""
CHANGED_S: Final = 10.0
"""Seconds that a result counts at least, however much the link changes."""
FAILED_S: Final = 30.0
"""Seconds after a search that came to nothing."""
REMEMBERED_S: Final = 300.0
"""Seconds for which a bandwidth outlives its session."""
QUIET_S: Final = 1.0
"""Seconds without any chunk after which nothing flows."""
CHANGED_DELAY: Final = 0.3
"""Share of the delay by which it has to change to be clearly another one."""
CHANGED_DELAY_S: Final = 0.002
"""Seconds by which it has to change as well."""
CHANGED_LOSS: Final = 0.02
"""Share of datagrams lost by which the loss has to change."""
BELOW_DECLARED: Final = 0.8
"""Share of a declared rate below which what was measured is looked at again."""
SERIES_DATAGRAMS: Final = 400
"""Datagrams of one train of a series."""
SERIES_BYTES_S: Final = 17e3
"""Bytes per second of a series: 250 datagrams."""
SERIES_PORTION_S: Final = 0.03
"""Seconds of a series that are sent at once: it is about loss, and a device at rest shall wake seldom."""
SERIES_SHARE: Final = 0.1
"""Share of the link's rate that a series takes at most."""
SERIES_AGAIN_S: Final = 20.0
"""Seconds between two series."""
RECENT: Final = 8
"""Trains before the last one whose reports may still come, and say nothing."""
_BITS: Final = 8


class _Path:
    """One hop's measuring."""

    def __init__(self, hop: Hop, now: float) -> None:
        self.hop = hop
        self.receiver = TrainReceiver()
        self.number = 0
        self.search: RateSearch | None = None
        self.next_at = now + FIRST_S
        self.series_at = now
        self.in_series = False
        self.pause_s = AGAIN_FIRST_S
        self.seen: tuple[float, float] = (0.0, 0.0)
        """Delay in seconds and share of loss when the bandwidth was measured last."""
        self.recalled = hop.qos.bandwidth_at is not None
        """Whether the bandwidth is that of a session before."""

    def flows(self, now: float) -> bool:
        """Whether a stream flows over it."""
        return now - self.hop.qos.flow_at < QUIET_S

    def changed(self) -> bool:
        """Whether the link is clearly another one than when its bandwidth was measured."""
        if self.recalled:
            return True
        delay_s, loss = self.seen
        now_s = self.hop.qos.delay_s or 0.0
        longer = abs(now_s - delay_s) > max(CHANGED_DELAY * delay_s, CHANGED_DELAY_S)
        return longer or abs(self.hop.qos.loss.share - loss) > CHANGED_LOSS

    def note(self) -> None:
        """Remember what the link is like."""
        self.recalled = False
        self.seen = (self.hop.qos.delay_s or 0.0, self.hop.qos.loss.share)


class Survey:
    """Measures all links of a device by trains.

    Args:
        hops: the device's hops, by peer.
        links: its links.
        declared_bps: gives what a link is declared to have, bits per second, or None.
        cap_bps: gives what may be sent to a peer at most, bits per second, or None.
        rng: for the jitter of pauses.
    """

    def __init__(
        self,
        hops: Mapping[DeviceId, Hop],
        links: Mapping[DeviceId, Link],
        *,
        declared_bps: Callable[[DeviceId], float | None],
        cap_bps: Callable[[DeviceId], float | None],
        rng: random.Random,
    ) -> None:
        self._hops = hops
        self._links = links
        self._declared_bps = declared_bps
        self._cap_bps = cap_bps
        self._rng = rng
        self._paths: dict[DeviceId, _Path] = {}
        self._known: dict[DeviceId, tuple[float, float]] = {}
        self._train: Outgoing | None = None
        self._turn: _Path | None = None
        self._look_at = 0.0
        self._report_at: float | None = None

    def handle_timeout(self, now: float) -> None:
        """Send what is due: reports, portions of a train, the next train."""
        if self._report_at is not None and now >= self._report_at:
            self._send_reports(now)
        if self._train is not None and self._turn is not None:
            self._go_on(self._turn, self._train, now)
        if self._train is None and now >= self._look_at:
            self._look(now)

    def poll_timeout(self) -> float | None:
        """Return when ``handle_timeout`` is due."""
        due = self._report_at
        if self._train is not None:
            at = self._train.poll_timeout()
        elif self._hops:
            at = self._look_at
        else:
            return due
        return at if due is None else min(at, due)

    def recall(self, hop: Hop, now: float) -> None:
        """Let a new session begin with the bandwidth that the link had in the last one; it is looked at again soon."""
        path = self._paths.get(hop.peer)
        if path is not None:
            self._remember(path)
        rate_bps, at = self._known.get(hop.peer, (0.0, float("-inf")))
        if now <= at + REMEMBERED_S:
            hop.qos.on_bandwidth(rate_bps, at)

    def on_train(self, hop: Hop, frame: Train, now: float) -> None:
        """Take one datagram of a peer's train."""
        receiver = self._path(hop, now).receiver
        receiver.on_train(frame, now)
        at = receiver.poll_timeout()
        if at is not None:
            self._report_at = at if self._report_at is None else min(at, self._report_at)

    def on_report(self, hop: Hop, report: TrainReport, now: float) -> None:
        """Take a peer's report.

        Raises:
            DecodeError: it is of no train under way, or cannot be true.
        """
        path, train = self._turn, self._train
        if path is None or train is None or path.hop is not hop or report.train != train.number:
            if (self._path(hop, now).number - report.train) & 0xFFFF < RECENT:
                return  # Late, sent again, or of a train that was given up.
            raise DecodeError("a report of no train")
        measured = train.on_report(report, now)
        search = None if path.in_series else path.search
        if search is None:
            hop.qos.loss.on_series(measured.sent, measured.arrived, now, first=not hop.qos.loss.series_wanted)
        else:
            search.on_measured(measured)
        self._end(path, now)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _path(self, hop: Hop, now: float) -> _Path:
        path = self._paths.get(hop.peer)
        if path is None or path.hop is not hop:
            path = self._paths[hop.peer] = _Path(hop, now)
        return path

    def _remember(self, path: _Path) -> None:
        qos = path.hop.qos
        if qos.bandwidth_bps is not None and qos.bandwidth_at is not None:
            self._known[path.hop.peer] = qos.bandwidth_bps, qos.bandwidth_at

    def _send_reports(self, now: float) -> None:
        self._report_at = None
        for path in self._paths.values():
            report = path.receiver.poll_report(now)
            if report is not None and self._hops.get(path.hop.peer) is path.hop:
                path.hop.send(report)
            at = path.receiver.poll_timeout()
            if at is not None:
                self._report_at = at if self._report_at is None else min(at, self._report_at)

    def _go_on(self, path: _Path, train: Outgoing, now: float) -> None:
        """Send the next portion, unless the train is no use any more."""
        if self._hops.get(path.hop.peer) is not path.hop:
            self._train = self._turn = None
        elif path.hop.qos.flow_at > train.began:
            # Its datagrams stood between those of a stream, and it would hold that up.
            path.in_series = False
            path.next_at = now + QUIET_S
            self._train = self._turn = None
        elif train.expired(now):
            if path.search is not None and not path.in_series:
                path.search.on_failed()
            self._end(path, now)
        else:
            for frame in train.poll(now):
                path.hop.send(frame, reliable=False)

    def _end(self, path: _Path, now: float) -> None:
        """Leave a train that is over; end a search that is over with it."""
        self._train = self._turn = None
        self._look_at = now + self._about(BETWEEN_S)
        if path.in_series:
            path.in_series = False
            if not path.hop.qos.loss.series_wanted:
                path.series_at = now + self._about(SERIES_AGAIN_S)
        search = path.search
        if search is None or not search.over:
            return
        path.search = None
        path.note()
        if search.result_bytes_s is None:
            path.next_at = now + self._about(FAILED_S)
        else:
            path.hop.qos.on_bandwidth(_BITS * search.result_bytes_s, now)
            path.next_at = now + self._about(path.pause_s)
            path.pause_s = min(2 * path.pause_s, AGAIN_MOST_S)

    def _look(self, now: float) -> None:
        """Look for a link that wants a train; the one that had one last comes last."""
        self._look_at = now + LOOK_S
        for peer in [peer for peer, path in self._paths.items() if self._hops.get(peer) is not path.hop]:
            self._remember(self._paths.pop(peer))
        self._known = {peer: known for peer, known in self._known.items() if peer in self._links}
        for peer, hop in self._hops.items():
            if self._links[peer].usable:
                self._path(hop, now)
        busy = any(path.flows(now) for path in self._paths.values())
        for peer, path in self._paths.items():
            if self._links[peer].usable and not path.flows(now) and self._begin(peer, path, now, busy=busy):
                self._paths[peer] = self._paths.pop(peer)
                return

    def _begin(self, peer: DeviceId, path: _Path, now: float, *, busy: bool) -> bool:
        """Begin a train if the link wants one."""
        qos, cap = path.hop.qos, self._cap_bps(peer)
        most = MOST_BYTES_S if cap is None else min(cap / _BITS, MOST_BYTES_S)
        if self._wants_rate(peer, path, now, busy=busy):
            if path.search is None:
                known = None if qos.bandwidth_bps is None else qos.bandwidth_bps / _BITS
                path.search = RateSearch(known, most)
            size = min(path.hop.mtu.mtu_bytes, USUAL_DATAGRAM_BYTES)
            self._send(path, path.search.count(size), size, path.search.rate_bytes_s, now)
            return True
        if (qos.loss.doubt and now >= path.series_at and not busy) or qos.loss.series_wanted:
            rate = min(SERIES_BYTES_S, most)
            if qos.bandwidth_bps is not None:
                rate = min(rate, SERIES_SHARE * qos.bandwidth_bps / _BITS)
            path.in_series = True
            self._send(path, SERIES_DATAGRAMS, 0, rate, now, portion_s=SERIES_PORTION_S)
            return True
        return False

    def _wants_rate(self, peer: DeviceId, path: _Path, now: float, *, busy: bool) -> bool:
        """Whether a link's bandwidth is to be measured now."""
        qos, declared = path.hop.qos, self._declared_bps(peer)
        if qos.bandwidth_bps is None or qos.bandwidth_at is None:
            return declared is None and now >= path.next_at
        if path.search is not None:
            return now >= path.next_at
        if busy or (declared is not None and qos.bandwidth_bps >= BELOW_DECLARED * declared):
            return False
        if path.changed() and now >= qos.bandwidth_at + CHANGED_S:
            return True
        return now >= max(path.next_at, qos.bandwidth_at + AGAIN_FIRST_S)

    def _send(
        self,
        path: _Path,
        count: int,
        size_bytes: int,
        rate_bytes_s: float,
        now: float,
        *,
        portion_s: float = PORTION_S,
    ) -> None:
        path.number = (path.number + 1) & 0xFFFF
        self._turn = path
        self._train = Outgoing(path.number, count, size_bytes, rate_bytes_s, now, portion_s)
        self._go_on(path, self._train, now)

    def _about(self, seconds: float) -> float:
        """Return about so many seconds, so that two devices do not keep step."""
        return seconds * self._rng.uniform(0.8, 1.2)
