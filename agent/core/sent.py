"""What one hop has sent, as its recovery remembers it, and what an acknowledgement says of it."""

from dataclasses import dataclass, field
from typing import NamedTuple


class SentTrain:
    """Consecutive packets of one size that were sent at once.

    Attributes:
        number: The first one's hop number.
        count: How many.
        sent_at: Monotonic seconds.
        size: Bytes of each datagram.
        content: Whatever the caller wants back when packets are acknowledged or lost.
        delivered: Bytes that had been acknowledged on this hop when they were sent.
        delivered_at: When the last of those was acknowledged, monotonic seconds.
        first_sent_at: When the packet was sent whose acknowledgement that was, monotonic seconds.
        app_limited: Whether the sender had too little to send just then.
        flight_bytes: Bytes in flight before them.
    """

    __slots__ = (
        "app_limited",
        "content",
        "count",
        "delivered",
        "delivered_at",
        "first_sent_at",
        "flight_bytes",
        "number",
        "sent_at",
        "size",
    )

    def __init__(
        self,
        number: int,
        count: int,
        sent_at: float,
        size: int,
        content: object,
        delivered: int,
        delivered_at: float,
        first_sent_at: float,
        app_limited: bool,
        flight_bytes: int = 0,
    ) -> None:
        self.number = number
        self.count = count
        self.sent_at = sent_at
        self.size = size
        self.content = content
        self.delivered = delivered
        self.delivered_at = delivered_at
        self.first_sent_at = first_sent_at
        self.app_limited = app_limited
        self.flight_bytes = flight_bytes


class SentRange(NamedTuple):
    """Consecutive packets of one train.

    Attributes:
        train: Theirs.
        start: The first one's hop number.
        stop: One past the last one's.
    """

    train: SentTrain
    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """Bytes of their datagrams."""
        return self.train.size * (self.stop - self.start)

    @property
    def offset(self) -> int:
        """How many packets of the train come before them."""
        return self.start - self.train.number


@dataclass(slots=True)
class AckResult:
    """What one ACK changed.

    Attributes:
        acked: Packets newly acknowledged, lowest number first.
        lost: Packets that this ACK shows to be lost; their content is to be sent again.
        late: Packets that had been declared lost and did arrive, lowest number first; if their content still waits to
            be sent again, it need not be.
        newly_acked_bytes: Bytes of `acked` and `late`.
        lost_bytes: Bytes of `lost`.
        rtt_sampled: Whether the round-trip time was measured.
        delivered: Bytes acknowledged on this hop so far.
        prior_delivered: Bytes acknowledged when the newest packet of `acked` was sent.
        delivery_rate: Bytes per second delivered between the two; 0 if it could not be measured.
        app_limited: Whether that packet was sent while the sender had too little to send.
    """

    acked: list[SentRange] = field(default_factory=list)
    lost: list[SentRange] = field(default_factory=list)
    late: list[SentRange] = field(default_factory=list)
    newly_acked_bytes: int = 0
    lost_bytes: int = 0
    rtt_sampled: bool = False
    delivered: int = 0
    prior_delivered: int = 0
    delivery_rate: float = 0.0
    app_limited: bool = False
