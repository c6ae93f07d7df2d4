"""The graphs a device knows: next hops, short forms, and which epochs are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.routing import GraphTable, Known
from common.errors import DecodeError
from common.graph import AcyclicGraph, Tree, short_epoch
from common.limits import EPOCH_AGE_S, EPOCHS_KEPT, EPOCHS_MAX
from common.messages import GraphBody, NeighboursBody
from tests.unit.agent.core.parts import graph

BIG = (5 << 32) + 17
AT = BIG / 1e6
"""Seconds at which the clock made that epoch."""


def body(epoch: int, *neighbours: str, objective: str = "throughput") -> NeighboursBody:
    return NeighboursBody.model_validate(
        {"epoch": epoch, "trees": [{"objective": objective, "neighbours": list(neighbours)}]}
    )


def table(*epochs: int, now: float = 0.0) -> GraphTable:
    found = GraphTable("B", 0.0)
    for epoch in epochs:
        found.learn_graph(graph(epoch, ("A", "B"), ("B", "C")), now)
    return found


def test_m8_next_hops_are_the_neighbours_without_the_previous_hop() -> None:
    known = table(1).current
    assert known is not None
    assert known.next_hops(0, "A") == ("C",)
    assert known.next_hops(0, None) == ("A", "C")
    assert known.next_hops(9, None) == ()


def test_each_objective_has_its_tree_and_an_unknown_one_the_first() -> None:
    trees = (Tree("latency", (("A", "B"), ("B", "C"))), Tree("throughput", (("A", "C"), ("B", "C"))))
    known_table = GraphTable("B", 0.0)
    known_table.learn_graph(AcyclicGraph(1, ("A", "B", "C"), trees), 0.0)
    known = known_table.current
    assert known is not None
    assert (known.tree_for("latency"), known.tree_for("throughput"), known.tree_for("balanced")) == (0, 1, 0)
    assert (known.in_tree(0), known.in_tree(1)) == (("A", "C"), ("C",))
    assert known.all_neighbours() == ("A", "C")


def test_nothing_is_known_at_first_and_anything_is_newer() -> None:
    empty = GraphTable("B", 0.0)
    assert empty.epoch is None
    assert empty.is_newer(5, 0.0)
    assert empty.expand(5, 0.0) == 5
    assert empty.get(5) is None
    assert not empty.learn_epoch(5, 0.0)


def test_a_device_that_the_graph_does_not_know_has_no_neighbours_in_it() -> None:
    lone = GraphTable("Z", 0.0)
    assert lone.learn_graph(graph(1, ("A", "B")), 0.0)
    assert lone.current is not None
    assert lone.current.all_neighbours() == ()


def test_only_a_newer_epoch_becomes_the_current_one() -> None:
    known = table(5)
    assert known.learn_graph(graph(7, ("A", "B")), 1.0)
    assert not known.learn_graph(graph(6, ("B", "C")), 2.0)
    assert known.epoch == 7
    assert known.by_short(6) is not None
    assert not known.learn_graph(graph(7, ("B", "C")), 2.0)
    assert known.current is not None
    assert known.current.in_tree(0) == ("A",)


def test_own_neighbours_serve_as_well_as_the_whole_graph_and_give_way_to_it() -> None:
    known = GraphTable("B", 0.0)
    assert known.learn_body(body(5, "C", "A"), 0.0)
    assert not known.learn_body(body(5, "A"), 0.0)
    assert known.current == Known(5, ("throughput",), (("A", "C"),), None, 0.0)
    whole = graph(5, ("A", "B"))
    assert not known.learn_graph(whole, 1.0)
    assert not known.learn_body(body(5, "C"), 2.0)
    assert known.current == Known(5, ("throughput",), (("A",),), whole, 1.0)


def test_a_whole_graph_of_a_past_epoch_does_not_become_the_current_one() -> None:
    known = GraphTable("B", 0.0)
    known.learn_body(body(5, "A"), 0.0)
    known.learn_body(body(6, "C"), 0.0)
    assert not known.learn_graph(graph(5, ("A", "B")), 1.0)
    assert known.epoch == 6


def test_the_servers_answer_may_be_a_whole_graph() -> None:
    known = GraphTable("B", 0.0)
    assert known.learn_body(GraphBody.from_graph(graph(5, ("A", "B"))), 0.0)
    assert known.current is not None
    assert known.current.graph == graph(5, ("A", "B"))


def test_a_graph_that_does_not_hold_together_is_refused_and_changes_nothing() -> None:
    cycle = [["A", "B"], ["A", "C"], ["B", "C"]]
    answer = GraphBody.model_validate(
        {"epoch": 5, "devices": ["A", "B", "C"], "trees": [{"objective": "throughput", "edges": cycle}]}
    )
    known = GraphTable("B", 0.0)
    with pytest.raises(DecodeError):
        known.learn_body(answer, 0.0)
    assert known.epoch is None


def test_the_news_of_an_epoch_keeps_the_neighbours() -> None:
    known = table(5)
    assert known.learn_epoch(8, 1.0)
    assert known.epoch == 8
    assert known.current is not None
    assert known.current.in_tree(0) == ("A", "C")
    assert known.current.graph is None
    assert not known.learn_epoch(6, 1.0)


def test_short_forms_are_resolved_by_what_is_known_and_expanded_near_the_clock() -> None:
    known = table(BIG, now=AT)
    assert known.by_short(short_epoch(BIG)) is known.get(BIG) is known.current
    assert known.expand(18, AT) == BIG + 1
    assert known.is_newer(18, AT)
    assert not known.is_newer(16, AT)
    assert not known.is_newer(17, AT)
    assert known.expand(0xFFFFFFFF, AT) == (5 << 32) - 1


def test_a_short_form_is_new_also_after_a_graph_that_stood_for_hours() -> None:
    known = table(BIG, now=AT)
    for hours in (0.1, 1.0, 5.0, 100.0):
        fresh = BIG + int(hours * 3_600e6)
        assert known.expand(short_epoch(fresh), AT + hours * 3_600) == fresh
        assert known.is_newer(short_epoch(fresh), AT + hours * 3_600)


def test_a_device_whose_clock_is_hours_behind_goes_by_the_epochs_it_learnt() -> None:
    ahead = BIG + int(3 * 3_600e6)
    known = table(ahead, now=AT)
    fresh = ahead + int(2 * 3_600e6)
    assert known.expand(short_epoch(fresh), AT + 2 * 3_600) == fresh
    assert known.is_newer(short_epoch(ahead + 1), AT)
    assert not known.is_newer(short_epoch(ahead - 1), AT)


def test_the_last_eight_epochs_are_kept_whatever_their_age() -> None:
    known = table(*range(1, 21), now=0.0)
    assert len(kept(known, 20)) == 20
    known.learn_graph(graph(21, ("A", "B")), EPOCH_AGE_S + 1)
    assert kept(known, 30) == list(range(22 - EPOCHS_KEPT, 22))


def test_young_epochs_are_kept_up_to_a_bound() -> None:
    known = table(*range(1, 101), now=0.0)
    assert kept(known, 100) == list(range(101 - EPOCHS_MAX, 101))


def kept(known: GraphTable, most: int) -> list[int]:
    return [epoch for epoch in range(most + 1) if known.get(epoch) is not None]


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans(), st.floats(0, 5)), max_size=150))
def test_the_current_epoch_is_the_newest_learnt_and_never_forgotten(news: list[tuple[int, bool, float]]) -> None:
    known = GraphTable("B", 0.0)
    now, newest = 0.0, -1
    for epoch, whole, pause in news:
        now += pause
        newer = known.learn_graph(graph(epoch, ("A", "B")), now) if whole else known.learn_body(body(epoch, "A"), now)
        assert newer == (epoch > newest)
        newest = max(newest, epoch)
        assert known.epoch == newest
        assert isinstance(known.get(newest), Known)
        assert known.get(newest) is known.current
        assert len(kept(known, 200)) <= EPOCHS_MAX
