"""One direction of a simulated link: rate, queue, delay and faults.

Theory of operation. What happens to a datagram is worked out when it is sent: when the pipe is free for it, whether the
queue before it has room, whether it is lost, when it arrives. No timer runs for it.

Losses come by Gilbert's model: a pipe is good or bad, and what it carries while it is bad is lost. That changes as time
passes, whether or not anything is sent. With bursts of one, each datagram is lost by itself.

A datagram that is larger than the MTU vanishes before it takes up any of the pipe, as it does at an interface that must
not cut it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from lab.scenario import ETHERNET_MTU_BYTES, LinkFigures

HEADERS_BYTES: Final = 28  # IPv4 (20) and UDP (8): an MTU counts IP packets.
FRAME_BYTES: Final = 42  # Ethernet (14), IPv4 (20) and UDP (8) headers: a link's rate counts whole frames.
REORDER_S: Final = 0.002  # At least this much later comes a datagram that is to be overtaken.


class Pipe:
    """One direction of a link.

    Attributes:
        figures: What it does to datagrams now.
        sent: Datagrams that were to go through it.
        dropped: Those that found the queue full.
        lost: Those that were lost by chance.
        oversize: Those that were larger than it takes.
    """

    __slots__ = (
        "_bad",
        "_last_arrival",
        "_looked_at",
        "_next_free",
        "_rng",
        "dropped",
        "figures",
        "lost",
        "oversize",
        "sent",
    )

    def __init__(self, figures: LinkFigures, rng: random.Random) -> None:
        """Make an empty pipe.

        Args:
            figures: What it does to datagrams.
            rng: Loss, jitter, duplication and reordering follow from it.
        """
        self.figures = figures
        self.sent = 0
        self.dropped = 0
        self.lost = 0
        self.oversize = 0
        self._rng = rng
        self._bad = False
        self._next_free = 0.0
        self._last_arrival = 0.0
        self._looked_at = 0.0

    def carry(self, datagrams: Sequence[bytes], now: float) -> list[tuple[float, bytes]]:
        """Send a train through.

        Args:
            datagrams: UDP payloads in order.
            now: Simulated seconds.

        Returns:
            What arrives, each copy with its time.
        """
        figures = self.figures
        byte_s = 8.0 / figures.rate_bps
        queue_s = (figures.queue_bytes or figures.default_queue_bytes) * byte_s
        most = (figures.mtu_bytes or ETHERNET_MTU_BYTES) - HEADERS_BYTES
        delay_s = figures.delay_s
        faulty = bool(figures.jitter_s or figures.loss or figures.duplicate or figures.reorder)
        free = self._next_free if self._next_free > now else now
        arriving: list[tuple[float, bytes]] = []
        self.sent += len(datagrams)
        for datagram in datagrams:
            if len(datagram) > most:
                self.oversize += 1
                continue
            paid = free + (len(datagram) + FRAME_BYTES) * byte_s
            sent = max(paid - figures.bucket_s, now)
            if sent - now > queue_s:
                self.dropped += 1
                continue
            free = paid
            if faulty:
                self._faults(sent, datagram, arriving)
            else:
                arriving.append((sent + delay_s, datagram))
        self._next_free = free
        return arriving

    def _faults(self, sent: float, datagram: bytes, arriving: list[tuple[float, bytes]]) -> None:
        figures, draw = self.figures, self._rng.random
        if figures.loss and self._loses(sent):
            self.lost += 1
            return
        arrival = sent + figures.delay_s
        if figures.jitter_s:
            arrival += draw() * figures.jitter_s
        if figures.reorder and draw() < figures.reorder:
            arrival += _held_back_s(figures, draw())
        else:
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        arriving.append((arrival, datagram))
        if figures.duplicate and draw() < figures.duplicate:
            arriving.append((arrival + draw() * REORDER_S, datagram))

    def _loses(self, at: float) -> bool:
        """Tell whether a datagram that has been sent at a time, not before the last one, gets lost.

        Source: E. N. Gilbert, Capacity of a burst-noise channel, 1960: the chain whose bad state loses everything; a
        step of it is a full datagram at the link's rate.
        """
        chance, burst = self.figures.loss, self.figures.burst
        if burst * (1.0 - chance) > 1.0:
            steps = (at - self._looked_at) / _full_s(self.figures)
            kept = (1.0 - 1.0 / (burst * (1.0 - chance))) ** steps
            chance += (float(self._bad) - chance) * kept
            self._looked_at = at
        self._bad = self._rng.random() < chance
        return self._bad


def _held_back_s(figures: LinkFigures, draw: float) -> float:
    """Return for how long a datagram is held back so that later ones overtake it.

    Args:
        figures: The link's.
        draw: From 0 to 1.
    """
    if figures.reorder_by:
        return draw * figures.reorder_by * _full_s(figures)
    return REORDER_S + draw * max(REORDER_S, figures.delay_s)


def _full_s(figures: LinkFigures) -> float:
    """Return how long a full datagram takes at the link's rate."""
    return (ETHERNET_MTU_BYTES - HEADERS_BYTES + FRAME_BYTES) * 8.0 / figures.rate_bps
