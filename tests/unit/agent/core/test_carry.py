"""What small messages carry: the last unacknowledged ones, once each, and no more than a tenth of the rate."""

from agent.core.carry import MOST_CARRIED, SHARE, SMALL_BYTES, Carrier

RATE = 1e6


def carrier() -> Carrier[str]:
    return Carrier(RATE, 0.0)


def test_what_left_before_goes_once_more_beside_the_next_small_train() -> None:
    carried = carrier()
    carried.on_sent("first", 240, 1)
    assert carried.take(RATE, 0.0) == []
    carried.on_sent("second", 240, 2)
    assert carried.take(RATE, 0.01) == [("first", 1)]
    carried.on_sent("third", 240, 1)
    assert carried.take(RATE, 0.02) == [("second", 2)]


def test_nothing_is_carried_while_no_small_train_leaves() -> None:
    carried = carrier()
    carried.on_sent("first", 240, 1)
    carried.take(RATE, 0.0)
    assert carried.take(RATE, 0.01) == []
    carried.on_sent("large", SMALL_BYTES + 1, 1)
    assert carried.take(RATE, 0.02) == []
    carried.on_sent("small", SMALL_BYTES, 1)
    assert carried.take(RATE, 0.03) == [("first", 1)]


def test_copies_take_no_more_than_their_share_of_the_rate() -> None:
    carried = carrier()
    copied = 0
    for step in range(1_000):
        carried.on_sent(str(step), 500, 4)
        copied += sum(500 * count for _, count in carried.take(RATE, step * 0.001))
    assert 0.9 * SHARE * RATE < copied < 1.1 * SHARE * RATE


def test_only_the_newest_are_remembered() -> None:
    carried = Carrier[int](1e9, 0.0)
    for number in range(MOST_CARRIED + 5):
        carried.on_sent(number, 240, 1)
    carried.take(1e9, 0.0)
    carried.on_sent(-1, 240, 1)
    assert [train for train, _ in carried.take(1e9, 1.0)] == list(range(5, MOST_CARRIED + 5))
