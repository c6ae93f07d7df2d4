"""The four manners in which a channel learns its next hops (M9 to M12).

Every chunk to be distributed is put before its channel's manner. The manner answers with the epoch to distribute it
by, or keeps it until it knows. What an agent asks of the server follows from the manner alone:

==========  ======================================================  ===============================================
manner      asks the server                                         distributes by
==========  ======================================================  ===============================================
query       periodically, more often while the graph changes (M9)   the epoch the chunk names
overflow    when its buffer is full, on a timer, at stream end (M10)  the answer
subscribe   once; then the pushes keep the local copy fresh (M11)   the epoch the chunk names
embedded    only at the source                                      the graph that travels with the stream (M12)
==========  ======================================================  ===============================================

A chunk that names a newer epoch than any known here waits: 50 ms for a push, then the previous hop is asked, then
the server (jittered, at most once a second); after 1 s the newest known epoch serves.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from agent.core.events import ControlRequest, QueryGraph, QueryNeighbours
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
FLUSH_S: Final = 0.05
FLUSH_DELAY_SENSITIVE_S: Final = 0.01
BUFFER_DELAY_SENSITIVE_BYTES: Final = 16 * 1024
QUERY_LEAST_S: Final = 1.0
QUERY_MOST_TIMES: Final = 4
LINKS_WAIT_S: Final = 0.3
"""How long after a change of links the server is asked what it made of it."""
NO_GRAPH_WAIT_S: Final = 0.25
"""How long a buffer waits before the server is asked again that had no graph."""
ANSWER_WAIT_S: Final = 2.0
"""How long an answer may take before the newest known epoch serves instead."""


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


class SubscribeManner(Manner):
    """M11: without a graph, subscribe; from then on the local copy serves."""

    subscribes = True


class AskingManner(Manner):
    """What the manners share that are told nothing unasked: one query for an epoch that only a peer knows."""

    def on_peer_epoch(self, epoch: int, now: float) -> None:
        """Ask once for an epoch that is newer than all known here."""
        if epoch and self.table.by_short(epoch) is None and self.table.is_newer(epoch, now):
            self._ask_server(epoch, now)


class QueryManner(AskingManner):
    """M9: ask periodically; the period halves when the graph changed and grows while it does not."""

    def __init__(self, spec: ChannelSpec, table: GraphTable, rng: random.Random, now: float) -> None:
        super().__init__(spec, table, rng)
        self._period = min(spec.query_interval_s, QUERY_LEAST_S)
        self._next = now

    def on_graph(self, now: float, *, changed: bool) -> None:
        """Adapt the period."""
        base = self.spec.query_interval_s
        if changed:
            self._period = max(self._period / 2, min(base, QUERY_LEAST_S))
        else:
            self._period = min(self._period * 1.5, base * QUERY_MOST_TIMES)
        self._next = min(self._next, now + self._period)

    def on_links(self, now: float) -> None:
        """Ask a little later, when the server has planned with the change, if there ever was need of a graph."""
        if self.table.current is not None:
            self._next = min(self._next, now + LINKS_WAIT_S)

    def on_failed(self, now: float) -> None:
        """Ask again soon: without any graph a source sends nothing, and the period may be long."""
        pause = min(self.spec.query_interval_s, QUERY_LEAST_S)
        self._next = min(self._next, now + pause * self._rng.uniform(1.0, 1.5))

    def poll_request(self, now: float) -> ControlRequest | None:
        """Return the periodic query when it is due."""
        if now >= self._next:
            self._next = now + self._period * self._rng.uniform(0.9, 1.1)
            return QueryNeighbours()
        return super().poll_request(now)

    def poll_timeout(self) -> float | None:
        """Return when the next query is due, or something waits."""
        waiting = super().poll_timeout()
        return self._next if waiting is None else min(waiting, self._next)


class OverflowManner(AskingManner):
    """M10: hold data to be distributed back until the buffer overflows, then ask, then distribute it by the answer."""

    cut_run = 1
    """Each chunk may be the one that overflows the buffer."""

    def __init__(self, spec: ChannelSpec, table: GraphTable, rng: random.Random) -> None:
        super().__init__(spec, table, rng)
        self._buffer: list[Forwarding] = []
        self._buffer_bytes = 0
        self._flush_at: float | None = None
        self._asked_at: float | None = None
        sensitive = spec.delay_sensitive
        self._most_bytes = min(spec.buffer_bytes, BUFFER_DELAY_SENSITIVE_BYTES) if sensitive else spec.buffer_bytes
        self._flush_s = FLUSH_DELAY_SENSITIVE_S if sensitive else FLUSH_S
        self._answered = False
        self._look_at: float | None = None

    def on_resume(self, now: float) -> None:
        """Ask: what is held here may be missing elsewhere, and no chunk need overflow the buffer again."""
        self._look_at = now

    def on_links(self, now: float) -> None:
        """Ask a little later, when the server has planned with the change, if there ever was need of a graph."""
        if self.table.current is not None:
            self._look_at = now + LINKS_WAIT_S

    def poll_request(self, now: float) -> ControlRequest | None:
        """Return the query that a full buffer, or a change of links, made due."""
        if self._look_at is not None and now >= self._look_at:
            self._look_at = None
            return QueryNeighbours()
        return super().poll_request(now)

    def may_cut(self, stream: Stream) -> bool:
        """Let a source cut while the buffer has room; it never drops."""
        del stream
        return self._asked_at is None and self._buffer_bytes < max(self._most_bytes, 1)

    def admit(self, item: Forwarding, now: float) -> Known | None:
        """Buffer the chunk; ask when that overflows the buffer."""
        self._buffer.append(item)
        self._buffer_bytes += item.size_bytes
        if self._flush_at is None:
            self._flush_at = now + self._flush_s
        if self._buffer_bytes >= self._most_bytes:
            self._ask(now)
        return None

    def on_stream_end(self, now: float) -> None:
        """Ask at once for what is left in the buffer."""
        if self._buffer:
            self._ask(now)

    def on_graph(self, now: float, *, changed: bool) -> None:
        """Take note that the answer came."""
        del now, changed
        if self._asked_at is not None:
            self._answered = True

    def on_failed(self, now: float) -> None:
        """Let the newest known epoch serve; without any, ask again."""
        self._answered = self._asked_at is not None
        if self.table.current is None:
            self._look_at = now + QUERY_LEAST_S

    def release(self, now: float) -> list[Decision]:
        """Return the whole buffer once the answer came, or stayed away for too long."""
        if self._flush_at is not None and now >= self._flush_at and self._asked_at is None:
            self._ask(now)
        late = self._asked_at is not None and now >= self._asked_at + ANSWER_WAIT_S
        if not (self._answered or late):
            return []
        known = self.table.current
        if known is None:
            self._answered = False
            self._asked_at = None
            self._flush_at = now + max(self._flush_s, NO_GRAPH_WAIT_S)
            return []
        out = [(_by_answer(item, known), known) for item in self._buffer]
        self._buffer = []
        self._buffer_bytes = 0
        self._flush_at = self._asked_at = None
        self._answered = False
        return out

    def holds_anything(self) -> bool:
        """Whether chunks wait in the buffer."""
        return bool(self._buffer)

    def poll_timeout(self) -> float | None:
        """Return when the buffer is to be flushed, or its answer given up."""
        due = self._flush_at if self._asked_at is None else self._asked_at + ANSWER_WAIT_S
        if due is None or self._look_at is None:
            return self._look_at if due is None else due
        return min(due, self._look_at)

    def _ask(self, now: float) -> None:
        if self._asked_at is None:
            self._asked_at = now
            self._requests.append(QueryNeighbours())


def _by_answer(item: Forwarding, known: Known) -> Forwarding:
    """Mark a chunk that goes on by another epoch than it came by: it is no first crossing."""
    if item.epoch is None or item.epoch == short_epoch(known.epoch):
        return item
    return replace(item, kind=PacketType.PULLED)


class EmbeddedManner(Manner):
    """M12: the source puts the graph into the stream; relays ask nobody but the previous hop."""

    def __init__(self, spec: ChannelSpec, table: GraphTable, rng: random.Random) -> None:
        super().__init__(spec, table, rng)
        self._next: float | None = None

    def table_of(self, stream: Stream) -> GraphTable:
        """Return the stream's own graphs."""
        return stream.graphs

    def on_source(self, now: float) -> None:
        """Begin to fetch the whole graph: a stream of this channel begins here."""
        if self._next is None:
            self._next = now

    def on_resume(self, now: float) -> None:
        """Fetch the whole graph again."""
        self.on_source(now)

    def on_links(self, now: float) -> None:
        """At the source: fetch the graph a little later, when the server has planned with the change."""
        if self._next is not None and self.table.current is not None:
            self._next = min(self._next, now + LINKS_WAIT_S)

    def on_failed(self, now: float) -> None:
        """Ask again soon: without a graph a source sends nothing."""
        if self._next is not None:
            self._next = min(self._next, now + QUERY_LEAST_S * self._rng.uniform(1.0, 1.5))

    def poll_request(self, now: float) -> ControlRequest | None:
        """At the source: fetch the graph, and look after it periodically."""
        if self._next is None or now < self._next:
            return None
        self._next = now + self.spec.query_interval_s * self._rng.uniform(0.9, 1.1)
        return QueryGraph()

    def poll_timeout(self) -> float | None:
        """Return when the source looks after the graph next, or something waits."""
        waiting = super().poll_timeout()
        if self._next is None or waiting is None:
            return waiting if self._next is None else self._next
        return min(waiting, self._next)

    def _stream_key(self, stream: Stream) -> int:
        return stream.short


def manner_of(spec: ChannelSpec, table: GraphTable, rng: random.Random, now: float) -> Manner:
    """Make the manner that a channel's rules name."""
    if spec.routing == "query":
        return QueryManner(spec, table, rng, now)
    if spec.routing == "overflow":
        return OverflowManner(spec, table, rng)
    if spec.routing == "embedded":
        return EmbeddedManner(spec, table, rng)
    return SubscribeManner(spec, table, rng)
