"""HAVE and WANT: how a device gets what the tree did not bring.

Neighbours tell each other what they hold. What is missing here for 200 ms + 3 RTT without progress is asked of one
neighbour that reported it, a bounded part at a time and on as it comes; if nothing comes, of the next. What a neighbour
of an earlier epoch still delivers is left to it until a new neighbour has told what it holds; then the old one is told
to stop. What a neighbour was bringing when its link died is not coming: that is asked for as soon as a neighbour
reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.core.cursor import Cursor, Owed
from agent.core.disputes import Disputes
from agent.core.gaps import Gaps
from agent.core.hop import Hop
from agent.core.rangeset import RangeSet
from agent.core.stream import Stream
from agent.core.supply import Concerned
from common.datagrams import PacketType
from common.ids import DeviceId
from common.limits import MAX_PATIENT_RTT_S, MAX_RANGES
from common.ranges import Ranges
from common.stream_frames import Have, Stop, Want

HAVE_EVERY_S: Final = 0.1
STALL_S: Final = 0.2
FIRST_STALL_S: Final = 0.1
"""The same where nothing is held yet: who comes late waits less for what nobody is bringing."""
STALL_RTTS: Final = 3
SETTLE_S: Final = 1.0
"""For so long and some round trips a stream's first numbers may come late; nobody is told that they will not."""
ASKED_BYTES: Final = 16 * 1024 * 1024
"""Most that is asked of one neighbour and has not come: 50 ms, after which one asks on, of a link of 2.7 Gbit/s."""
MAX_SPANS: Final = 16_384
"""Ranges that are remembered of what one peer holds of one stream, the highest."""
MAX_AHEAD: Final = 1 << 32
"""By how much one HAVE may raise the number up to which a stream is taken to reach."""
WANTS_AT_ONCE: Final = 8
"""Most WANT frames to one neighbour at a time, where what is missing lies scattered."""


@dataclass(slots=True)
class _Progress:
    """How the exchange of one stream stands.

    Attributes:
        have_at: when the last HAVE went out.
        have_span: which ranges of a long list the next HAVE begins with.
        have_turns: how many HAVEs it takes to tell all of a long list.
        began_at: when the stream was first looked at here.
        settled: whether that is long enough ago to say which numbers are not retained.
        gaps: what is missing, and was asked for.
        old: neighbours of earlier epochs that may still be delivering.
        old_since: when the last of them was seen to have become one.
        new: the neighbours that took their place.
    """

    have_at: float = 0.0
    have_span: int = 0
    have_turns: int = 0
    began_at: float | None = None
    settled: bool = False
    gaps: Gaps = field(default_factory=Gaps)
    old: dict[DeviceId, None] = field(default_factory=dict)
    old_since: float | None = None
    new: dict[DeviceId, None] = field(default_factory=dict)


