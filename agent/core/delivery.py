"""The bandwidth of a link while data flows over it, from what the peer acknowledges.

Theory of operation. Bytes acknowledged are counted by windows of a quarter of a second, and put over the time in which
they were sent or acknowledged, whichever is longer, so that acknowledgements that come in a bunch make no rate that
never was. A window in which the path was the limit nearly all the time is a measurement; the highest of the last few
counts, for a sender that goes easy for a while proves nothing. Any other window only shows that the path carries at
least so much.

Source:
    draft-cheng-iccrg-delivery-rate-estimation-02.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 0.25
"""Seconds of a window: more than a round trip of most paths, and long against the pauses between two looks."""
WINDOW_PACKETS: Final = 8
"""Acknowledgements of a window at least."""
WINDOWS: Final = 4
"""Windows of which the highest counts: a second, longer than a cycle of the controller on most paths."""
LIMITED: Final = 0.2
"""Share of a window's time in which something else than the path may have been the limit."""
PAUSE_S: Final = 1.0
"""Seconds without an acknowledgement after which what flows is another flow."""
_BITS: Final = 8


class DeliveryMeter:
    """One direction of one link.

    Attributes:
        rate_bps: bits per second of UDP payload; None before anything was measured.
    """

    def __init__(self) -> None:
        self.rate_bps: float | None = None
        self._rates: deque[float] = deque(maxlen=WINDOWS)
        self._began: float | None = None
        self._sent_from = 0.0
        self._last = 0.0
        self._bytes = 0
        self._acks = 0
        self._limited_s = 0.0

    def on_ack(self, size_bytes: int, sent_at: float, now: float, *, limited: bool) -> bool:
        """Take in what one ACK newly acknowledged.

        Args:
            size_bytes: bytes of it.
            sent_at: when the newest of it was sent, monotonic seconds.
            now: monotonic seconds.
            limited: whether something else than the path was the limit.

        Returns:
            Whether the rate was measured anew.
        """
        if self._began is None or now - self._last > PAUSE_S:
            self._rates.clear()
            self._begin(now, sent_at)
            return False
        if limited:
            self._limited_s += now - self._last
        self._last = now
        self._bytes += size_bytes
        self._acks += 1
        if now - self._began < WINDOW_S or self._acks < WINDOW_PACKETS:
            return False
        rate = _BITS * self._bytes / max(now - self._began, sent_at - self._sent_from)
        mostly = self._limited_s > LIMITED * (now - self._began)
        self._begin(now, sent_at)
        return self._take(rate, limited=mostly)

    def _take(self, rate_bps: float, *, limited: bool) -> bool:
        if limited:
            self._rates.clear()
            if self.rate_bps is not None and rate_bps > self.rate_bps:
                self.rate_bps = rate_bps
                return True
            return False
        self._rates.append(rate_bps)
        if len(self._rates) < WINDOWS and (self.rate_bps is None or max(self._rates) < self.rate_bps):
            return False
        self.rate_bps = max(self._rates)
        return True

    def _begin(self, now: float, sent_at: float) -> None:
        self._began = self._last = now
        self._sent_from = sent_at
        self._bytes = self._acks = 0
        self._limited_s = 0.0
