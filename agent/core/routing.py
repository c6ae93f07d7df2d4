"""Which neighbours a chunk goes to: the graphs that this device knows, by epoch.

A device may know a whole graph, or only its own neighbours in it; for forwarding the two are the same. The hop
header carries the low 32 bits of an epoch; the table resolves them. Agents keep the last 8 epochs and all younger
than 30 s, at most 64.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.datagrams import expand_number
from common.graph import AcyclicGraph, short_epoch
from common.ids import DeviceId
from common.limits import EPOCH_AGE_S, EPOCHS_KEPT, EPOCHS_MAX
from common.messages import GraphBody, NeighboursBody

_MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Known:
    """What this device knows of one epoch.

    Attributes:
        epoch: the whole epoch.
        objectives: what each tree serves, by tree index.
        neighbours: this device's neighbours by tree index, each sorted.
        graph: the whole graph, if that was learnt.
        learned_at: when, monotonic seconds.
    """

    epoch: int
    objectives: tuple[str, ...]
    neighbours: tuple[tuple[DeviceId, ...], ...]
    graph: AcyclicGraph | None
    learned_at: float

    def tree_for(self, objective: str) -> int:
        """Return the tree that serves an objective; 0 where none does."""
        return self.objectives.index(objective) if objective in self.objectives else 0

    def in_tree(self, tree: int) -> tuple[DeviceId, ...]:
        """Return the neighbours in one tree; none where the tree is not known."""
        return self.neighbours[tree] if tree < len(self.neighbours) else ()

    def next_hops(self, tree: int, previous: DeviceId | None) -> tuple[DeviceId, ...]:
        """Return the neighbours in one tree minus the previous hop (M8)."""
        return tuple(peer for peer in self.in_tree(tree) if peer != previous)

    def all_neighbours(self) -> tuple[DeviceId, ...]:
        """Return the neighbours over all trees, sorted, each once."""
        return tuple(sorted(dict.fromkeys(peer for tree in self.neighbours for peer in tree)))


class GraphTable:
    """The epochs that a device knows; the newest is the current one.

    Args:
        device: whose neighbours to look up in whole graphs.
        wall_offset: unix time minus monotonic time, seconds: epochs follow the clock, so it tells which 2^32 µs a short
            form is from.
    """

    def __init__(self, device: DeviceId, wall_offset: float) -> None:
        self._device = device
        self._wall_offset = wall_offset
        self._known: dict[int, Known] = {}
        self.current: Known | None = None

    @property
    def epoch(self) -> int | None:
        """The newest epoch known here."""
        return None if self.current is None else self.current.epoch

    def learn_graph(self, graph: AcyclicGraph, now: float) -> bool:
        """Take a whole graph; return whether it is newer than all before."""
        neighbours = tuple(graph.neighbours(self._device, tree) for tree in range(len(graph.trees)))
        objectives = tuple(tree.objective for tree in graph.trees)
        return self._learn(Known(graph.epoch, objectives, neighbours, graph, now))

    def learn_body(self, body: GraphBody | NeighboursBody, now: float) -> bool:
        """Take the server's answer to a query (M4), or one of the epochs a push passed over.

        Raises:
            DecodeError: a whole graph that does not hold together.
        """
        if isinstance(body, GraphBody):
            return self.learn_graph(body.to_graph(), now)
        return self._learn(
            Known(
                body.epoch,
                tuple(tree.objective for tree in body.trees),
                tuple(tuple(sorted(tree.neighbours)) for tree in body.trees),
                None,
                now,
            )
        )

    def learn_epoch(self, epoch: int, now: float) -> bool:
        """Take the news that a newer epoch leaves this device's neighbours as they were (M5)."""
        if self.current is None:
            return False
        current = self.current
        return self._learn(Known(epoch, current.objectives, current.neighbours, None, now))

    def get(self, epoch: int) -> Known | None:
        """Return what is known of a whole epoch."""
        return self._known.get(short_epoch(epoch))

    def by_short(self, short: int) -> Known | None:
        """Return what is known of the epoch with these low 32 bits."""
        return self._known.get(short)

    def is_newer(self, short: int, now: float) -> bool:
        """Tell whether an epoch's short form is newer than the current one (or nothing is known yet)."""
        return self.current is None or self.expand(short, now) > self.current.epoch

    def expand(self, short: int, now: float) -> int:
        """Return the epoch with these low 32 bits that is nearest to the clock in µs.

        The clock is this device's, or the server's as the current epoch tells it, whichever is ahead: a device may
        have started with a wrong clock, and the current epoch may be hours old.
        """
        clock = int((now + self._wall_offset) * _MICRO)
        if self.current is not None:
            clock = max(clock, self.current.epoch + int((now - self.current.learned_at) * _MICRO))
        return expand_number(short, max(clock, 0))

    def _learn(self, known: Known) -> bool:
        short = short_epoch(known.epoch)
        before = self._known.get(short)
        if before is not None and (before.graph is not None or known.graph is None):
            return False
        self._known[short] = known
        newer = self.current is None or known.epoch > self.current.epoch
        if newer or (before is not None and before is self.current):
            self.current = known
        self._prune(known.learned_at)
        return newer

    def _prune(self, now: float) -> None:
        by_age = sorted(self._known.values(), key=lambda known: -known.epoch)
        for rank, known in enumerate(by_age):
            old = rank >= EPOCHS_KEPT and now - known.learned_at > EPOCH_AGE_S
            if old or rank >= EPOCHS_MAX:
                del self._known[short_epoch(known.epoch)]
