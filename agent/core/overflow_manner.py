"""The manner that asks the server when its buffer is full, on a timer, and at a stream's end (M10)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agent.core.events import ControlRequest, QueryNeighbours
from agent.core.manner import LINKS_WAIT_S, QUERY_LEAST_S, AskingManner, Decision, Forwarding
from agent.core.routing import GraphTable, Known
from common.datagrams import PacketType
from common.graph import short_epoch
from common.messages import ChannelSpec

if TYPE_CHECKING:
    from agent.core.stream import Stream

FLUSH_S: Final = 0.05
FLUSH_DELAY_SENSITIVE_S: Final = 0.01
BUFFER_DELAY_SENSITIVE_BYTES: Final = 16 * 1024
NO_GRAPH_WAIT_S: Final = 0.25
"""How long a buffer waits before the server is asked again that had no graph."""
ANSWER_WAIT_S: Final = 2.0
"""How long an answer may take before the newest known epoch serves instead."""


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
