"""What one end of a link measures about it: round-trip time, jitter and loss, smoothed."""

from __future__ import annotations

from typing import Final

from common.frames import Probe

_RTT_GAIN: Final = 1 / 8
_JITTER_GAIN: Final = 1 / 16
_LOSS_GAIN: Final = 1 / 8
_LOSS_SAMPLE_PROBES: Final = 8
"""Probes that one loss sample stands on."""
_MICRO: Final = 1e6


class LinkQos:
    """Smoothed figures of one session, fed by the probes in both directions.

    Source: RFC 6298 (smoothing), RFC 3550 section 6.4.1 (jitter).
    """

    def __init__(self) -> None:
        self.rtt_s: float | None = None
        self.jitter_s = 0.0
        self.loss = 0.0
        self.probes_sent = 0
        self.probes_heard = 0
        self._transit_us: int | None = None
        self._last_probe_us = 0
        self._last_heard_at = 0.0
        self._sample_sent = 0
        self._sample_heard = 0

    def next_probe(self, now: float, promise_s: float, epoch: int) -> Probe:
        """Return the probe to send now, promising the next one within ``promise_s`` seconds.

        Args:
            now: monotonic seconds.
            promise_s: when the next one comes at the latest.
            epoch: low 32 bits of the newest epoch known here; 0 if none is.
        """
        self.probes_sent += 1
        held = now - self._last_heard_at if self._last_probe_us else 0.0
        return Probe(
            sent_us=micros(now),
            echo_us=self._last_probe_us,
            held_us=min(int(held * _MICRO), 0xFFFFFFFF),
            sent=self.probes_sent & 0xFFFFFFFF,
            heard=self.probes_heard & 0xFFFFFFFF,
            next_ms=min(round(promise_s * 1000), 0xFFFF),
            epoch=epoch,
        )

    def on_probe(self, probe: Probe, now: float) -> None:
        """Take a probe of the peer."""
        now_us = micros(now)
        self.probes_heard += 1
        if probe.echo_us:
            self._on_round_trip((now_us - probe.echo_us - probe.held_us) / _MICRO)
        transit = now_us - probe.sent_us
        if self._transit_us is not None:
            difference = abs(transit - self._transit_us) / _MICRO
            self.jitter_s += (difference - self.jitter_s) * _JITTER_GAIN
        self._transit_us = transit
        self._last_probe_us = probe.sent_us
        self._last_heard_at = now
        self._on_heard_by_peer(probe.heard)

    def _on_round_trip(self, sample_s: float) -> None:
        if sample_s < 0:
            return
        if self.rtt_s is None:
            self.rtt_s = sample_s
        else:
            self.rtt_s += (sample_s - self.rtt_s) * _RTT_GAIN

    def _on_heard_by_peer(self, heard: int) -> None:
        """Take how many of our probes the peer heard; the one under way is not counted as lost."""
        sent = self.probes_sent - 1 - self._sample_sent
        if sent < _LOSS_SAMPLE_PROBES:
            return
        arrived = min(max(heard - self._sample_heard, 0), sent)
        self.loss += (1 - arrived / sent - self.loss) * _LOSS_GAIN
        self._sample_sent = self.probes_sent - 1
        self._sample_heard = heard


def micros(now: float) -> int:
    """Return a monotonic clock reading as whole µs, never 0."""
    return int(now * _MICRO) + 1
