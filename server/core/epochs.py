"""The epochs that a group keeps: the current graph and those before it.

All of the last EPOCHS_KEPT are kept, and all that were superseded less than EPOCH_AGE_S ago; older ones up to
EPOCHS_MAX as long as the graphs are small.
"""

from dataclasses import dataclass

from common.errors import StaleEpoch
from common.graph import AcyclicGraph
from common.limits import EPOCH_AGE_S, EPOCH_EDGES_MAX, EPOCHS_KEPT, EPOCHS_MAX, MAX_EPOCH
from common.messages import GraphBody
from server.core.snapshot import GraphsRecord, KeptGraph


@dataclass(slots=True)
class _Kept:
    """One graph; `superseded` in monotonic seconds, None for the current one."""

    graph: AcyclicGraph
    superseded: float | None = None


class Epochs:
    """The current graph and those before it, and the rule by which epochs grow."""

    def __init__(self, first: AcyclicGraph) -> None:
        """Start with one graph, or see `restored`."""
        self._kept = [_Kept(first)]
        self.highest_seen = 0

    @classmethod
    def restored(cls, record: GraphsRecord, *, now: float, wall: float) -> "Epochs":
        """Take up what was stored.

        Args:
            record: what was stored.
            now: monotonic seconds.
            wall: unix seconds at `now`.

        Raises:
            DecodeError: a stored graph does not hold together.
        """
        epochs = cls(record.kept[0].graph.to_graph())
        epochs._kept = []
        for kept in record.kept:
            age = 0.0 if kept.superseded_wall is None else max(wall - kept.superseded_wall, 0.0)
            epochs._kept.append(_Kept(kept.graph.to_graph(), now - age))
        epochs._kept[-1].superseded = None
        epochs.highest_seen = record.highest_seen
        return epochs

    @property
    def current(self) -> AcyclicGraph:
        """The graph that holds now."""
        return self._kept[-1].graph

    def next_epoch(self, *, wall: float) -> int:
        """Say which epoch comes next: above all stored and seen ones, and not below the clock in microseconds.

        Args:
            wall: unix seconds.
        """
        return min(max(self.current.epoch + 1, self.highest_seen + 1, int(wall * 1e6)), MAX_EPOCH)

    def advance(self, graph: AcyclicGraph, *, now: float) -> None:
        """Make a graph the current one.

        Args:
            graph: of an epoch above the current one.
            now: monotonic seconds.
        """
        self._kept[-1].superseded = now
        self._kept.append(_Kept(graph))
        self._trim(now)

    def get(self, epoch: int) -> AcyclicGraph:
        """Return a kept graph.

        Raises:
            StaleEpoch: it is not kept.
        """
        for kept in reversed(self._kept):
            if kept.graph.epoch == epoch:
                return kept.graph
        raise StaleEpoch(f"epoch {epoch} is not kept; the current one is {self.current.epoch}")

    def passed(self, epoch: int | None, *, now: float) -> tuple[AcyclicGraph, ...]:
        """List what a subscriber skipped, oldest first: at most EPOCHS_KEPT - 1 epochs before the current one.

        Args:
            epoch: the last one it saw; None if it saw none: then chunks may still be under way to it under the epochs
                that were superseded less than EPOCH_AGE_S ago.
            now: monotonic seconds.
        """
        recent = [
            kept.graph
            for kept in self._kept[:-1]
            if (kept.graph.epoch > epoch if epoch is not None else self._young(kept, now))
        ]
        return tuple(recent[-(EPOCHS_KEPT - 1) :])

    def record(self, *, now: float, wall: float) -> GraphsRecord:
        """Write what has to be stored: the last EPOCHS_KEPT."""
        kept = tuple(
            KeptGraph(
                graph=GraphBody.from_graph(entry.graph),
                superseded_wall=None if entry.superseded is None else wall - (now - entry.superseded),
            )
            for entry in self._kept[-EPOCHS_KEPT:]
        )
        return GraphsRecord(kept=kept, highest_seen=self.highest_seen)

    def _trim(self, now: float) -> None:
        edges = 0
        keep = 0
        for kept in reversed(self._kept[-EPOCHS_MAX:]):
            edges += sum(len(tree.edges) for tree in kept.graph.trees)
            if keep >= EPOCHS_KEPT and not self._young(kept, now) and edges > EPOCH_EDGES_MAX:
                break
            keep += 1
        del self._kept[:-keep]

    @staticmethod
    def _young(kept: _Kept, now: float) -> bool:
        return kept.superseded is None or now - kept.superseded < EPOCH_AGE_S
