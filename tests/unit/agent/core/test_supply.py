"""Who brings a stream unasked, and what of it nobody is bringing."""

from agent.core.supply import Concerned, Supply
from common.ranges import NO_LIMIT


def brought_by(*steps: tuple[str, int]) -> Supply:
    """Return the supply of a stream that some peers have brought, each from a number on."""
    supply = Supply()
    for peer, number in steps:
        supply.brought(peer, number)
    return supply


def test_a_stream_that_is_brought_has_nothing_adrift() -> None:
    assert brought_by(("B", 5)).adrift_below == 0
    assert brought_by(("B", 5), ("C", 9)).adrift_below == 0, "B may still deliver what is below"


def test_all_is_adrift_when_the_bringer_brings_no_more_until_another_begins_at_some_number() -> None:
    supply = brought_by(("B", 1))
    assert supply.interrupted("B") is Concerned.BEHIND
    assert (supply.bringer, supply.adrift_below, supply.left_to) == (None, NO_LIMIT, None)
    supply.brought("C", 9)
    assert supply.adrift_below == 9
    supply.brought("D", 7)
    assert supply.adrift_below == 7


def test_the_word_of_a_peer_that_brought_nothing_changes_nothing() -> None:
    supply = brought_by(("B", 1))
    assert supply.interrupted("C", delivering=True) is Concerned.NOBODY
    assert (supply.bringer, supply.adrift_below, supply.left_to) == ("B", 0, None)


def test_where_nobody_ever_brought_anything_all_is_adrift_once_that_is_said() -> None:
    supply = Supply()
    assert supply.adrift_below == 0
    assert supply.interrupted(None) is Concerned.BEHIND
    assert supply.adrift_below == NO_LIMIT


def test_news_from_the_old_tree_that_comes_after_the_new_ones_first_chunk_tells_what_is_adrift_below_it() -> None:
    supply = brought_by(("B", 1), ("C", 9))
    assert supply.interrupted("B", delivering=True) is Concerned.BRINGER
    assert (supply.bringer, supply.adrift_below, supply.left_to) == ("C", 9, "B")
    assert supply.interrupted("B") is Concerned.NOBODY, "once"
    assert supply.left_to is None


def test_what_the_old_bringer_still_delivers_is_left_to_it_until_its_link_is_gone() -> None:
    supply = brought_by(("B", 1))
    supply.interrupted("B", delivering=True)
    assert supply.left_to == "B"
    assert supply.interrupted("C") is Concerned.NOBODY
    assert supply.left_to == "B"
    supply.interrupted("B")
    assert supply.left_to is None


def test_when_nothing_is_missing_what_will_be_is_not_adrift_as_long_as_somebody_brings_it() -> None:
    supply = brought_by(("B", 1))
    supply.interrupted("B")
    supply.whole()
    assert supply.adrift_below == NO_LIMIT
    supply.brought("C", 9)
    supply.whole()
    assert supply.adrift_below == 0
