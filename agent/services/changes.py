"""What changed on this device lately, and when: its links, and the graph it works by."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.core.events import GraphChanged, LinkChanged
from common.ids import DeviceId

CHANGES_KEPT: Final = 512
"""Of each kind; the oldest go first."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A link came to another state.

    Attributes:
        at: when, monotonic seconds.
        peer: the device at its other end.
        state: probing, open, suspect or closed.
    """

    at: float
    peer: DeviceId
    state: str


@dataclass(frozen=True, slots=True)
class GraphChange:
    """A newer graph came into use.

    Attributes:
        at: when, monotonic seconds.
        epoch: its own.
        neighbours: this device's neighbours by objective.
    """

    at: float
    epoch: int
    neighbours: Mapping[str, tuple[DeviceId, ...]]


class Changes:
    """The last changes of each kind, oldest first."""

    def __init__(self) -> None:
        self.links: deque[LinkChange] = deque(maxlen=CHANGES_KEPT)
        self.graphs: deque[GraphChange] = deque(maxlen=CHANGES_KEPT)

    def on_event(self, event: LinkChanged | GraphChanged, *, now: float) -> None:
        """Take down what the core said."""
        match event:
            case LinkChanged():
                self.links.append(LinkChange(now, event.peer, event.state))
            case GraphChanged():
                self.graphs.append(GraphChange(now, event.epoch, event.neighbours))
