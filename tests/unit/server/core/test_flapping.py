"""Links that come and go are held down for a while."""

import pytest

from common.limits import LEASE_S
from server.core.flapping import FIRST_S, FORGET_S, MOST_S, WITHIN_S, Flapping, Held

AB = ("A", "B")


def lost(flapping: Flapping, *times: float) -> None:
    """Lose a link at these times, each time after it came back."""
    for now in times:
        flapping.on_back(AB)
        flapping.on_lost(AB, now=now)


def test_a_link_that_is_lost_once_is_not_held_down() -> None:
    flapping = Flapping()
    lost(flapping, 100.0)
    assert flapping.held(AB) is None
    assert flapping.next_expiry() is None
    assert flapping.take_expired(now=1e9) == []


def test_a_second_loss_within_a_minute_holds_it_down_and_each_further_one_twice_as_long() -> None:
    flapping, now = Flapping(), 100.0
    lost(flapping, now)
    for times in range(1, 8):
        now += WITHIN_S
        lost(flapping, now)
        assert flapping.held(AB) == Held(now + min(FIRST_S * 2 ** (times - 1), MOST_S), times)
    assert flapping.count == 7


def test_a_second_loss_after_a_minute_is_none_too_many() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 100.1 + WITHIN_S)
    assert flapping.held(AB) is None
    assert flapping.count == 0


def test_a_link_is_held_down_until_its_time_is_over() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0)
    assert flapping.next_expiry() == 101.0 + FIRST_S
    assert flapping.take_expired(now=100.9 + FIRST_S) == []
    assert flapping.take_expired(now=101.0 + FIRST_S) == [AB]
    assert flapping.held(AB) is None


def test_one_that_is_lost_again_meanwhile_is_held_down_until_the_later_time() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0, 105.0)
    assert flapping.take_expired(now=101.0 + FIRST_S) == []
    assert flapping.take_expired(now=105.0 + 2 * FIRST_S) == [AB]


def test_ten_minutes_without_a_loss_are_forgiven() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0, 102.0)
    later = 102.1 + FORGET_S
    lost(flapping, later)
    lost(flapping, later + 1.0)
    assert flapping.held(AB) == Held(later + 1.0 + FIRST_S, 1)


def test_losses_just_before_and_just_after_a_device_begins_anew_are_its_own() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0)
    flapping.on_restart("B", now=102.0)
    assert flapping.held(AB) is None
    lost(flapping, 103.0, 104.0, 102.0 + LEASE_S - 0.1)
    assert flapping.held(AB) is None
    lost(flapping, 102.0 + LEASE_S, 120.0)
    assert flapping.held(AB) is not None


def test_a_loss_is_taken_back_but_not_what_was_held_against_the_link_before() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0, 103.0)
    flapping.on_restart("A", now=104.0)
    assert flapping.held(AB) == Held(101.0 + FIRST_S, 1)
    assert flapping.take_expired(now=101.0 + FIRST_S) == [AB]


def test_a_hold_that_was_over_before_the_loss_does_not_come_back_with_it() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0, 150.0)
    flapping.on_restart("A", now=151.0)
    assert flapping.held(AB) is None


def test_a_restart_does_not_touch_links_that_are_there_nor_those_of_others() -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0)
    flapping.on_restart("C", now=102.0)
    flapping.on_back(AB)
    flapping.on_restart("A", now=102.0)
    assert flapping.held(AB) is not None


def test_a_link_that_never_was_lost_comes_back_unnoticed() -> None:
    flapping = Flapping()
    flapping.on_back(AB)
    assert flapping.held(AB) is None


@pytest.mark.parametrize("device", ["A", "B"])
def test_what_is_held_against_the_links_of_a_device_goes_with_it(device: str) -> None:
    flapping = Flapping()
    lost(flapping, 100.0, 101.0)
    flapping.on_gone("C")
    assert flapping.held(AB) is not None
    flapping.on_gone(device)
    assert flapping.held(AB) is None
    assert flapping.take_expired(now=1e9) == []
