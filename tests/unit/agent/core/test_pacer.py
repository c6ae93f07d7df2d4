"""Pacing: bytes trickle in at the rate, in small bursts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.pacer import BURST_S, GATHER_PACKETS, LATE_S, MAX_BURST_BYTES, MIN_RATE_BYTES_S, TRAIN_S, Pacer

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
