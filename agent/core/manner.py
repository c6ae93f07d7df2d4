"""What every manner of a channel shares: chunks that wait for an epoch.

A chunk that names a newer epoch than any known here waits: 50 ms for a push, then the previous hop is asked, then
the server (jittered, at most once a second); after 1 s the newest known epoch serves.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.core.events import ControlRequest, QueryNeighbours
from agent.core.routing import GraphTable, Known
from common.datagrams import PacketType
from common.graph import short_epoch
from common.ids import DeviceId
from common.limits import MAX_HELD_CHUNKS
from common.messages import ChannelSpec

if TYPE_CHECKING:
    from agent.core.stream import Stream

PUSH_WAIT_S: Final = 0.05
SERVER_WAIT_S: Final = 0.1
"""How long the previous hop has to answer before the server is asked."""
SERVER_ASK_EVERY_S: Final = 1.0
GIVE_UP_S: Final = 1.0
QUERY_LEAST_S: Final = 1.0
LINKS_WAIT_S: Final = 0.3
"""How long after a change of links the server is asked what it made of it."""


@dataclass(slots=True)
class Forwarding:
    """Consecutive chunks that are to be distributed.

    Attributes:
        stream: their stream.
        start: the first one's number.
        stop: one past the last one's.
        size_bytes: their bytes as they travel.
        epoch: the low 32 bits of the epoch they name; None at their source.
        tree: the tree they name.
        previous: the peer they came from; None at their source.
        kind: as what they go on: DATA, or PULLED.
    """

    stream: Stream
    start: int
    stop: int
    size_bytes: int
    epoch: int | None
    tree: int
    previous: DeviceId | None
    kind: PacketType


Decision = tuple[Forwarding, Known]
Question = tuple[DeviceId, int, int]
"""Whom to ask, for which stream (0: the group's graph), for which epoch's short form."""


@dataclass(slots=True)
class _Waiting:
    """Chunks that name one unknown epoch."""

    since: float
    items: list[Forwarding] = field(default_factory=list)
    asked_peer: bool = False
    asked_server: bool = False


class Manner:
    """What all manners share: chunks that wait for an epoch.

    Args:
        spec: the channel's rules.
        table: the graphs known here.
        rng: for jitter.
    """

    subscribes = False
    cut_run = 64
    """Chunks that a source cuts together: about a train."""

    def __init__(self, spec: ChannelSpec, table: GraphTable, rng: random.Random) -> None:
        self.spec = spec
        self.table = table
        self._rng = rng
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._held = 0
        self._asked_server_at: float | None = None
        self._requests: list[ControlRequest] = []

    def table_of(self, stream: Stream) -> GraphTable:
        """Return the graphs that govern a stream."""
        del stream
        return self.table

    def may_cut(self, stream: Stream) -> bool:
        """Whether a source knows enough to distribute another chunk."""
        return self.table_of(stream).current is not None

    def admit(self, item: Forwarding, now: float) -> Known | None:
        """Return the epoch to distribute a chunk by, or keep the chunk and return None."""
        table = self.table_of(item.stream)
        if item.epoch is None:
            return table.current
        known = table.by_short(item.epoch)
        if known is not None:
            return known
        if self._held >= MAX_HELD_CHUNKS:
            return table.current
        key = (self._stream_key(item.stream), item.epoch)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now)
        waiting.items.append(item)
        self._held += item.stop - item.start
        return None

    def on_source(self, now: float) -> None:
        """Take note that a stream of this channel begins, or goes on, here."""

    def on_resume(self, now: float) -> None:
        """Take note that a stream of an earlier run goes on here."""

    def on_links(self, now: float) -> None:
        """Take note that a link opened or closed, here or elsewhere: a tree's edge may be lost."""

    def on_peer_epoch(self, epoch: int, now: float) -> None:
        """Take note of the newest epoch (low 32 bits) that a peer knows."""

    def on_stream_end(self, now: float) -> None:
        """Hold nothing back for more: a stream of this channel ended here."""

    def on_graph(self, now: float, *, changed: bool) -> None:
        """Take note of an answer or a push; ``changed`` if the epoch is newer than before."""

    def on_failed(self, now: float) -> None:
        """Take note that the server did not answer."""

    def release(self, now: float) -> list[Decision]:
        """Return the chunks that need to wait no longer."""
        out: list[Decision] = []
        for key in list(self._waiting):
            waiting = self._waiting[key]
            table = self.table_of(waiting.items[0].stream)
            known = table.by_short(key[1])
            if known is None and now >= waiting.since + GIVE_UP_S:
                known = table.current
                if known is None:
                    self._forget(key)
                    continue
            if known is not None:
                out.extend((item, known) for item in waiting.items)
                self._forget(key)
        return out

    def poll_questions(self, now: float) -> list[Question]:
        """Return what previous hops are to be asked now; server queries go to ``poll_request``."""
        questions: list[Question] = []
        for (stream, epoch), waiting in self._waiting.items():
            previous = waiting.items[0].previous
            if now >= waiting.since + PUSH_WAIT_S and not waiting.asked_peer and previous is not None:
                waiting.asked_peer = True
                questions.append((previous, stream, epoch))
            if now >= waiting.since + SERVER_WAIT_S and not waiting.asked_server:
                waiting.asked_server = True
                if stream == 0:
                    self._ask_server(epoch, now)
        return questions

    def poll_request(self, now: float) -> ControlRequest | None:
        """Return a query that is due."""
        del now
        return self._requests.pop(0) if self._requests else None

    def holds_anything(self) -> bool:
        """Whether chunks wait here."""
        return bool(self._waiting)

    def waits_for(self, epoch: int) -> bool:
        """Whether chunks wait for this epoch of the group's graph."""
        return (0, short_epoch(epoch)) in self._waiting

    def poll_timeout(self) -> float | None:
        """Return when this manner wants to be looked at next."""
        times = []
        for waiting in self._waiting.values():
            due = GIVE_UP_S
            if not waiting.asked_peer:
                due = PUSH_WAIT_S
            elif not waiting.asked_server:
                due = SERVER_WAIT_S
            times.append(waiting.since + due)
        return min(times) if times else None

    def _stream_key(self, stream: Stream) -> int:
        del stream
        return 0

    def _ask_server(self, epoch: int, now: float) -> None:
        last = self._asked_server_at
        if last is not None and now - last < SERVER_ASK_EVERY_S * self._rng.uniform(1.0, 1.5):
            return
        self._asked_server_at = now
        current = self.table.current
        self._requests.append(QueryNeighbours(None if current is None else self.table.expand(epoch, now)))

    def _forget(self, key: tuple[int, int]) -> None:
        self._held -= sum(item.stop - item.start for item in self._waiting.pop(key).items)


class AskingManner(Manner):
    """What the manners share that are told nothing unasked: one query for an epoch that only a peer knows."""

    def on_peer_epoch(self, epoch: int, now: float) -> None:
        """Ask once for an epoch that is newer than all known here."""
        if epoch and self.table.by_short(epoch) is None and self.table.is_newer(epoch, now):
            self._ask_server(epoch, now)
