"""What waits for one subscriber: bounded, whatever the subscriber does.

State replaces state: of several graphs only the newest waits, and it names those that it passed over; of rosters,
channel lists and datagram sizes the newest. Answers to reports cannot be merged; more than SUBSCRIBER_OUTBOX of them
mean that the subscriber does not read what it asked for.
"""

from collections import deque

from common.limits import EPOCHS_KEPT, SUBSCRIBER_OUTBOX
from common.messages import (
    Channels,
    EpochUpdate,
    GraphUpdate,
    MtuUpdate,
    NeighboursBody,
    NeighboursUpdate,
    Roster,
    ServerMessage,
    Unchanged,
)

_State = Unchanged | GraphUpdate | NeighboursUpdate | EpochUpdate
_PASSED_MAX = EPOCHS_KEPT - 1


class Outbox:
    """The messages that wait for one subscriber."""

    def __init__(self) -> None:
        """Start empty."""
        self._states: deque[_State] = deque()
        self._roster: Roster | None = None
        self._channels: Channels | None = None
        self._mtu: MtuUpdate | None = None
        self._answers: deque[ServerMessage] = deque()

    def __len__(self) -> int:
        """Count the messages that wait."""
        documents = sum(each is not None for each in (self._roster, self._channels, self._mtu))
        return len(self._states) + documents + len(self._answers)

    def offer(self, message: ServerMessage) -> bool:
        """Add a message, merging it with what waits.

        Returns:
            False when there is no room for it: the subscriber is too slow and has to be closed.
        """
        if isinstance(message, Roster):
            self._roster = message
        elif isinstance(message, Channels):
            self._channels = message
        elif isinstance(message, MtuUpdate):
            self._mtu = message
        elif isinstance(message, Unchanged | GraphUpdate | NeighboursUpdate | EpochUpdate):
            self._offer_state(message)
        elif len(self._answers) >= SUBSCRIBER_OUTBOX:
            return False
        else:
            self._answers.append(message)
        return True

    def take(self) -> ServerMessage | None:
        """Take the next message to send: state first, then roster, channels, size, answers; None when nothing waits."""
        if self._states:
            return self._states.popleft()
        roster, channels, mtu = self._roster, self._channels, self._mtu
        if roster is not None:
            self._roster = None
            return roster
        if channels is not None:
            self._channels = None
            return channels
        if mtu is not None:
            self._mtu = None
            return mtu
        return self._answers.popleft() if self._answers else None

    def _offer_state(self, message: _State) -> None:
        merged = merge(self._states[-1], message) if self._states else None
        if merged is not None:
            self._states[-1] = merged
            return
        self._states.append(message)
        # Only epoch updates pile up here. An agent keeps no more epochs than this, so older ones are of no use to it.
        if len(self._states) > EPOCHS_KEPT:
            self._states.popleft()


def merge(old: _State, new: _State) -> _State | None:
    """Put two states that nobody has sent yet into one; None if they have to go one after the other."""
    if isinstance(old, GraphUpdate) and isinstance(new, GraphUpdate):
        graphs = (*old.passed, old.graph, *new.passed)
        return GraphUpdate(graph=new.graph, passed=graphs[-_PASSED_MAX:])
    if isinstance(old, NeighboursUpdate) and isinstance(new, NeighboursUpdate | EpochUpdate):
        trees = old.trees if isinstance(new, EpochUpdate) else new.trees
        further = () if isinstance(new, EpochUpdate) else new.passed
        bodies = (*old.passed, NeighboursBody(epoch=old.epoch, trees=old.trees), *further)
        return NeighboursUpdate(epoch=new.epoch, trees=trees, passed=bodies[-_PASSED_MAX:])
    return None
