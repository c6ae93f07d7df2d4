"""The manner that asks the server periodically (M9)."""

from __future__ import annotations

import random
from typing import Final

from agent.core.events import ControlRequest, QueryNeighbours
from agent.core.manner import LINKS_WAIT_S, QUERY_LEAST_S, AskingManner
from agent.core.routing import GraphTable
from common.messages import ChannelSpec

QUERY_MOST_TIMES: Final = 4


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
