"""The round-trip time of one hop, as its acknowledgements measure it.

Source:
    RFC 9002 section 5.
"""

from agent.core.acks import GRANULARITY_S, MAX_ACK_DELAY_S

INITIAL_RTT_S = 0.333
"""Seconds taken for the round trip before the first sample (RFC 9002 section 6.2.2)."""

BUSY_S = 0.01
"""Seconds that a busy host may add to a round trip before anybody is to worry: both ends look at busy sockets at
intervals, and share their processors."""


class RttEstimator:
    """The round-trip time of one hop: `latest`, `smoothed`, `variance` and `minimum`, all in seconds.

    Args:
        initial: Seconds taken for the round trip until there is a sample, above 0; a link's probes know better than
            the default.

    Source:
        RFC 9002 section 5.
    """

    __slots__ = ("latest", "minimum", "samples", "smoothed", "variance")

    def __init__(self, initial: float = INITIAL_RTT_S) -> None:
        self.latest = initial
        self.smoothed = initial
        self.variance = initial / 2
        self.minimum = initial
        self.samples = 0

    def update(self, sample: float, ack_delay: float = 0.0) -> None:
        """Take in one sample.

        Args:
            sample: Seconds from sending a packet to its acknowledgement.
            ack_delay: Seconds of it that the receiver says it held the ACK back; believed up to `MAX_ACK_DELAY_S`.

        Source:
            RFC 9002 section 5.3.
        """
        self.latest = sample
        self.samples += 1
        if self.samples == 1:
            self.minimum = self.smoothed = sample
            self.variance = sample / 2
            return
        self.minimum = min(self.minimum, sample)
        adjusted = sample - min(ack_delay, MAX_ACK_DELAY_S)
        if adjusted < self.minimum:
            adjusted = sample
        self.variance += (abs(self.smoothed - adjusted) - self.variance) / 4
        self.smoothed += (adjusted - self.smoothed) / 8

    def pto(self) -> float:
        """Return the seconds without an ACK after which the sender probes, before any backoff.

        Source:
            RFC 9002 section 6.2.1.
        """
        return self.smoothed + max(4 * self.variance, GRANULARITY_S) + MAX_ACK_DELAY_S + BUSY_S
