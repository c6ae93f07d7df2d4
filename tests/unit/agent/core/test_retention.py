"""What a message stream keeps: by bytes and by age, oldest first."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.retention import Retention


def test_nothing_expires_while_bytes_and_age_are_within_their_bounds() -> None:
    retention = Retention(100, 10.0)
    for number in range(1, 5):
        retention.on_kept(number, [25], float(number))
    assert retention.expire(11.0) == 0


def test_the_oldest_go_until_the_rest_fits() -> None:
    retention = Retention(100, 10.0)
    for number in range(1, 8):
        retention.on_kept(number, [25], 0.0)
    assert retention.expire(0.0) == 4
    assert retention.expire(0.0) == 0


def test_what_is_too_old_goes_however_small() -> None:
    retention = Retention(100, 10.0)
    retention.on_kept(1, [1], 0.0)
    retention.on_kept(2, [1], 5.0)
    assert retention.expire(10.0) == 0
    assert retention.expire(10.1) == 2
    assert retention.expire(15.1) == 3
    assert retention.expire(99.0) == 0


def test_numbers_that_came_out_of_order_are_left_behind_together() -> None:
    retention = Retention(100, 10.0)
    for number in (5, 3, 9):
        retention.on_kept(number, [1], 0.0)
    assert retention.expire(11.0) == 10


def test_the_chunks_of_a_run_expire_each_by_itself() -> None:
    retention = Retention(100, 10.0)
    retention.on_kept(4, [60, 30, 20, 5], 0.0)
    assert retention.expire(0.0) == 5
    retention.on_kept(8, iter([30, 30]), 1.0)
    assert retention.expire(1.0) == 6
    assert retention.expire(10.5) == 8
    assert retention.expire(11.5) == 10


@given(st.lists(st.tuples(st.lists(st.integers(0, 40), max_size=5), st.floats(0, 3)), max_size=60))
def test_what_remains_is_within_both_bounds(kept: list[tuple[list[int], float]]) -> None:
    retention = Retention(100, 10.0)
    now, lowest, number = 0.0, 1, 1
    all_kept: list[tuple[int, int, float]] = []
    for sizes, pause in kept:
        now += pause
        retention.on_kept(number, sizes, now)
        all_kept.extend((each, size_bytes, now) for each, size_bytes in enumerate(sizes, number))
        number += len(sizes)
        lowest = max(lowest, retention.expire(now))
        left = [each for each in all_kept if each[0] >= lowest]
        assert sum(size for _, size, _ in left) <= 100
        assert all(now - at <= 10.0 for _, _, at in left)
