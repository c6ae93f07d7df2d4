"""Whose queue stands before the bottleneck, and whether it is full."""

import pytest

from agent.core.queue_watch import CHANCE_GAIN, CLEAR_S, FULL_LOSS, RISE_S, RISE_SAMPLES, SHARED_ROUNDS, QueueWatch

LEAST = 0.02
PACKETS = 100


def end_round(watch: QueueWatch, queue_s: float, *, lost: int = 0, now: float = 0.0) -> None:
    """Let a round pass through all of which a queue stood."""
    watch.on_sample(now, LEAST + queue_s, LEAST)
    watch.on_sample(now, LEAST + queue_s + 0.01, LEAST)
    watch.on_bytes(PACKETS - lost, lost)
    watch.end_round(LEAST)


def test_a_queue_that_stays_for_more_than_a_cycle_is_someone_elses() -> None:
    watch = QueueWatch()
    told = []
    for queue_s in [0.01] * (SHARED_ROUNDS + 2) + [CLEAR_S / 2]:
        end_round(watch, queue_s)
        assert watch.queue_s == pytest.approx(queue_s)
        told.append(watch.shared)
        assert watch.standing_rounds == (len(told) if queue_s > CLEAR_S else 0)
    assert told == [False] * SHARED_ROUNDS + [True, True, False]


def test_a_late_sample_makes_no_queue() -> None:
    watch = QueueWatch()
    for _ in range(2 * SHARED_ROUNDS):
        watch.on_sample(0.0, LEAST + 0.05, LEAST)
        end_round(watch, 0.0)
    assert not watch.shared


def test_our_own_queue_is_full_when_more_than_a_little_is_lost() -> None:
    watch = QueueWatch()
    told = []
    for lost in (int(FULL_LOSS * PACKETS), int(FULL_LOSS * PACKETS) + 1, 0):
        end_round(watch, 0.01, lost=lost)
        told.append(watch.full)
    assert told == [False, True, False]


def test_someone_elses_queue_is_full_when_anything_is_lost() -> None:
    watch = QueueWatch()
    for _ in range(SHARED_ROUNDS + 1):
        end_round(watch, 0.01)
    end_round(watch, 0.01, lost=1)
    assert watch.full


def test_without_a_queue_no_loss_means_a_full_one() -> None:
    watch = QueueWatch()
    end_round(watch, 0.0, lost=PACKETS // 2)
    assert not watch.full


def test_what_is_lost_by_chance_is_expected_with_a_queue_too() -> None:
    watch = QueueWatch()
    for _ in range(round(8 / CHANCE_GAIN)):
        end_round(watch, 0.0, lost=10)
    told = []
    for lost in (20, 30):
        end_round(watch, 0.01, lost=lost)
        told.append(watch.full)
    assert told == [False, True]


def test_a_round_without_a_sample_says_nothing() -> None:
    watch = QueueWatch()
    end_round(watch, 0.01, lost=50)
    watch.on_bytes(PACKETS, PACKETS)
    watch.end_round(LEAST)
    assert not watch.full
    assert watch.queue_s == pytest.approx(0.01)


def test_a_queue_grows_when_no_sample_is_low_any_more() -> None:
    watch = QueueWatch()
    told = []
    for number in range(RISE_SAMPLES + 1):
        above = 0.01 if number < RISE_SAMPLES else 0.001
        watch.on_sample(number * RISE_S, LEAST + above, LEAST)
        told.append((watch.risen, watch.grows(number * RISE_S)))
    assert told == [(True, False)] * (RISE_SAMPLES - 1) + [(True, True), (False, False)]


def test_samples_that_are_late_together_are_one_accident() -> None:
    watch = QueueWatch()
    for _ in range(2 * RISE_SAMPLES):
        watch.on_sample(1.0, LEAST + 0.01, LEAST)
    assert not watch.grows(1.0)
