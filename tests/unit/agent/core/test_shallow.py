"""Which packets found a shallow queue, and how many of them were lost."""

from agent.core.sent import SentRange, SentTrain
from agent.core.shallow import WINDOWS, Shallow

SIZE = 1_000


def packets(flight: int, count: int = 1, *, start: int = 0) -> SentRange:
    """Return packets from one on of a train that was sent while so many packets were in flight."""
    train = SentTrain(100, start + count, 0.0, SIZE, None, 0, 0.0, 0.0, False, flight * SIZE)
    return SentRange(train, 100 + start, 100 + start + count)


def test_packets_below_three_fifths_of_the_deepest_queue_are_of_a_shallow_one() -> None:
    shallow = Shallow()
    shallow.on_acked([packets(0, 10)])
    assert (shallow.sent, shallow.lost) == (6, 0)
    shallow.on_acked([packets(5), packets(6), packets(9)])
    assert shallow.sent == 7
    shallow.on_acked([packets(0, 4, start=4)])
    assert shallow.sent == 9


def test_what_the_path_holds_is_no_queue() -> None:
    shallow = Shallow()
    shallow.end_window(100.0 * SIZE)
    shallow.on_acked([packets(0, 110)])
    assert shallow.sent == 106
    shallow.on_acked([packets(99), packets(107)])
    assert shallow.sent == 107


def test_lost_packets_count_by_what_they_found_and_not_at_all_if_they_came_late() -> None:
    shallow = Shallow()
    shallow.on_acked([packets(0, 10)])
    shallow.on_lost([packets(1), packets(9)])
    assert (shallow.sent, shallow.lost) == (7, 1)
    shallow.on_late([packets(1), packets(9)])
    assert (shallow.sent, shallow.lost) == (7, 0)


def test_the_deepest_queue_is_forgotten() -> None:
    shallow = Shallow()
    shallow.on_acked([packets(0, 100)])
    for _ in range(WINDOWS):
        shallow.end_window(0.0)
    shallow.on_acked([packets(8, 2)])
    before = shallow.sent
    shallow.end_window(0.0)
    shallow.on_acked([packets(8)])
    assert shallow.sent == before
