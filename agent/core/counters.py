"""What crossed one link, by kind."""

from __future__ import annotations

from dataclasses import dataclass

from common.datagrams import PacketType


@dataclass(slots=True)
class HopCounters:
    """What crossed this hop, by kind."""

    chunks_sent: int = 0
    repeats_sent: int = 0
    pulled_sent: int = 0
    chunks_received: int = 0
    duplicates_received: int = 0
    """Chunks held already that came as first crossings: a link carried a chunk twice."""
    repairs_received: int = 0
    """Chunks held already that came as repeats or pulled."""
    data_bytes_sent: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def note_repeated(self, *, first_crossing: bool) -> None:
        """Count a chunk that is held already."""
        if first_crossing:
            self.duplicates_received += 1
        else:
            self.repairs_received += 1

    def note_sent(self, kind: PacketType, count: int) -> None:
        """Count chunks that were sent."""
        if kind is PacketType.DATA:
            self.chunks_sent += count
        elif kind is PacketType.PULLED:
            self.pulled_sent += count
        else:
            self.repeats_sent += count
