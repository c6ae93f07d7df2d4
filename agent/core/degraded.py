"""Whether a device has to do without an edge of its graph, and what it says of that to others.

Theory of operation. A graph is a tree: where one of its edges is gone, what lies behind it gets nothing more, until the
server puts another edge in its place. Usually that takes a fraction of a second. It may not come at all: the server is
away, or this device cannot reach it. Then the open links outside the tree have to serve, although nobody here knows
which of them lead across the gap. So those who know of a gap use all of them: what is missing is pulled from whoever
has it, and small messages are flooded (see ``neighbourhood``, ``exchange`` and ``flooding``). That is dearer than a
tree and never needed for long, so it is entered late and left at once:

- an edge of the newest graph whose link is silent or closed counts as *lost* after `GRAPH_WAIT_S` without a newer
  graph, or after `AWAY_WAIT_S` where no server is there to send one;
- it counts as lost no more when a newer graph is there, or the link is back.

A gap concerns everybody, not only the two devices that see it: a link that leads across may be anywhere. Whoever has
lost an edge therefore says so, and everybody passes that on over every open link, once (LostEdges). A word names its
epoch, for it says nothing of another graph; it has a stamp, so that the newer one counts; it is said again every
`SAY_EVERY_S` and counts for no more than `FORGET_S`. Its stamp is remembered for longer, lest two devices that heard of
it at different times tell each other again and again: nothing outlives the device that said it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Final

from common.graph_frames import LostEdges
from common.ids import DeviceId, LinkKey, link_key
from common.limits import EPOCH_CLAIM_AHEAD_S, MAX_LOST_EDGES, MAX_LOST_WORDS

GRAPH_WAIT_S: Final = 1.0
"""How long a server that is there may take to replace an edge: ten times what it needs."""
AWAY_WAIT_S: Final = 0.25
"""The same without a server: a link that was only suspected for a moment is not worth telling everybody."""
SAY_EVERY_S: Final = 5.0
FORGET_S: Final = 16.0
"""How long a word counts that is not said again: three times, and a little."""
REMEMBER_S: Final = 4 * FORGET_S
"""How long its stamp is remembered, so that it is no news."""
_MICRO: Final = 1e6

Said = tuple[DeviceId, int]
"""Who said a word, and of which epoch."""


@dataclass(slots=True)
class _Own:
    """What this device says of one epoch's edges.

    Attributes:
        gone_at: when each edge was first seen to be gone, by the peer at its other end.
        lost: the peers to whom an edge counts as lost.
        said_at: when that was last said; None while it never was.
    """

    gone_at: dict[DeviceId, float] = field(default_factory=dict)
    lost: tuple[DeviceId, ...] = ()
    said_at: float | None = None


class Degraded:
    """Keeps what is known of lost edges.

    Args:
        device: this device.
        wall_offset: unix time minus monotonic time, seconds: stamps go on rising through a restart.

    Attributes:
        since: when this device last came to know of a lost edge while it knew of none, monotonic seconds.
        chunks_pulled: chunks that came because they were asked for, while an edge was lost.
        messages_flooded: messages sent on over links outside the tree.
    """

    def __init__(self, device: DeviceId, wall_offset: float) -> None:
        self.since: float | None = None
        self.chunks_pulled = 0
        self.messages_flooded = 0
        self._device = device
        self._wall_offset = wall_offset
        self._own: dict[int, _Own] = {}
        self._words: dict[Said, LostEdges] = {}
        self._heard_at: dict[Said, float] = {}
        self._forgotten: dict[Said, tuple[int, float]] = {}
        """The stamps of words that count no more, and since when."""
        self._oldest = 0
        self._stamp = 0
        self._connected = False
        self._own_epochs: frozenset[int] = frozenset()
        self._told_up_to = -1
        self._due: float | None = None

    # --- inputs ---------------------------------------------------------------------------------------------------

    def look(self, gone: Mapping[int, tuple[DeviceId, ...]], now: float, *, connected: bool) -> None:
        """Take what this device sees of its own edges.

        Args:
            gone: for every epoch in use here, the peers to whom an edge is gone.
            now: monotonic seconds.
            connected: whether a server is there that may send a newer graph.
        """
        self._connected = connected
        for epoch in [epoch for epoch in self._own if epoch not in gone]:
            del self._own[epoch]
        for epoch, peers in gone.items():
            own = self._own.setdefault(epoch, _Own())
            own.gone_at = {peer: own.gone_at.get(peer, now) for peer in peers}
        self._oldest = min(gone, default=0)
        self._forgotten = {said: (stamp, at) for said, (stamp, at) in self._forgotten.items() if now < at + REMEMBER_S}
        for said, word in list(self._words.items()):
            if word.epoch < self._oldest or now >= self._heard_at[said] + FORGET_S:
                self._forgotten[said] = word.stamp, now
                del self._words[said], self._heard_at[said]
        wait = self._wait()
        for own in self._own.values():
            lost = tuple(peer for peer, at in sorted(own.gone_at.items()) if peer in own.lost or now >= at + wait)
            if lost != own.lost:
                own.lost = lost
                own.said_at = None if lost else own.said_at
        self._sum_up(now)

    def is_news(self, word: LostEdges) -> bool:
        """Tell whether a word is another device's, and newer than what it said of that epoch before."""
        said = word.device, word.epoch
        before = self._words.get(said)
        newest = self._forgotten.get(said, (-1, 0.0))[0] if before is None else before.stamp
        return word.device != self._device and newest < word.stamp

    def on_word(self, word: LostEdges, now: float) -> bool:
        """Take another device's word; return whether it is news, to be passed on."""
        if not self.is_news(word):
            return False
        said = word.device, word.epoch
        before = self._words.get(said)
        kept: Sized = self._forgotten if word.epoch < self._oldest else self._words
        if before is None and len(kept) >= MAX_LOST_WORDS:
            return False
        if word.epoch < self._oldest:
            # It says nothing here, but may concern those who have an older graph.
            self._forgotten[said] = word.stamp, now
            return True
        self._words[said] = word
        self._heard_at[said] = now
        self._sum_up(now)
        return True

    def latest(self, now: float) -> int:
        """Return the highest epoch, or stamp, that a word may have: both are µs of a clock, and clocks differ."""
        return int((now + self._wall_offset + EPOCH_CLAIM_AHEAD_S) * _MICRO)

    # --- outputs --------------------------------------------------------------------------------------------------

    def bridges(self, epoch: int) -> bool:
        """Whether some edge of this epoch's graph, or of a newer one that is not known here yet, is lost."""
        return epoch <= self._told_up_to or epoch in self._own_epochs

    def edges(self) -> tuple[LinkKey, ...]:
        """Return the edges that are known to be lost, as far as they were named."""
        found = {link_key(self._device, peer) for own in self._own.values() for peer in own.lost}
        found.update(link_key(word.device, peer) for word in self._words.values() for peer in word.peers)
        return tuple(sorted(found))

    def words(self) -> list[LostEdges]:
        """Return all that is known, for a peer that was not there when it was said."""
        own = [self._word(epoch, own) for epoch, own in self._own.items() if own.lost]
        return own + [word for word in self._words.values() if word.peers]

    def poll_words(self, now: float) -> list[LostEdges]:
        """Return what this device has to say now."""
        found = []
        for epoch, own in self._own.items():
            if own.lost and (own.said_at is None or now >= own.said_at + SAY_EVERY_S):
                self._stamp = max(self._stamp + 1, int((now + self._wall_offset) * _MICRO))
                own.said_at = now
                found.append(self._word(epoch, own))
            elif not own.lost and own.said_at is not None:
                self._stamp += 1
                own.said_at = None
                found.append(self._word(epoch, own))
        self._note_due()
        return found

    def poll_timeout(self) -> float | None:
        """Return when `look` and `poll_words` are due."""
        return self._due

    # --- inside ---------------------------------------------------------------------------------------------------

    def _wait(self) -> float:
        return GRAPH_WAIT_S if self._connected else AWAY_WAIT_S

    def _sum_up(self, now: float) -> None:
        self._own_epochs = frozenset(epoch for epoch, own in self._own.items() if own.lost)
        self._told_up_to = max((word.epoch for word in self._words.values() if word.peers), default=-1)
        if not self._own_epochs and self._told_up_to < 0:
            self.since = None
        elif self.since is None:
            self.since = now
        self._note_due()

    def _note_due(self) -> None:
        wait = self._wait()
        times = [at + FORGET_S for at in self._heard_at.values()]
        for own in self._own.values():
            times += [at + wait for peer, at in own.gone_at.items() if peer not in own.lost]
            if own.said_at is not None:
                times.append(own.said_at + SAY_EVERY_S)
        self._due = min(times, default=None)

    def _word(self, epoch: int, own: _Own) -> LostEdges:
        return LostEdges(self._device, self._stamp, epoch, own.lost[:MAX_LOST_EDGES])
