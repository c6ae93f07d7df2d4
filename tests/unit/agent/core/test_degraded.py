"""Whether a device has to do without an edge of its graph, and what it says of that."""

import random

import pytest

from agent.core.degraded import AWAY_WAIT_S, FORGET_S, GRAPH_WAIT_S, SAY_EVERY_S, Degraded
from common.graph_frames import LostEdges
from common.limits import MAX_LOST_EDGES, MAX_LOST_WORDS

WALL_OFFSET = 1_800_000_000.0


def alone() -> Degraded:
    return Degraded("A", WALL_OFFSET)


def lost(*, connected: bool = False) -> tuple[Degraded, float]:
    """Return a device that has lost an edge of epoch 7 to B, and the time."""
    device = alone()
    device.look({7: ("B",)}, 10.0, connected=connected)
    now = 10.0 + (GRAPH_WAIT_S if connected else AWAY_WAIT_S)
    device.look({7: ("B",)}, now, connected=connected)
    return device, now


def word(device: str = "C", stamp: int = 1, epoch: int = 7, peers: tuple[str, ...] = ("D",)) -> LostEdges:
    return LostEdges(device, stamp, epoch, peers)


@pytest.mark.parametrize(("connected", "wait"), [(True, GRAPH_WAIT_S), (False, AWAY_WAIT_S)])
def test_an_edge_counts_as_lost_when_nothing_has_replaced_it_for_a_while(connected: bool, wait: float) -> None:
    device = alone()
    device.look({7: ("B",)}, 10.0, connected=connected)
    assert device.poll_timeout() == 10.0 + wait
    device.look({7: ("B",)}, 10.0 + wait - 0.001, connected=connected)
    assert not device.bridges(7)
    assert device.poll_words(10.0) == []
    device.look({7: ("B",)}, 10.0 + wait, connected=connected)
    assert device.bridges(7)
    assert device.since == 10.0 + wait
    assert device.edges() == (("A", "B"),)


def test_the_server_that_leaves_makes_the_wait_shorter_and_one_that_comes_back_takes_nothing_back() -> None:
    device = alone()
    device.look({7: ("B",)}, 10.0, connected=True)
    device.look({7: ("B",)}, 10.0 + AWAY_WAIT_S, connected=False)
    assert device.bridges(7)
    device.look({7: ("B",)}, 10.0 + AWAY_WAIT_S, connected=True)
    assert device.bridges(7)


def test_a_newer_graph_ends_it_and_one_with_the_same_edge_begins_the_wait_anew() -> None:
    device, now = lost()
    assert device.poll_words(now) != []
    device.look({8: ()}, now, connected=False)
    assert not device.bridges(7)
    assert not device.bridges(8)
    assert device.since is None
    assert device.poll_words(now) == [], "who has the newer graph need not hear of the older one"
    device.look({9: ("B",)}, now, connected=False)
    assert not device.bridges(9)
    assert device.poll_timeout() == now + AWAY_WAIT_S


def test_an_edge_that_is_back_ends_it_and_that_is_said() -> None:
    device, now = lost()
    (said,) = device.poll_words(now)
    assert (said.device, said.epoch, said.peers) == ("A", 7, ("B",))
    assert device.poll_words(now) == []
    device.look({7: ()}, now + 1.0, connected=False)
    assert not device.bridges(7)
    (back,) = device.poll_words(now + 1.0)
    assert back.peers == ()
    assert back.stamp > said.stamp
    assert device.poll_words(now + 1.0) == []
    assert device.poll_timeout() is None


def test_another_edge_that_is_lost_is_said_at_once_and_more_than_fit_are_not_named() -> None:
    device, now = lost()
    device.poll_words(now)
    many = ("B", *(f"D{number}" for number in range(MAX_LOST_EDGES)))
    device.look({7: many}, now, connected=False)
    assert device.poll_words(now) == []
    device.look({7: many}, now + AWAY_WAIT_S, connected=False)
    (said,) = device.poll_words(now + AWAY_WAIT_S)
    assert said.peers == many[:MAX_LOST_EDGES]


def test_a_word_is_said_again_while_it_holds_with_a_higher_stamp() -> None:
    device, now = lost()
    (first,) = device.poll_words(now)
    assert device.poll_timeout() == now + SAY_EVERY_S
    assert device.poll_words(now + SAY_EVERY_S - 0.1) == []
    (again,) = device.poll_words(now + SAY_EVERY_S)
    assert again.stamp > first.stamp
    assert device.words() == [again]


