"""The bound of the window after full queues."""

from math import inf

import pytest

from agent.core.ceiling import BACKOFF, GROWTH_ALONE, GROWTH_PACKETS, Ceiling

PACKET = 1_200
FLIGHT = 100 * PACKET


def end_round(ceiling: Ceiling, *, full: bool = False, shared: bool = False, least: float = 0.0) -> float:
    ceiling.on_flight(FLIGHT)
    ceiling.on_flight(FLIGHT // 2)
    ceiling.end_round(full=full, shared=shared, least_bytes=least)
    return ceiling.bytes


def cut() -> Ceiling:
    ceiling = Ceiling(PACKET)
    assert end_round(ceiling) == inf
    assert end_round(ceiling, full=True) == pytest.approx(BACKOFF * FLIGHT)
    return ceiling


def test_a_full_queue_lowers_it_to_a_part_of_what_was_in_flight() -> None:
    cut()


def test_the_round_after_a_cut_makes_no_other() -> None:
    ceiling = cut()
    ceiling.on_flight(FLIGHT // 4)
    ceiling.end_round(full=True, shared=False, least_bytes=0.0)
    assert ceiling.bytes > BACKOFF * FLIGHT
    ceiling.on_flight(FLIGHT // 4)
    ceiling.end_round(full=True, shared=False, least_bytes=0.0)
    assert ceiling.bytes == pytest.approx(BACKOFF * FLIGHT / 4)


def test_no_cut_raises_it_or_goes_below_the_least() -> None:
    ceiling = cut()
    end_round(ceiling)
    before = ceiling.bytes
    assert end_round(ceiling, full=True, least=2 * FLIGHT) == before
    ceiling = Ceiling(PACKET)
    end_round(ceiling)
    assert end_round(ceiling, full=True, least=0.9 * FLIGHT) == 0.9 * FLIGHT


def test_it_grows_slowly_beside_others_and_by_its_size_alone() -> None:
    ceiling = cut()
    before = ceiling.bytes
    assert end_round(ceiling, shared=True) == before + GROWTH_PACKETS * PACKET
    before = ceiling.bytes
    assert end_round(ceiling) == pytest.approx(GROWTH_ALONE * before)


def test_it_is_dropped_when_it_binds_nothing() -> None:
    ceiling = cut()
    ceiling.lift(FLIGHT)
    assert ceiling.bytes < inf
    ceiling.lift(FLIGHT / 2)
    assert ceiling.bytes == inf
