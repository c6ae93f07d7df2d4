"""Pacing: bytes trickle in at the rate, in small bursts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.pacer import (
    BURST_S,
    GATHER_PACKETS,
    GATHER_S,
    LATE_S,
    MAX_BURST_BYTES,
    MIN_RATE_BYTES_S,
    TRAIN_S,
    Pacer,
    SharedRate,
)

PACKET = 1_200


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(10_000.0, 2 * PACKET), (12_500_000.0, 12_500_000 * BURST_S), (1e9, MAX_BURST_BYTES)],
    ids=["two packets", "two milliseconds", "64 KiB"],
)
def test_a_burst_is_two_packets_or_two_milliseconds_up_to_64_kib(rate: float, burst: float) -> None:
    pacer = Pacer(rate, 5.0, PACKET)
    assert pacer.rate_bytes_s == rate
    assert pacer.budget(5.0) == pacer.budget(60.0) == pacer.burst_bytes == burst


def test_a_burst_of_giant_packets_is_still_two_of_them() -> None:
    assert Pacer(1e9, 0.0, packet_bytes=40_000).burst_bytes == 80_000


def test_a_sender_that_comes_when_told_to_sends_at_the_rate() -> None:
    pacer = Pacer(1_000_000.0, 0.0, PACKET)
    now, gone = 0.0, 0
    while now < 1.0:
        while pacer.budget(now) >= PACKET:
            pacer.spend(PACKET, now)
            gone += PACKET
        now = pacer.next_at(now)
    assert gone == pytest.approx(1_000_000, rel=0.01)


def test_a_fast_sender_comes_back_once_a_train() -> None:
    pacer = Pacer(12_500_000.0, 0.0, PACKET)
    pacer.spend(pacer.budget(0.0), 0.0)
    assert pacer.next_at(0.0) == pytest.approx(TRAIN_S)
    assert pacer.budget(TRAIN_S) == 12_500
    assert pacer.next_at(TRAIN_S) == TRAIN_S


def test_a_debt_is_paid_off_first() -> None:
    pacer = Pacer(1_000_000.0, 0.0, PACKET)
    pacer.spend(pacer.burst_bytes + 5_000, 0.0)
    assert pacer.budget(0.004) == 0
    assert pacer.next_at(0.004) == pytest.approx(0.005 + 2 * PACKET / 1_000_000)


def test_a_slow_sender_gathers_a_few_packets_to_a_train() -> None:
    pacer = Pacer(2_500_000.0, 0.0, PACKET)
    pacer.spend(pacer.budget(0.0), 0.0)
    assert pacer.next_at(0.0) == pytest.approx(GATHER_PACKETS * PACKET / 2_500_000)


def test_a_late_timer_does_not_lower_the_rate_but_idling_earns_no_more_than_a_burst() -> None:
    pacer = Pacer(10_000_000.0, 0.0, PACKET)
    pacer.spend(pacer.budget(0.0), 0.0)
    pacer.next_at(0.0)
    assert pacer.budget(0.008) == 80_000
    pacer.spend(80_000, 0.008)
    pacer.next_at(0.008)
    assert pacer.budget(60.0) == 10_000_000 * LATE_S
    pacer.spend(100_000, 60.0)
    assert pacer.budget(120.0) == pacer.burst_bytes


def test_a_new_rate_counts_from_when_it_is_set() -> None:
    pacer = Pacer(1_000_000.0, 0.0, PACKET)
    pacer.spend(2 * PACKET, 0.0)
    pacer.set_rate(4_000_000.0, 0.001)
    pacer.set_rate(4_000_000.0, 0.5)
    assert pacer.rate_bytes_s == 4_000_000.0
    assert pacer.budget(0.001) == 1_000
    assert pacer.budget(0.002) == 5_000
    assert pacer.budget(0.001) == 5_000


def test_no_rate_is_so_low_that_a_wait_has_no_end() -> None:
    pacer = Pacer(0.0, 0.0, PACKET)
    pacer.spend(2 * PACKET, 0.0)
    assert pacer.next_at(0.0) == pytest.approx(PACKET / MIN_RATE_BYTES_S)


@given(
    rate=st.floats(1e3, 1e9),
    start=st.floats(0, 1e7),
    packets=st.lists(st.integers(100, PACKET), min_size=1, max_size=50),
)
def test_whoever_waits_as_told_may_send_a_packet_and_never_more_than_the_rate(
    rate: float, start: float, packets: list[int]
) -> None:
    pacer = Pacer(rate, start, PACKET)
    now, gone = start, 0
    for size in packets:
        told = pacer.next_at(now)
        assert told >= now
        now = told
        # A clock that has run for long rounds to some nanoseconds.
        assert pacer.budget(now) >= PACKET - 1 - rate * 1e-8
        pacer.spend(size, now)
        gone += size
        assert gone <= pacer.burst_bytes + (now - start) * rate + rate * 1e-8 * len(packets) + 1


class Senders:
    """Pacers that keep to one rate together, each with as much to send as it may."""

    def __init__(self, rate: float, *own: float) -> None:
        self.now = 0.0
        self.shared = SharedRate(rate, 0.0, PACKET)
        self.pacers = [Pacer(each, 0.0, PACKET, self.shared) for each in own]
        self.gone = [0] * len(own)

    def run(self, until: float, *hungry: int) -> list[int]:
        """Let those with these places send, and return what each sent meanwhile."""
        before = list(self.gone)
        while self.now < until:
            due = until
            for place in hungry:
                pacer = self.pacers[place]
                while pacer.budget(self.now) > 0:
                    pacer.spend(PACKET, self.now)
                    self.gone[place] += PACKET
                due = min(due, pacer.next_at(self.now))
            assert due > self.now
            self.now = due
        return [gone - was for gone, was in zip(self.gone, before, strict=True)]


@pytest.mark.parametrize("rate", [10_000.0, 6_250_000.0, 1e9], ids=["80 kbit/s", "50 Mbit/s", "8 Gbit/s"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_shared_rate_is_kept_and_divided_equally(rate: float, count: int) -> None:
    senders = Senders(rate, *[2 * rate] * count)
    seconds = max(1.0, 400 * PACKET / rate) if rate < 1e8 else 0.05
    gone = senders.run(seconds, *range(count))
    most = rate * seconds + max(2.0 * PACKET, BURST_S * rate) + count * PACKET
    assert 0.99 * rate * seconds <= sum(gone) <= most
    assert max(gone) - min(gone) <= 0.02 * rate * seconds + 2 * PACKET


def test_what_one_does_not_want_of_a_shared_rate_goes_to_the_others() -> None:
    senders = Senders(6_000_000.0, 1_000_000.0, 1e8, 1e8)
    slow, *others = senders.run(2.0, 0, 1, 2)
    assert slow == pytest.approx(2_000_000, rel=0.02)
    assert others == pytest.approx([5_000_000, 5_000_000], rel=0.02)
    assert senders.run(4.0, 1)[1] == pytest.approx(12_000_000, rel=0.02)


def test_whoever_comes_back_to_a_shared_rate_gets_no_more_than_a_late_burst_ahead() -> None:
    senders = Senders(6_000_000.0, 1e8, 1e8)
    senders.run(1.0, 0, 1)
    senders.run(3.0, 0)
    back = senders.run(4.0, 0, 1)
    assert back[1] - back[0] <= 6_000_000 * LATE_S + 2 * PACKET
    assert sum(senders.gone) <= 4 * 6_000_000 * 1.001 + 6_000_000 * (BURST_S + LATE_S)


def test_a_sender_told_to_wait_for_a_shared_rate_may_send_when_it_comes() -> None:
    shared = SharedRate(1_000_000.0, 0.0, PACKET)
    one, other = (Pacer(1e9, 0.0, PACKET, shared) for _ in range(2))
    one.spend(2 * PACKET, 0.0)
    told = [one.next_at(0.0), other.next_at(0.0)]
    # 4 ms of half the rate each, and what they lack comes to both at once.
    assert told == pytest.approx([GATHER_S, GATHER_S], rel=0.6)
    now = max(told)
    assert one.budget(now) >= PACKET
    assert other.budget(now) >= PACKET
    assert other.next_at(now) == now


def test_a_shared_rate_earns_nothing_when_the_clock_stands_still_or_goes_back() -> None:
    pacer = Pacer(1e6, 1.0, PACKET, SharedRate(1e6, 1.0, PACKET))
    pacer.spend(2 * PACKET, 1.0)
    assert pacer.budget(1.0) == pacer.budget(0.5) == 0


def test_idling_earns_a_shared_rate_no_more_than_a_burst_and_a_late_one() -> None:
    rate = 10_000_000.0
    shared = SharedRate(rate, 0.0, PACKET)
    pacer = Pacer(1e9, 0.0, PACKET, shared)
    pacer.spend(pacer.budget(0.0), 0.0)
    pacer.next_at(0.0)
    assert pacer.budget(60.0) == rate * (BURST_S + LATE_S)
    assert Pacer(1e9, 60.0, PACKET, shared).budget(60.0) == rate * BURST_S


def test_a_shared_rate_of_nothing_ends_some_time() -> None:
    pacer = Pacer(1e6, 0.0, PACKET, SharedRate(0.0, 0.0, PACKET))
    pacer.spend(2 * PACKET, 0.0)
    assert pacer.next_at(0.0) == pytest.approx(PACKET / MIN_RATE_BYTES_S)
