"""Fetching again what was refuted: of one peer at a time, until what one brings proves to be the source's own.

Any peer that has the stream will do, a neighbour in the tree or not: a device whose only link is to the one that forges
gets nothing, but it is not deceived either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agent.core.dispute import Dispute
from agent.core.hop import Hop
from agent.core.rangeset import RangeSet
from agent.core.stream import Stream
from common.ids import DeviceId
from common.limits import MAX_RANGES
from common.stream_frames import Want

MOST_AT_ONCE: Final = 1_024
"""Chunks in dispute that are asked for at a time."""


class Disputes:
    """Pursues the disputes of all streams.

    Args:
        hops: all open hops, by peer.
        tell: tells a peer what is held here of a stream; who is no neighbour does not know.
    """

    def __init__(self, hops: dict[DeviceId, Hop], tell: Callable[[Hop, Stream], None]) -> None:
        self._hops = hops
        self._tell = tell

    def pursue(self, stream: Stream, dispute: Dispute, providers: Sequence[Hop], patience: float, now: float) -> None:
        """Ask for what is lacking of a stream's dispute, of the next peer where the last one let it go unanswered.

        Args:
            stream: the stream.
            dispute: its dispute.
            providers: the hops to all who may have it, those that are likely to first.
            patience: how long an answer may take, seconds.
            now: monotonic seconds.
        """
        lacking = stream.held.missing(dispute.start, dispute.stop)
        if not lacking:
            return  # all is here, and is about to be judged
        left = dispute.outstanding.intersection(lacking)
        if len(left) < len(dispute.outstanding):
            dispute.moved_at = now
        dispute.outstanding = left
        if dispute.asked is not None and (dispute.asked not in self._hops or now - dispute.moved_at >= patience):
            dispute.refuted()
        if dispute.asked is None:
            bringer = stream.supply.bringer
            order = sorted(providers, key=lambda hop: (hop.peer == bringer, not _reported(hop, dispute, stream)))
            if dispute.turn_to([hop.peer for hop in order], now) is None:
                return
        if dispute.asked is not None and not dispute.outstanding:
            hop = self._hops[dispute.asked]
            self._tell(hop, stream)
            ranges = tuple(lacking.take(MOST_AT_ONCE)[:MAX_RANGES])
            dispute.outstanding = RangeSet(ranges)
            hop.send(Want(stream.short, ranges), reliable=False)


def _reported(hop: Hop, dispute: Dispute, stream: Stream) -> bool:
    cursor = hop.cursors.get(stream.short)
    return cursor is not None and cursor.reported.until(dispute.start, dispute.stop) == (True, dispute.stop)
