"""Hysteresis: a value that jitters must not move the tree.

A standing edge gives way only to a candidate that beats it by both margins of the planner, and goes on beating it for
HOLD_S. Nothing is held where holding would cost connection:

- a lost link is not a standing edge, so what replaces it comes at once;
- a link that joins two components comes at once;
- an edge whose link has counted for less than HOLD_S is not held, nor has it a margin: while a group comes up its links
  appear one by one, and the first of them have no claim to stay. So the first tree is the best one, whichever link
  came first.
"""

from collections.abc import Mapping

from common.graph import find_leader
from common.ids import DeviceId, LinkKey
from common.limits import HOLD_S
from server.core.planner import Bias, WeighedLink, plan


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
        self._beaten: dict[LinkKey, float] = {}
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
        settled = {edge: None for edge in alive if now >= links[edge].since + HOLD_S}
        proposed = plan(self._objective, links.values(), Bias(settled))
        kept = dict.fromkeys(proposed)
        # Since when each standing edge has been beaten without a break.
        self._beaten = {edge: self._beaten.get(edge, now) for edge in alive if edge not in kept}
        held = {edge: None for edge, since in self._beaten.items() if now < since + HOLD_S and edge in settled}
        if self._objective == "latency":
            edges = self._settle_whole(alive, proposed, held, links)
        else:
            pinned = {edge: None for edge in alive if edge in kept or edge in held}
            edges = plan(self._objective, links.values(), Bias(settled, pinned)) if held else proposed
        chosen = dict.fromkeys(edges)
        self._beaten = {edge: since for edge, since in self._beaten.items() if edge in chosen}
        self._due = min((since + HOLD_S for edge, since in self._beaten.items() if edge in held), default=None)
        return edges

    def poll_timeout(self) -> float | None:
        """Say when a held edge may give way, in monotonic seconds; None when nothing is held."""
        return self._due

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
