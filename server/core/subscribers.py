"""The subscribers of a group: what each one is told, and when (M5).

A push is queued here and taken with `poll`. Messages that go to many are one object, so that a shell can encode them
once.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from common.graph import AcyclicGraph
from common.ids import DeviceId
from common.limits import MAX_SUBSCRIBERS_PER_DEVICE
from common.messages import (
    EpochUpdate,
    ErrorMessage,
    GraphBody,
    GraphUpdate,
    NeighboursBody,
    NeighboursUpdate,
    ServerMessage,
    Unchanged,
)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One open subscription; `device` is None for the administrator's, `instance` for who does not name its run."""

    device: DeviceId | None
    scope: Literal["graph", "neighbours", "roster"]
    instance: str | None = None


class Subscribers:
    """Who is subscribed, what waits for them, and who has to be closed."""

    def __init__(self) -> None:
        """Start with none."""
        self._subscribers: dict[int, Subscriber] = {}
        self._by_device: dict[DeviceId, list[int]] = {}
        self._pushes: deque[tuple[int, ServerMessage]] = deque()
        self._closed: deque[tuple[int, ErrorMessage]] = deque()

    def __len__(self) -> int:
        """Count the open subscriptions."""
        return len(self._subscribers)

    def viewers(self) -> int:
        """Count the open subscriptions of nobody's device."""
        return len(self._subscribers) - sum(map(len, self._by_device.values()))

    def __contains__(self, subscriber: object) -> bool:
        """Tell whether a subscriber is there."""
        return subscriber in self._subscribers

    def add(
        self,
        subscriber: int,
        who: Subscriber,
        current: AcyclicGraph,
        *,
        unchanged: bool,
        passed: tuple[AcyclicGraph, ...],
    ) -> None:
        """Take a subscriber in and queue its first answer.

        Args:
            subscriber: a number that the shell chose.
            who: whose it is and what it asks for.
            current: the graph that holds now.
            unchanged: the subscriber has this graph already.
            passed: the graphs that it skipped, oldest first.
        """
        self.remove(subscriber)
        self._subscribers[subscriber] = who
        if who.device is not None:
            own = self._by_device.setdefault(who.device, [])
            own.append(subscriber)
            if len(own) > MAX_SUBSCRIBERS_PER_DEVICE:
                detail = f"a device may have {MAX_SUBSCRIBERS_PER_DEVICE} subscriptions; newer ones took over"
                self.close(own[0], ErrorMessage(reason="superseded", detail=detail))
        if who.scope != "roster":
            self.push((subscriber,), Unchanged(epoch=current.epoch) if unchanged else state_for(who, current, passed))

    def remove(self, subscriber: int) -> None:
        """Forget a subscriber; what waits for it is dropped."""
        who = self._subscribers.pop(subscriber, None)
        if who is not None and who.device is not None:
            own = self._by_device[who.device]
            own.remove(subscriber)
            if not own:
                del self._by_device[who.device]

    def is_subscribed(self, device: DeviceId, *, but: str | None = None) -> bool:
        """Tell whether a device has a subscription that names its run of the agent, as another than one."""
        instances = {self._subscribers[number].instance for number in self._by_device.get(device, ())}
        return bool(instances - {None, but})

    def close(self, subscriber: int, last_word: ErrorMessage) -> None:
        """Forget a subscriber and have the shell close it with a reason."""
        self.remove(subscriber)
        self._closed.append((subscriber, last_word))

    def close_device(self, device: DeviceId, last_word: ErrorMessage) -> None:
        """Close every subscription of a device."""
        for subscriber in tuple(self._by_device.get(device, ())):
            self.close(subscriber, last_word)

    def push(self, subscribers: Iterable[int], message: ServerMessage) -> None:
        """Queue one message for some subscribers."""
        self._pushes.extend((subscriber, message) for subscriber in subscribers)

    def push_to_devices(self, message: ServerMessage) -> None:
        """Queue one message for every subscriber that is a device: keys are not for the administrator's page."""
        self.push((number for number, who in self._subscribers.items() if who.device is not None), message)

    def graph_changed(self, before: AcyclicGraph, after: AcyclicGraph) -> None:
        """Queue what a new epoch means to each subscriber.

        Args:
            before: the graph that held until now.
            after: the graph that holds now.
        """
        if not self._subscribers:
            return
        whole = GraphUpdate(graph=GraphBody.from_graph(after))
        shorter = EpochUpdate(epoch=after.epoch)
        for number, who in self._subscribers.items():
            if who.scope == "roster":
                continue
            if who.device is None or who.scope == "graph":
                self._pushes.append((number, whole))
                continue
            same = _same_neighbours(before, after, who.device)
            self._pushes.append((number, shorter if same else state_for(who, after, ())))

    def poll(self) -> tuple[int, ServerMessage] | None:
        """Take the next message to send; None when there is none."""
        while self._pushes:
            subscriber, message = self._pushes.popleft()
            if subscriber in self._subscribers:
                return subscriber, message
        return None

    def poll_closed(self) -> tuple[int, ErrorMessage] | None:
        """Take the next subscriber to close, with its last word; None when there is none."""
        return self._closed.popleft() if self._closed else None


def _same_neighbours(before: AcyclicGraph, after: AcyclicGraph, device: DeviceId) -> bool:
    """Tell whether a device's neighbours are the same in every tree of two graphs."""
    if [tree.objective for tree in before.trees] != [tree.objective for tree in after.trees]:
        return False
    return all(before.neighbours(device, tree) == after.neighbours(device, tree) for tree in range(len(after.trees)))


def state_for(
    who: Subscriber, current: AcyclicGraph, passed: tuple[AcyclicGraph, ...]
) -> GraphUpdate | NeighboursUpdate:
    """Write the current state and the skipped ones as a subscriber asked for them."""
    if who.device is None or who.scope == "graph":
        return GraphUpdate(
            graph=GraphBody.from_graph(current), passed=tuple(GraphBody.from_graph(graph) for graph in passed)
        )
    now = NeighboursBody.from_graph(current, who.device)
    device = who.device
    return NeighboursUpdate(
        epoch=now.epoch, trees=now.trees, passed=tuple(NeighboursBody.from_graph(graph, device) for graph in passed)
    )
