"""Hysteresis: a value that jitters must not move the tree, and one that has fallen must move it soon.

A standing edge gives way only to a candidate that beats it by both margins of the planner, and goes on beating it for
HOLD_S. Such changes are CALM_S apart, whatever the figures do. Where the candidate is twice as good it is no noise:
CLEAR_HOLD_S are enough then, and nothing else is waited for. The same holds for an edge that has become less than half
as good, or three times as long, as it was at its best lately; such an edge has no margin either.

Nothing is held where holding would cost connection, and little while a group comes up:

- a lost link is not a standing edge, so what replaces it comes at once;
- a link that joins two components comes at once;
- an edge whose link has counted for less than HOLD_S is not held, nor has it a margin: while a group comes up its links
  appear one by one, and the first of them have no claim to stay. So the first tree is the best one, whichever link
  came first;
- an edge whose link has counted for less than CALM_S does not wait for CALM_S: its figures are still being found;
- an edge whose link is held down, because it comes and goes, stands only where there is no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.graph import find_leader
from common.ids import DeviceId, LinkKey
from common.limits import CALM_S, CLEAR_HOLD_S, HOLD_S
from server.core.planner import DELAY_MARGIN_S, Bias, WeighedLink, plan

CLEAR_MARGIN: Final = 1.0
"""The share by which a candidate has to beat a standing edge so that it is clear: 20 % of noise on both make half."""
WORSE_RATE: Final = 0.5
"""Share of its best worth below which an edge has clearly become worse."""
WORSE_DELAY: Final = 3.0
"""Factor of its shortest delay above which it has."""
WORSE_DELAY_S: Final = 2 * DELAY_MARGIN_S
"""Seconds by which it has to be longer as well."""


@dataclass(slots=True)
class _Beaten:
    """One standing edge that the planner would replace: since when without a break, and since when clearly."""

    since: float
    clear_since: float | None = None


class Hysteresis:
    """Holds the tree of one objective.

    After each `settle` ask `poll_timeout` when it has to be called again.
    """

    def __init__(self, objective: str) -> None:
        """Start with nothing held.

        Args:
            objective: the objective of the tree.
        """
        self._objective = objective
        self._beaten: dict[LinkKey, _Beaten] = {}
        self._best: dict[LinkKey, tuple[float, float]] = {}
        self._best_at = 0.0
        self._moved_at = float("-inf")
        self._due: float | None = None

    def settle(
        self, standing: tuple[LinkKey, ...], links: Mapping[LinkKey, WeighedLink], *, now: float
    ) -> tuple[LinkKey, ...]:
        """Choose the edges that shall stand from now on.

        Args:
            standing: the edges that stood until now.
            links: the links that count.
            now: monotonic seconds.

        Returns:
            The edges, sorted.
        """
        alive = {edge: None for edge in standing if edge in links}
        self._note_best(alive, links, now)
        settled = {edge: None for edge in alive if now >= links[edge].since + HOLD_S and not links[edge].held}
        favoured = {edge: None for edge in settled if not self._worse(edge, links[edge])}
        proposed = plan(self._objective, links.values(), Bias(favoured))
        kept = dict.fromkeys(proposed)
        self._note_beaten([edge for edge in alive if edge not in kept], favoured, links, now)
        ripe_at = {edge: self._ripe_at(each, links[edge]) for edge, each in self._beaten.items() if edge in settled}
        held = {edge: None for edge, at in ripe_at.items() if now < at}
        if self._objective == "latency":
            edges = self._settle_whole(alive, proposed, held, links)
        else:
            pinned = {edge: None for edge in alive if edge in kept or edge in held}
            edges = plan(self._objective, links.values(), Bias(favoured, pinned)) if held else proposed
        chosen = dict.fromkeys(edges)
        if any(edge not in chosen for edge in settled):
            self._moved_at = now
        self._beaten = {edge: each for edge, each in self._beaten.items() if edge in chosen}
        ripe_at = {edge: self._ripe_at(self._beaten[edge], links[edge]) for edge in held if edge in self._beaten}
        self._due = min((max(at, now) for at in ripe_at.values()), default=None)
        return edges

    def poll_timeout(self) -> float | None:
        """Say when a held edge may give way, in monotonic seconds; None when nothing is held."""
        return self._due

    def _note_best(self, alive: Mapping[LinkKey, None], links: Mapping[LinkKey, WeighedLink], now: float) -> None:
        """Remember how good each standing edge has been at its best lately: half of that is forgotten in CALM_S."""
        left = 0.5 ** ((now - self._best_at) / CALM_S)
        self._best_at = now
        best = {}
        for edge in alive:
            link = links[edge]
            rate, delay = self._best.get(edge, (link.rate_bps, link.delay_s))
            rate = max(link.rate_bps + (rate - link.rate_bps) * left, link.rate_bps)
            best[edge] = rate, min(link.delay_s + (delay - link.delay_s) * left, link.delay_s)
        self._best = best

    def _note_beaten(
        self,
        edges: list[LinkKey],
        favoured: Mapping[LinkKey, None],
        links: Mapping[LinkKey, WeighedLink],
        now: float,
    ) -> None:
        """Remember since when each of the standing edges that the planner would replace is beaten."""
        clear = dict.fromkeys(edges)
        if edges:
            kept = dict.fromkeys(plan(self._objective, links.values(), Bias(favoured, margin=CLEAR_MARGIN)))
            clear = {edge: None for edge in edges if edge not in kept}
        beaten = {}
        for edge in edges:
            each = beaten[edge] = self._beaten.get(edge) or _Beaten(now)
            if edge not in clear:
                each.clear_since = None
            elif each.clear_since is None:
                each.clear_since = now
        self._beaten = beaten

    def _worse(self, edge: LinkKey, link: WeighedLink) -> bool:
        """Whether an edge has clearly become worse than it was."""
        rate, delay = self._best[edge]
        return link.rate_bps < WORSE_RATE * rate or link.delay_s > WORSE_DELAY * delay + WORSE_DELAY_S

    def _ripe_at(self, each: _Beaten, link: WeighedLink) -> float:
        """Return when an edge may give way."""
        at = each.since + HOLD_S
        if self._moved_at >= link.since + CALM_S:
            at = max(at, self._moved_at + CALM_S)
        return at if each.clear_since is None else min(at, each.clear_since + CLEAR_HOLD_S)

    @staticmethod
    def _settle_whole(
        alive: dict[LinkKey, None],
        proposed: tuple[LinkKey, ...],
        held: dict[LinkKey, None],
        links: Mapping[LinkKey, WeighedLink],
    ) -> tuple[LinkKey, ...]:
        """Keep a shortest-path tree as a whole while an edge of it is held and it still connects what can be."""
        if not held or len(alive) < _spanning_edges(links):
            return proposed
        return tuple(alive)


def _spanning_edges(links: Mapping[LinkKey, WeighedLink]) -> int:
    """Count the edges of any spanning forest of the links."""
    leaders: dict[DeviceId, DeviceId] = {}
    count = 0
    for a, b in links:
        leader_a = find_leader(leaders, leaders.setdefault(a, a))
        leader_b = find_leader(leaders, leaders.setdefault(b, b))
        if leader_a != leader_b:
            leaders[leader_b] = leader_a
            count += 1
    return count
