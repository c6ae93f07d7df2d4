"""What round-trip times and losses say about the queue in front of a path's bottleneck: none, ours, or someone else's.

Theory of operation. The lowest round-trip time of a whole round of packets is hardly touched by timers and busy hosts;
what it lies above the lowest ever is a queue that stood all through the round. Our own goes once in every cycle of the
controller, because the controller lets it go. One that stands for longer is kept by others.

Losses say something about the queue only while there is one. What is lost without it is lost by chance, and the same
share is expected by chance with it.

Source:
    RFC 9406 (the end of slow start by delay); Arun and Balakrishnan, "Copa", NSDI 2018, section 2.2 (whose queue).
"""

from math import inf

CLEAR_S = 0.004
"""Seconds above the lowest round-trip time up to which there is no queue: less is timers and busy hosts."""
CLEAR_SHARE = 1 / 8
"""The same as a share of the lowest round-trip time, for a sample by itself: the larger of the two counts."""
RISE_S = 0.01
"""Seconds for which no sample may be as low as before until a queue counts as growing."""
RISE_SAMPLES = 4
"""Samples that this takes at least."""
SHARED_ROUNDS = 12
"""Rounds after which a queue that stood counts as someone else's: a cycle of the controller, and some."""
FULL_LOSS = 0.02
"""Share of lost bytes above which our own queue was full."""
CHANCE_FACTOR = 2.0
"""Losses by chance that a round with a queue may have before the queue counts as full."""
CHANCE_GAIN = 1 / 8
"""Weight of a round in the share that is lost by chance."""


class QueueWatch:
    """Watches one path's bottleneck.

    Attributes:
        risen: Whether the newest sample saw a queue.
        shared: Whether others keep a queue in the bottleneck.
        full: Whether the round that ended last found the queue full.
        queue_s: Seconds of the queue that stood all through that round.
        standing_rounds: Rounds in a row all through which a queue stood.
    """

    __slots__ = (
        "_acked",
        "_by_chance",
        "_lost",
        "_lowest",
        "_risen_at",
        "_risen_samples",
        "full",
        "queue_s",
        "risen",
        "shared",
        "standing_rounds",
    )

    def __init__(self) -> None:
        self.risen = self.shared = self.full = False
        self.queue_s = 0.0
        self._risen_at = 0.0
        self._risen_samples = 0
        self.standing_rounds = 0
        self._by_chance = 0.0
        # This round so far.
        self._acked = 0
        self._lost = 0
        self._lowest = inf

    def on_sample(self, now: float, rtt_s: float, least_s: float) -> None:
        """Take in a round-trip time.

        Args:
            now: Monotonic seconds.
            rtt_s: The sample, seconds.
            least_s: The lowest known of this path, seconds.
        """
        self._lowest = min(self._lowest, rtt_s)
        self.risen = rtt_s > least_s + max(CLEAR_S, CLEAR_SHARE * least_s)
        if not self.risen:
            self._risen_samples = 0
            return
        if not self._risen_samples:
            self._risen_at = now
        self._risen_samples += 1

    def on_bytes(self, acked_bytes: int, lost_bytes: int) -> None:
        """Take in what arrived, and what was lost."""
        self._acked += acked_bytes
        self._lost += lost_bytes

    def grows(self, now: float) -> bool:
        """Tell whether a queue has been there for long enough to be no accident."""
        return self._risen_samples >= RISE_SAMPLES and now - self._risen_at >= RISE_S

    def end_round(self, least_s: float) -> None:
        """Draw the conclusions from a round that is over, and begin the next.

        Args:
            least_s: The lowest round-trip time known of this path, seconds.
        """
        self.full = False
        if self._lowest < inf:
            total = self._acked + self._lost
            self.queue_s = self._lowest - least_s
            if self.queue_s <= CLEAR_S:
                self.standing_rounds = 0
                self._by_chance += CHANCE_GAIN * (self._lost / total - self._by_chance)
            else:
                expected = CHANCE_FACTOR * self._by_chance + (0.0 if self.shared else FULL_LOSS)
                self.full = self._lost > expected * total
                self.standing_rounds += 1
            self.shared = self.standing_rounds > SHARED_ROUNDS
        self._lowest = inf
        self._acked = self._lost = 0