def test_the_word_of_another_counts_as_the_own_does_and_is_news_once() -> None:
    device = alone()
    device.look({7: ()}, 10.0, connected=True)
    assert device.on_word(word(), 10.0)
    assert not device.on_word(word(), 10.1)
    assert device.bridges(7)
    assert device.edges() == (("C", "D"),)
    assert device.words() == [word()]
    assert device.since == 10.0
    assert device.on_word(word(stamp=2, peers=()), 11.0)
    assert not device.bridges(7)
    assert not device.on_word(word(stamp=1), 11.0), "the older word came by a longer way"
    assert not device.bridges(7)
    assert device.words() == []
    assert device.since is None


def test_a_word_of_an_older_graph_says_nothing_and_one_of_a_newer_graph_counts_here_too() -> None:
    device = alone()
    device.look({7: ()}, 10.0, connected=True)
    device.on_word(word(epoch=6), 10.0)
    assert not device.bridges(7)
    device.on_word(word(epoch=8), 10.0)
    assert device.bridges(7)
    device.look({8: ()}, 10.0, connected=True)
    assert device.words() == [word(epoch=8)], "what no graph in use is concerned with is forgotten"


def test_the_own_word_that_comes_back_says_nothing() -> None:
    assert not alone().on_word(word(device="A"), 10.0)


def test_a_word_that_is_not_said_again_is_forgotten() -> None:
    device = alone()
    device.look({7: ()}, 10.0, connected=True)
    device.on_word(word(), 10.0)
    assert device.poll_timeout() == 10.0 + FORGET_S
    device.look({7: ()}, 10.0 + FORGET_S, connected=True)
    assert not device.bridges(7)
    assert device.poll_timeout() is None


def test_a_word_that_was_forgotten_is_no_news_when_somebody_says_it_who_heard_of_it_later() -> None:
    early, late = alone(), Degraded("B", WALL_OFFSET)
    for device in (early, late):
        device.look({7: ()}, 10.0, connected=False)
    assert early.on_word(word(), 10.0)
    told, now = 0, 10.0
    # Their link comes and goes, and each time they tell each other all they know.
    while now < 10.0 + 10 * FORGET_S:
        now += 0.6 * FORGET_S
        for one, other in ((early, late), (late, early)):
            one.look({7: ()}, now, connected=False)
            other.look({7: ()}, now, connected=False)
            told += sum(other.on_word(each, now) for each in one.words())
    assert told == 1
    assert not early.bridges(7)
    assert not late.bridges(7)
    assert early.on_word(word(stamp=2), now), "a newer one counts"


def test_a_word_of_an_older_graph_is_passed_on_once_however_often_links_change_meanwhile() -> None:
    device = alone()
    device.look({7: ()}, 10.0, connected=True)
    assert device.on_word(word(epoch=6), 10.0)
    assert device.since is None
    device.look({7: ()}, 10.1, connected=True)
    assert not device.on_word(word(epoch=6), 10.1)
    for number in range(MAX_LOST_WORDS - 1):
        assert device.on_word(word(device=f"D{number}", epoch=6), 10.0)
    assert not device.on_word(word(device="one-more", epoch=6), 10.0)


def test_more_words_than_the_limit_are_not_remembered() -> None:
    device = alone()
    for number in range(MAX_LOST_WORDS):
        assert device.on_word(word(device=f"D{number}"), 10.0)
    assert not device.on_word(word(device="one-more"), 10.0)
    assert device.on_word(word(device="D5", stamp=2), 10.0)
    assert len(device.words()) == MAX_LOST_WORDS


def test_the_beginning_is_that_of_the_first_lost_edge() -> None:
    device, now = lost()
    device.on_word(word(), now + 1.0)
    device.look({7: ()}, now + 2.0, connected=False)
    assert device.since == now


def test_a_clock_that_is_set_back_does_not_lower_a_stamp() -> None:
    device, now = lost()
    device.poll_words(now)
    stamps = [device.words()[0].stamp]
    for _ in range(3):
        device.look({7: ()}, now, connected=False)
        stamps += [said.stamp for said in device.poll_words(now)]
        device.look({7: ("B",)}, now, connected=False)
        now += AWAY_WAIT_S
        device.look({7: ("B",)}, now, connected=False)
        stamps += [said.stamp for said in device.poll_words(now - 100.0)]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("seed", range(20))
def test_all_that_hear_the_same_words_in_any_order_come_to_the_same_end(seed: int) -> None:
    rng = random.Random(seed)
    said = [
        word(device=rng.choice("BCD"), stamp=stamp, epoch=rng.choice((7, 8)), peers=rng.choice(((), ("E",), ("F",))))
        for stamp in range(12)
    ]
    ends = set()
    for _ in range(5):
        rng.shuffle(said)
        device = alone()
        for each in said:
            device.on_word(each, 10.0)
        ends.add((device.bridges(7), device.bridges(8), device.edges()))
    assert len(ends) == 1
