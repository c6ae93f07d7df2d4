"""Small messages over every open link, while an edge of the tree is lost.

A message that is whole here goes on to each open hop over which it has not gone yet and whose peer has not reported
it, as PULLED: nobody counts it as a first crossing. Whoever gets it for the first time does the same, so it ends by
itself. Larger messages, and files, are pulled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.core.degraded import Degraded
from agent.core.neighbourhood import Neighbourhood
from agent.core.routing import Known
from agent.core.stream import Stream
from common.datagrams import CHUNK_HEADER_BYTES, FLAG_END, FLAG_START
from common.graph import short_epoch
from common.limits import MAX_FLOODED_BYTES
from common.sealing import TAG_BYTES
from common.signing import SIGNATURE_BYTES

_MOST_BYTES: Final = MAX_FLOODED_BYTES + SIGNATURE_BYTES


class Flooding:
    """Sends small messages on beside the tree.

    Args:
        neighbourhood: finds hops and cursors.
        degraded: counts what is flooded.
    """

    def __init__(self, neighbourhood: Neighbourhood, degraded: Degraded) -> None:
        self._neighbourhood = neighbourhood
        self._degraded = degraded

    def spread(self, stream: Stream, start: int, stop: int, known: Known, tree: int) -> None:
        """Flood the messages of which chunks were just kept here, if an edge of the stream's graph is lost.

        Args:
            stream: the stream; only messages are flooded.
            start: the first of these chunks.
            stop: one past the last one.
            known: the epoch under which they go.
            tree: which of its trees.
        """
        if stream.opening.kind != "message" or not self._neighbourhood.bridged(stream):
            return
        hops = self._neighbourhood.reach_of(stream)
        epoch = short_epoch(known.epoch)
        for first, end in whole_messages(stream, start, stop):
            flooded = False
            for hop in hops:
                cursor = self._neighbourhood.introduce(hop, stream, known)
                if cursor.owe_anew(first, end, epoch, tree):
                    hop.wake(cursor)
                    flooded = True
            self._degraded.messages_flooded += flooded


def whole_messages(stream: Stream, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the small messages that are held whole, and of which some chunk is within these numbers.

    Args:
        stream: a stream of messages.
        start: the first number.
        stop: one past the last one.

    Yields:
        Each one's first number, and one past its last.
    """
    most = -(-_MOST_BYTES // stream.opening.piece_bytes)
    first = start
    while first > start - most and first in stream.held and not stream.flags_of(first) & FLAG_START:
        first -= 1
    while first < stop:
        end = _end_of(stream, first, most) if stream.flags_of(first) & FLAG_START and first in stream.held else None
        if end is not None:
            yield first, end
        first = end or first + 1


def _end_of(stream: Stream, first: int, most: int) -> int | None:
    """Return one past the last number of the message that begins here; None if it is too large, or not whole."""
    end = first + 1
    while not stream.flags_of(end - 1) & FLAG_END:
        if end - first >= most or end not in stream.held:
            return None
        end += 1
    last = stream.sealed(end - 1, end)
    if not last:
        return None
    last_bytes = len(last[0]) - CHUNK_HEADER_BYTES - TAG_BYTES
    return end if (end - first - 1) * stream.opening.piece_bytes + last_bytes <= _MOST_BYTES else None
