"""The manner whose graphs travel with the stream (M12)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from agent.core.events import ControlRequest, QueryGraph
from agent.core.manner import LINKS_WAIT_S, QUERY_LEAST_S, Manner
from agent.core.routing import GraphTable
from common.messages import ChannelSpec

if TYPE_CHECKING:
    from agent.core.stream import Stream


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
