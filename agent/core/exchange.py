"""HAVE and WANT: how a device gets what the tree did not bring.

Neighbours tell each other what they hold. What is missing here for 200 ms + 3 RTT without progress is asked of one
neighbour that reported it; if nothing comes, of the next. What a neighbour of an earlier epoch still delivers is left
to it until a new neighbour has told what it holds; then the old one is told to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.core.cursor import Cursor, Owed
from agent.core.hop import Hop
from agent.core.rangeset import RangeSet
from agent.core.stream import Stream
from common.datagrams import PacketType
from common.frames import Have, Ranges, Stop, Want
from common.ids import DeviceId
from common.limits import MAX_RANGES

HAVE_EVERY_S: Final = 0.1
STALL_S: Final = 0.2
STALL_RTTS: Final = 3


@dataclass(slots=True)
class _Progress:
    """How one stream's gaps have moved.

    Attributes:
        have_at: when the last HAVE went out.
        have_span: which ranges of a long list the next HAVE begins with.
        checked_at: when the gaps were last looked at.
        first: the lowest missing number then.
        missing: all that was missing then.
        asked: who was asked last.
        passed: who was asked last for what nobody reported.
        old: neighbours of earlier epochs that may still be delivering.
        new: the neighbours that took their place.
    """

    have_at: float = 0.0
    have_span: int = 0
    checked_at: float | None = None
    first: int | None = None
    missing: RangeSet = field(default_factory=RangeSet)
    asked: DeviceId | None = None
    passed: DeviceId | None = None
    old: dict[DeviceId, None] = field(default_factory=dict)
    new: dict[DeviceId, None] = field(default_factory=dict)


class Exchange:
    """Runs HAVE and WANT for all streams.

    Args:
        neighbours: returns the hops to a stream's current neighbours.
        hops: all open hops, by peer.
        cursor_of: returns (or makes) the place of a hop's peer in a stream.
    """

    def __init__(
        self,
        neighbours: Callable[[Stream], list[Hop]],
        hops: dict[DeviceId, Hop],
        cursor_of: Callable[[Hop, Stream], Cursor],
    ) -> None:
        self._neighbours = neighbours
        self._hops = hops
        self._cursor_of = cursor_of
        self._progress: dict[int, _Progress] = {}

    def forget(self, stream: Stream) -> None:
        """Forget a stream that is gone."""
        self._progress.pop(stream.short, None)

    def greet(self, hop: Hop, stream: Stream) -> None:
        """Tell a new neighbour what is held here of a stream."""
        if stream.held or stream.role == "receive":
            self._send_have(hop, stream, reliable=True)

    def on_old_neighbours(self, stream: Stream, peers: Iterable[DeviceId], new: Iterable[DeviceId]) -> None:
        """Note peers that are no longer neighbours, but may still be delivering, and those that took their place."""
        progress = self._of(stream)
        progress.old.update(dict.fromkeys(peers))
        progress.new = dict.fromkeys(new)

    def on_have(self, hop: Hop, stream: Stream, have: Have) -> None:
        """Take what a peer says it holds."""
        cursor = self._cursor_of(hop, stream)
        cursor.heard = True
        cursor.lowest = have.lowest
        for start, stop in have.ranges:
            cursor.reported.add_range(start, stop)
        if stream.closing is None and have.stop > stream.stop:
            stream.stop = have.stop
            stream.have_due = True

    def on_want(self, hop: Hop, stream: Stream, ranges: Ranges, epoch: int, tree: int) -> None:
        """Owe a peer what it asks for, is held here and not on its way already."""
        cursor = self._cursor_of(hop, stream)
        asked = RangeSet(ranges)
        if stream.refused is not None:
            # What is not kept here has to be fetched again for those below.
            stream.wanted.union_update(asked.difference(stream.held).intersection(RangeSet([(1, stream.stop)])))
        wanted = asked.intersection(stream.held)
        wanted.difference_update(cursor.flying)
        for owed in cursor.owed:
            wanted.difference_update(owed.numbers)
        if not wanted:
            return
        cursor.acked.difference_update(wanted)
        cursor.reported.difference_update(wanted)
        answer = Owed(epoch, tree, PacketType.PULLED)
        answer.numbers = wanted
        cursor.owed.append(answer)
        hop.wake(cursor)

    def tick(self, stream: Stream, now: float) -> None:
        """Send the HAVE and the WANT that are due."""
        progress = self._of(stream)
        self._have(stream, progress, now)
        if progress.old:
            self._stop_old(stream, progress)
        if stream.role == "receive":
            self._want(stream, progress, now)

    def _of(self, stream: Stream) -> _Progress:
        return self._progress.setdefault(stream.short, _Progress())

    def _have(self, stream: Stream, progress: _Progress, now: float) -> None:
        if not (stream.have_due or stream.have_unsettled):
            return
        if now - progress.have_at < HAVE_EVERY_S and not stream.complete:
            return
        final = stream.complete or not stream.have_due
        for hop in self._neighbours(stream):
            self._send_have(hop, stream, reliable=final)
        progress.have_at = now
        stream.have_unsettled = not final
        stream.have_due = False

    def _send_have(self, hop: Hop, stream: Stream, *, reliable: bool) -> None:
        spans = list(stream.held)
        if len(spans) > MAX_RANGES:
            progress = self._of(stream)
            at = progress.have_span % len(spans)
            progress.have_span = at + MAX_RANGES - 1
            spans = [spans[0], *(spans[at:] + spans[:at])[: MAX_RANGES - 1]]
        lowest = self._lowest_for(hop, stream)
        hop.send(Have(stream.short, lowest, stream.stop, tuple(spans)), reliable=reliable)

    def _lowest_for(self, hop: Hop, stream: Stream) -> int:
        """Return the lowest number that is retained here, or may still come from another neighbour than this one.

        Two late joiners that tell each other "I still wait for 1" would wait for ever; so nobody hears back what only
        it could bring.
        """
        if stream.role != "receive" or stream.closing is not None:
            return stream.lowest
        found = [stream.held.first() or stream.stop]
        for other in self._neighbours(stream):
            cursor = other.cursors.get(stream.short)
            if other is not hop and cursor is not None and cursor.heard:
                found.append(cursor.lowest)
        return max(stream.lowest, min(found))

    def _stop_old(self, stream: Stream, progress: _Progress) -> None:
        current = self._neighbours(stream)
        new = [hop for hop in current if hop.peer in progress.new] or current
        if not any(self._cursor_of(hop, stream).heard for hop in new):
            return
        kept = dict.fromkeys(hop.peer for hop in current)
        for peer in progress.old:
            hop = self._hops.get(peer)
            if hop is not None and peer not in kept and not stream.complete:
                hop.send(Stop(stream.short))
        progress.old.clear()

    def _want(self, stream: Stream, progress: _Progress, now: float) -> None:
        missing = stream.missing() if stream.refused is None else stream.wanted.copy()
        if not missing:
            progress.checked_at = None
            return
        patience = STALL_S + STALL_RTTS * self._longest_rtt()
        if progress.checked_at is not None and now - progress.checked_at < patience:
            return
        stalled = progress.checked_at is not None and progress.first == missing.first()
        before = progress.missing
        progress.checked_at, progress.first, progress.missing = now, missing.first(), missing
        if not stalled:
            return
        wanted = missing.intersection(before)
        last = stream.held.last()
        if now - stream.progress_at < patience and last is not None:
            wanted.remove_range(last, max(stream.stop, last + 1))
        if wanted:
            self._ask(stream, progress, wanted)

    def _ask(self, stream: Stream, progress: _Progress, wanted: RangeSet) -> None:
        retained = [
            cursor.lowest
            for hop in self._neighbours(stream)
            if (cursor := hop.cursors.get(stream.short)) is not None and cursor.heard
        ]
        heard = bool(retained)
        for hop in self._providers(stream, progress):
            cursor = hop.cursors.get(stream.short)
            if cursor is None or not cursor.heard:
                continue
            found = wanted.intersection(cursor.reported)
            found.remove_range(0, cursor.lowest)
            if not found:
                continue
            hop.send(Want(stream.short, tuple(found)[:MAX_RANGES]))
            progress.asked = hop.peer
            retained.extend(start for start, _ in tuple(found)[:1])
            wanted.difference_update(found)
        if wanted and (others := self._neighbours(stream)):
            # Nobody said that it holds these; but a neighbour that keeps nothing passes what it is asked for on.
            asked = min(others, key=lambda hop: (hop.peer == progress.passed, hop.peer))
            asked.send(Want(stream.short, tuple(wanted)[:MAX_RANGES]))
            progress.passed = asked.peer
        # A file is of no use without its first pieces: they may yet come. Messages go on behind a gap.
        if heard and stream.closing is None and min(retained) > stream.lowest:
            stream.give_up_below(min(retained))

    def _providers(self, stream: Stream, progress: _Progress) -> list[Hop]:
        """Return whom to ask: the tree's neighbours first, the one asked last without success at the end."""
        current = self._neighbours(stream)
        names = dict.fromkeys(hop.peer for hop in current)
        others = [hop for peer, hop in sorted(self._hops.items()) if peer not in names]
        order = current + others
        return sorted(order, key=lambda hop: hop.peer == progress.asked)

    def _longest_rtt(self) -> float:
        return max((hop.qos.rtt_s or 0.0 for hop in self._hops.values()), default=0.0)
