"""Chunks and news of streams whose opening has not come yet: held for a moment, while the previous hop is asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.core.hop import Hop
from common.ids import ChannelId, DeviceId
from common.limits import MAX_HELD_CHUNKS, MAX_STREAMS
from common.stream_frames import AskOpening, Have

ASK_EVERY_S: Final = 0.1
HOLD_S: Final = 2.0
"""How long an opening may take before what waited for it is dropped; HAVE and WANT bring it again."""

Held = tuple[Hop, bytes, ChannelId | None]


@dataclass(slots=True)
class _Unknown:
    """One stream without an opening."""

    since: float
    asked_at: float
    chunks: list[Held] = field(default_factory=list)
    news: dict[DeviceId, tuple[Hop, Have]] = field(default_factory=dict)


class Orphans:
    """Holds what waits for an opening, within bounds.

    Args:
        drops: counts what was dropped, by reason.
    """

    def __init__(self, drops: Counter[str]) -> None:
        self._drops = drops
        self._unknown: dict[int, _Unknown] = {}
        self._held = 0

    def hold(self, hop: Hop, short: int, datagram: bytes, channel: ChannelId | None, now: float) -> None:
        """Hold a chunk."""
        unknown = self._of(hop, short, now)
        if unknown is None or self._held >= MAX_HELD_CHUNKS:
            self._drops["chunk-of-unknown-stream"] += 1
            return
        unknown.chunks.append((hop, datagram, channel))
        self._held += 1

    def hold_news(self, hop: Hop, have: Have, now: float) -> None:
        """Hold a HAVE; the newest of each peer counts."""
        unknown = self._of(hop, have.stream, now)
        if unknown is not None:
            unknown.news[hop.peer] = (hop, have)

    def take(self, short: int) -> tuple[list[Held], list[tuple[Hop, Have]]]:
        """Return what waited for a stream whose opening is here now."""
        unknown = self._unknown.pop(short, None)
        if unknown is None:
            return [], []
        self._held -= len(unknown.chunks)
        return unknown.chunks, list(unknown.news.values())

    def waiting(self) -> list[int]:
        """Return the streams (short forms) for which something waits."""
        return list(self._unknown)

    def forget_peer(self, peer: DeviceId) -> None:
        """Drop what a peer sent whose session is gone."""
        for short, unknown in list(self._unknown.items()):
            kept = [held for held in unknown.chunks if held[0].peer != peer]
            self._held -= len(unknown.chunks) - len(kept)
            unknown.chunks = kept
            unknown.news.pop(peer, None)
            if not kept and not unknown.news:
                del self._unknown[short]

    def ask(self, now: float) -> None:
        """Ask again, and drop what waited too long."""
        for short, unknown in list(self._unknown.items()):
            if now - unknown.since > HOLD_S:
                self._held -= len(unknown.chunks)
                self._drops["chunk-of-unknown-stream"] += len(unknown.chunks)
                del self._unknown[short]
            elif now - unknown.asked_at >= ASK_EVERY_S:
                unknown.asked_at = now
                hops = {held[0].peer: held[0] for held in unknown.chunks}
                hops.update({peer: hop for peer, (hop, _) in unknown.news.items()})
                for hop in hops.values():
                    hop.send(AskOpening(short))

    def _of(self, hop: Hop, short: int, now: float) -> _Unknown | None:
        unknown = self._unknown.get(short)
        if unknown is None:
            if len(self._unknown) >= MAX_STREAMS:
                return None
            unknown = self._unknown[short] = _Unknown(now, now)
            hop.send(AskOpening(short))
        return unknown