class Exchange:
    """Runs HAVE and WANT for all streams.

    Args:
        neighbours: returns the hops over which a stream is exchanged: those to its neighbours, and while an edge of
            its graph is lost all others.
        cut_off: returns whether this device itself has lost an edge of the stream's graph.
        near: returns the hops to its neighbours alone.
        hops: all open hops, by peer.
        cursor_of: returns (or makes) the place of a hop's peer in a stream.

    Attributes:
        pressing: whether something began that the next tick should not be waited for.
    """

    def __init__(
        self,
        neighbours: Callable[[Stream], list[Hop]],
        cut_off: Callable[[Stream], bool],
        near: Callable[[Stream], list[Hop]],
        hops: dict[DeviceId, Hop],
        cursor_of: Callable[[Hop, Stream], Cursor],
    ) -> None:
        self.pressing = False
        self._neighbours = neighbours
        self._cut_off = cut_off
        self._near = near
        self._hops = hops
        self._cursor_of = cursor_of
        self._disputes = Disputes(hops, lambda hop, stream: self._send_have(hop, stream, reliable=False))
        self._progress: dict[int, _Progress] = {}

    def forget(self, stream: Stream) -> None:
        """Forget a stream that is gone."""
        self._progress.pop(stream.short, None)

    def greet(self, hop: Hop, stream: Stream) -> None:
        """Tell a new neighbour what is held here of a stream."""
        if stream.held or stream.role == "receive":
            self._send_have(hop, stream, reliable=True)
        if stream.held.spans() > MAX_RANGES:
            stream.have_due = True
        self.pressing = True

    def on_old_neighbours(self, stream: Stream, peers: Iterable[DeviceId], new: Iterable[DeviceId]) -> None:
        """Note peers that are no longer neighbours, but may still be delivering, and those that took their place."""
        progress = self._of(stream)
        progress.old.update(dict.fromkeys(peers))
        progress.old_since = None
        progress.new = dict.fromkeys(new)

    def on_have(self, hop: Hop, stream: Stream, have: Have) -> None:
        """Take what a peer says it holds."""
        cursor = self._cursor_of(hop, stream)
        if not cursor.heard:
            cursor.heard = self.pressing = True
        self.pressing = self.pressing or stream.supply.adrift_below > 0
        cursor.lowest = have.lowest
        for start, stop in have.ranges:
            cursor.reported.add_range(start, stop)
        if have.credit > cursor.credit:
            cursor.credit = have.credit
            hop.wake(cursor)
        if cursor.reported.spans() > MAX_SPANS:
            cursor.reported.keep_last(MAX_SPANS)
        if stream.closing is None and stream.role != "source" and have.stop > stream.stop:
            stream.stop = min(have.stop, stream.stop + MAX_AHEAD)
            stream.have_due = True

    def on_want(self, hop: Hop, stream: Stream, ranges: Ranges, epoch: int, tree: int) -> None:
        """Owe a peer what it asks for, is held here and not on its way already."""
        cursor = self._cursor_of(hop, stream)
        asked = RangeSet(ranges)
        if stream.refused is not None:
            # What is not kept here has to be fetched again for those below.
            stream.wanted.union_update(asked.difference(stream.held).intersection(RangeSet([(1, stream.stop)])))
        wanted = asked.intersection(stream.held)
        wanted.remove_range(0, stream.lowest)
        wanted.difference_update(cursor.flying)
        for owed in cursor.owed:
            wanted.difference_update(owed.numbers)
        if not wanted:
            return
        cursor.acked.difference_update(wanted)
        cursor.reported.difference_update(wanted)
        last = cursor.owed[-1] if cursor.owed else None
        if last is None or (last.epoch, last.tree, last.kind) != (epoch, tree, PacketType.PULLED):
            last = Owed(epoch, tree, PacketType.PULLED)
            cursor.owed.append(last)
        last.numbers.union_update(wanted)
        hop.wake(cursor)

    def on_interrupted(self, stream: Stream, peer: DeviceId, *, delivering: bool) -> Concerned:
        """Note that a peer brings no more of a stream.

        Args:
            stream: the stream.
            peer: the peer.
            delivering: whether what it has reported is still on its way.

        Returns:
            Whom else that concerns.
        """
        progress = self._of(stream)
        if not delivering:
            progress.old.pop(peer, None)
        if peer in progress.gaps.asked:
            self._keep_asking(stream, progress.gaps, peer, delivering=delivering)
        self.pressing = True
        if stream.role != "receive" or stream.complete:
            return Concerned.NOBODY
        return stream.supply.interrupted(peer, delivering=delivering)

    def wait_anew(self, stream: Stream) -> None:
        """Take nothing for stalled that was missing before now: somebody else is about to bring it."""
        self._of(stream).gaps.look_anew()

    def tell(self, hop: Hop, stream: Stream) -> None:
        """Tell a peer at once what is held here of a stream."""
        self._send_have(hop, stream, reliable=True)

    def tick(self, stream: Stream, now: float) -> None:
        """Send the HAVE and the WANT that are due."""
        progress = self._of(stream)
        if not progress.settled:
            self._settle(stream, progress, now)
        self._have(stream, progress, now)
        if progress.old:
            self._stop_old(stream, progress, now)
        stream.close_dispute()
        if stream.role == "receive":
            self._want(stream, progress.gaps, now)

    def _of(self, stream: Stream) -> _Progress:
        return self._progress.setdefault(stream.short, _Progress())

    def _settle(self, stream: Stream, progress: _Progress, now: float) -> None:
        if progress.began_at is None:
            progress.began_at = now
        if now - progress.began_at >= SETTLE_S + STALL_RTTS * self._longest_rtt():
            progress.settled = True
            stream.have_due = stream.have_due or bool(stream.missing())

    # --- HAVE -----------------------------------------------------------------------------------------------------

    def _have(self, stream: Stream, progress: _Progress, now: float) -> None:
        if not (stream.have_due or stream.have_unsettled or stream.credit_grew()):
            return
        if now - progress.have_at < HAVE_EVERY_S and not stream.complete:
            return
        if stream.have_due:
            progress.have_turns = 1 + stream.held.spans() // MAX_RANGES
        else:
            progress.have_turns = max(0, progress.have_turns - 1)
        final = stream.complete or not stream.have_due
        for hop in self._neighbours(stream):
            self._send_have(hop, stream, reliable=final)
        progress.have_span += MAX_RANGES - 1
        progress.have_at = now
        stream.have_unsettled = not stream.complete and progress.have_turns > 0
        stream.have_due = False

    def _send_have(self, hop: Hop, stream: Stream, *, reliable: bool) -> None:
        spans = stream.held.ranges()
        if len(spans) > MAX_RANGES:
            at = self._of(stream).have_span % len(spans)
            spans = [spans[0], *(spans[at:] + spans[:at])[: MAX_RANGES - 1]]
        lowest = self._lowest_for(hop, stream)
        credit = stream.grant()
        hop.send(Have(stream.short, lowest, stream.stop, tuple(spans), credit), reliable=reliable)

    def _lowest_for(self, hop: Hop, stream: Stream) -> int:
        """Return the lowest number that is retained here, or may still come from another neighbour than this one.

        Two late joiners that tell each other "I still wait for 1" would wait for ever; so nobody hears back what only
        it could bring.
        """
        if stream.role != "receive" or stream.closing is not None or not self._of(stream).settled:
            return stream.lowest
        found = [stream.held.first() or stream.stop]
        for other in self._neighbours(stream):
            cursor = other.cursors.get(stream.short)
            if other is not hop and cursor is not None and cursor.heard:
                found.append(cursor.lowest)
        return max(stream.lowest, min(found))

    def _stop_old(self, stream: Stream, progress: _Progress, now: float) -> None:
        """Tell old neighbours to stop once a new one speaks; what they had begun to deliver has a moment to come."""
        if progress.old_since is None:
            progress.old_since = now
        if now - progress.old_since < STALL_S + STALL_RTTS * self._longest_rtt():
            return
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

    # --- WANT -----------------------------------------------------------------------------------------------------

    def _want(self, stream: Stream, gaps: Gaps, now: float) -> None:
        missing = stream.missing() if stream.refused is None else stream.wanted.copy()
        patience = (STALL_S if stream.held else FIRST_STALL_S) + STALL_RTTS * self._longest_rtt()
        if (dispute := stream.dispute) is not None:
            missing.remove_range(dispute.start, dispute.stop)
            self._disputes.pursue(stream, dispute, self._providers(stream, gaps), patience, now)
        for peer in gaps.note_missing(missing, now):
            self._give_up(stream, gaps, peer)
        if not missing:
            gaps.look_anew()
            stream.supply.whole()
            return
        self._give_up_silent(stream, gaps, now - patience)
        stalled = gaps.stalled(missing, stream.held.last(), now, patience)
        gaps.pulled.union_update(stalled)
        adrift = self._adrift(stream, missing)
        if adrift or gaps.pulled:
            self._ask(stream, gaps, gaps.pulled.intersection(missing), adrift, stalled, now)

    def _adrift(self, stream: Stream, missing: RangeSet) -> RangeSet:
        """Return what is missing and nobody is bringing."""
        supply = stream.supply
        if supply.bringer is None and self._cut_off(stream):
            supply.interrupted(None)
        if not supply.adrift_below:
            return RangeSet()
        adrift = missing.intersection(RangeSet([(0, supply.adrift_below)]))
        hop = None if supply.left_to is None else self._hops.get(supply.left_to)
        if hop is not None:
            adrift.difference_update(self._cursor_of(hop, stream).reported)
        return adrift

    def _give_up_silent(self, stream: Stream, gaps: Gaps, since: float) -> None:
        """Ask others for what a peer that has been silent since then was asked for."""
        for peer in gaps.silent(since):
            self._give_up(stream, gaps, peer)
            gaps.failed = peer
            hop = self._hops.get(peer)
            if hop is not None and hop not in self._neighbours(stream):
                hop.send(Stop(stream.short), reliable=False)

    def _keep_asking(self, stream: Stream, gaps: Gaps, peer: DeviceId, *, delivering: bool) -> None:
        """Wait for no more of what a peer was asked for than it has and delivers."""
        asked, hop = gaps.asked[peer], self._hops.get(peer)
        if hop is not None and delivering:
            asked.numbers = asked.numbers.intersection(self._cursor_of(hop, stream).reported)
        if hop is None or not delivering or not asked.numbers:
            self._give_up(stream, gaps, peer)

    def _give_up(self, stream: Stream, gaps: Gaps, peer: DeviceId) -> None:
        """Wait no more for what a peer was asked for."""
        del gaps.asked[peer]
        hop = self._hops.get(peer)
        if hop is not None and stream.short in hop.cursors:
            hop.cursors[stream.short].asked = False

    def _ask(
        self,
        stream: Stream,
        gaps: Gaps,
        wanted: RangeSet,
        adrift: RangeSet,
        stalled: RangeSet,
        now: float,
    ) -> None:
        """Ask for numbers that waited long enough, and for those that are adrift.

        Where no edge of this device's own is lost, what is adrift is asked of its neighbours alone at first: one of
        them is nearer to the gap, and may be about to bring it.
        """
        retained = [
            cursor.lowest
            for hop in self._neighbours(stream)
            if (cursor := hop.cursors.get(stream.short)) is not None and cursor.heard
        ]
        heard = bool(retained)
        gaps.pulled = RangeSet()
        at_once = dict.fromkeys(hop.peer for hop in (self._neighbours if self._cut_off(stream) else self._near)(stream))
        for hop in self._providers(stream, gaps):
            cursor = hop.cursors.get(stream.short)
            if cursor is None or not cursor.heard:
                continue
            found = wanted.intersection(cursor.reported)
            if hop.peer in at_once:
                found.union_update(adrift.intersection(cursor.reported))
            found.remove_range(0, cursor.lowest)
            if not found:
                continue
            retained.append(found.first() or 0)
            gaps.pulled.union_update(found)
            wanted.difference_update(found)
            adrift.difference_update(found)
            found.difference_update(self._awaited(stream, gaps))
            self._ask_of(hop, stream, gaps, found, now)
        if not stalled:
            return
        nobody = wanted.difference(gaps.outstanding())
        if nobody and (others := self._neighbours(stream)):
            # Nobody said that it holds these; but a neighbour that keeps nothing passes what it is asked for on.
            passed = min(others, key=lambda hop: (hop.peer == gaps.passed, hop.peer))
            gaps.passed = passed.peer
            self._ask_of(passed, stream, gaps, nobody, now)
        # A file is of no use without its first pieces: they may yet come. Messages go on behind a gap.
        if heard and stream.closing is None and min(retained) > stream.lowest:
            stream.give_up_below(min(retained))

    def _awaited(self, stream: Stream, gaps: Gaps) -> RangeSet:
        """Return what was asked of those who have it; others were asked in the hope that they pass it on."""
        numbers = RangeSet()
        for peer, hop in self._hops.items():
            asked = gaps.asked.get(peer)
            if asked is not None:
                numbers.union_update(asked.numbers.intersection(self._cursor_of(hop, stream).reported))
        return numbers

    def _ask_of(self, hop: Hop, stream: Stream, gaps: Gaps, numbers: RangeSet, now: float) -> None:
        """Ask a peer for so much of some numbers that its answer does not run dry before it is asked again."""
        most = max(1, min(ASKED_BYTES, stream.credit_bytes) // stream.opening.piece_bytes)
        asked = gaps.asked.get(hop.peer)
        waiting = 0 if asked is None else len(asked.numbers)
        if not numbers or waiting > most // 2:
            return
        if hop not in self._neighbours(stream):
            # Neighbours hear it in any case; who is none knows neither what came meanwhile nor how much may come.
            self._send_have(hop, stream, reliable=False)
        ranges = numbers.take(most - waiting)[: WANTS_AT_ONCE * MAX_RANGES]
        for other in gaps.ask_elsewhere(hop.peer, RangeSet(ranges)):
            self._give_up(stream, gaps, other)
        for at in range(0, len(ranges), MAX_RANGES):
            # Not reliable: what is asked for again and again must not be asked for by what was true seconds ago.
            hop.send(Want(stream.short, tuple(ranges[at : at + MAX_RANGES])), reliable=False)
        self._cursor_of(hop, stream).asked = True
        gaps.ask(hop.peer, RangeSet(ranges), now)

    def _providers(self, stream: Stream, gaps: Gaps) -> list[Hop]:
        """Return whom to ask: the tree's neighbours first, the one that did not answer at the end."""
        current = self._neighbours(stream)
        names = dict.fromkeys(hop.peer for hop in current)
        others = [hop for peer, hop in sorted(self._hops.items()) if peer not in names]
        order = current + others
        return sorted(order, key=lambda hop: hop.peer == gaps.failed)

    def _longest_rtt(self) -> float:
        """Return the longest round trip to any peer, as far as it is worth waiting for: a peer may claim any."""
        return min(max((hop.qos.rtt_s or 0.0 for hop in self._hops.values()), default=0.0), MAX_PATIENT_RTT_S)
