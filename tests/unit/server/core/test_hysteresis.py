import itertools
import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import LinkKey
from common.limits import CALM_S, CLEAR_HOLD_S, HOLD_S
from server.core.hysteresis import Hysteresis
from server.core.planner import WeighedLink

OLD = float("-inf")


def triangle(ab: float, ac: float, bc: float, *, since: float = OLD) -> dict[LinkKey, WeighedLink]:
    rates = {("A", "B"): ab, ("A", "C"): ac, ("B", "C"): bc}
    return {key: WeighedLink(key, rate, 0.01, since) for key, rate in rates.items()}


STANDING = (("A", "B"), ("A", "C"))


def test_a_value_that_jitters_within_the_margin_does_not_move_the_tree() -> None:
    held = Hysteresis("throughput")
    for number in range(50):
        links = triangle(100e6, 100e6, 119e6 if number % 2 else 80e6)
        assert held.settle(STANDING, links, now=float(number)) == STANDING
        assert held.poll_timeout() is None


def test_a_better_link_has_to_stay_better_for_the_hold_time() -> None:
    held = Hysteresis("throughput")
    better = triangle(100e6, 90e6, 150e6)
    assert held.settle(STANDING, better, now=10.0) == STANDING
    assert held.poll_timeout() == 10.0 + HOLD_S
    assert held.settle(STANDING, better, now=10.0 + HOLD_S - 0.1) == STANDING
    assert held.settle(STANDING, better, now=10.0 + HOLD_S) == (("A", "B"), ("B", "C"))
    assert held.poll_timeout() is None


def test_the_hold_time_starts_again_after_a_break() -> None:
    held = Hysteresis("throughput")
    held.settle(STANDING, triangle(100e6, 90e6, 150e6), now=0.0)
    held.settle(STANDING, triangle(100e6, 90e6, 90e6), now=3.0)
    assert held.poll_timeout() is None
    assert held.settle(STANDING, triangle(100e6, 90e6, 150e6), now=4.0) == STANDING
    assert held.poll_timeout() == 4.0 + HOLD_S


def test_a_lost_link_is_replaced_at_once() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 10e6)
    del links["A", "C"]
    assert held.settle(STANDING, links, now=0.0) == (("A", "B"), ("B", "C"))
    assert held.poll_timeout() is None


def test_a_lost_link_is_replaced_at_once_while_another_edge_is_held() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 150e6)
    links["C", "D"] = WeighedLink(("C", "D"), 1e6, 0.01, OLD)
    links["B", "D"] = WeighedLink(("B", "D"), 1e6, 0.01, OLD)
    standing = (*STANDING, ("C", "D"))
    assert held.settle(standing, links, now=0.0) == standing
    del links["C", "D"]
    assert held.settle(standing, links, now=1.0) == (("A", "B"), ("A", "C"), ("B", "D"))
    assert held.poll_timeout() == HOLD_S


def test_a_link_that_joins_a_new_device_comes_at_once() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 150e6)
    links["C", "D"] = WeighedLink(("C", "D"), 1e3, 0.01, 0.0)
    assert held.settle(STANDING, links, now=0.0) == (("A", "B"), ("A", "C"), ("C", "D"))


def test_an_edge_whose_link_is_young_is_not_held() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 150e6, since=6.0)
    assert held.settle(STANDING, links, now=6.0 + HOLD_S - 0.1) == (("A", "B"), ("B", "C"))


def test_a_held_edge_matures_while_another_waits_on() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 150e6)
    for key in (("C", "D"), ("D", "E")):
        links[key] = WeighedLink(key, 50e6, 0.01, OLD)
    links["C", "E"] = WeighedLink(("C", "E"), 10e6, 0.01, OLD)
    standing = (*STANDING, ("C", "D"), ("D", "E"))
    held.settle(standing, links, now=0.0)
    links["C", "E"] = WeighedLink(("C", "E"), 80e6, 0.01, OLD)
    assert held.settle(standing, links, now=2.0) == standing
    assert held.poll_timeout() == HOLD_S
    after = held.settle(standing, links, now=HOLD_S)
    assert after == (("A", "B"), ("B", "C"), ("C", "D"), ("D", "E"))
    assert held.poll_timeout() == HOLD_S + CALM_S
    assert held.settle(after, links, now=2.0 + HOLD_S) == after
    last = held.settle(after, links, now=HOLD_S + CALM_S)
    assert last == (("A", "B"), ("B", "C"), ("C", "D"), ("C", "E"))


def test_a_link_that_is_twice_as_good_has_to_stay_so_for_a_short_time_only() -> None:
    held = Hysteresis("throughput")
    clear = triangle(100e6, 40e6, 90e6)
    assert held.settle(STANDING, clear, now=10.0) == STANDING
    assert held.poll_timeout() == 10.0 + CLEAR_HOLD_S
    assert held.settle(STANDING, triangle(100e6, 40e6, 79e6), now=11.0) == STANDING
    assert held.poll_timeout() == 10.0 + HOLD_S
    assert held.settle(STANDING, clear, now=12.0) == STANDING
    assert held.poll_timeout() == 12.0 + CLEAR_HOLD_S
    assert held.settle(STANDING, clear, now=12.0 + CLEAR_HOLD_S) == (("A", "B"), ("B", "C"))


def test_an_edge_that_has_become_half_as_good_is_left_soon_for_one_that_is_just_better() -> None:
    held = Hysteresis("throughput")
    assert held.settle(STANDING, triangle(100e6, 90e6, 60e6), now=0.0) == STANDING
    fallen = triangle(100e6, 44e6, 60e6)
    assert held.settle(STANDING, fallen, now=1.0) == STANDING
    assert held.settle(STANDING, fallen, now=1.0 + CLEAR_HOLD_S) == (("A", "B"), ("B", "C"))


def test_how_good_an_edge_was_is_forgotten() -> None:
    held = Hysteresis("throughput")
    held.settle(STANDING, triangle(100e6, 90e6, 45e6), now=0.0)
    for minute in range(1, 10):
        held.settle(STANDING, triangle(100e6, 44e6, 45e6), now=CALM_S * minute)
    now = 10 * CALM_S
    assert held.settle(STANDING, triangle(100e6, 44e6, 60e6), now=now) == STANDING
    assert held.poll_timeout() == now + HOLD_S


def test_an_edge_that_has_become_five_times_as_long_is_left_soon() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 90e6)
    assert held.settle(STANDING, links, now=0.0) == STANDING
    links["A", "C"] = WeighedLink(("A", "C"), 70e6, 0.05, OLD)
    assert held.settle(STANDING, links, now=1.0) == STANDING
    assert held.poll_timeout() == 1.0 + CLEAR_HOLD_S
    assert held.settle(STANDING, links, now=1.0 + CLEAR_HOLD_S) == (("A", "B"), ("B", "C"))


def test_after_a_change_the_tree_stays_for_a_minute_unless_something_is_clear() -> None:
    held = Hysteresis("throughput")
    better = triangle(100e6, 90e6, 150e6)
    held.settle(STANDING, better, now=0.0)
    moved = held.settle(STANDING, better, now=HOLD_S)
    assert moved == (("A", "B"), ("B", "C"))
    back = triangle(100e6, 150e6, 120e6)
    assert held.settle(moved, back, now=10.0) == moved
    assert held.poll_timeout() == HOLD_S + CALM_S
    assert held.settle(moved, triangle(100e6, 150e6, 50e6), now=20.0) == moved
    assert held.poll_timeout() == 20.0 + CLEAR_HOLD_S
    assert held.settle(moved, triangle(100e6, 150e6, 50e6), now=22.0) == STANDING


def test_links_whose_figures_are_still_being_found_need_no_minute_between_two_changes() -> None:
    held = Hysteresis("throughput")
    better = triangle(100e6, 90e6, 150e6, since=0.0)
    assert held.settle(STANDING, better, now=HOLD_S) == STANDING
    moved = held.settle(STANDING, better, now=2 * HOLD_S)
    assert moved == (("A", "B"), ("B", "C"))
    back = triangle(300e6, 190e6, 150e6, since=0.0)
    held.settle(moved, back, now=20.0)
    assert held.settle(moved, back, now=20.0 + HOLD_S) == STANDING


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_a_link_that_is_held_down_is_taken_only_where_there_is_no_other_way(objective: str) -> None:
    held = Hysteresis(objective)
    links = triangle(100e6, 90e6, 150e6)
    links["B", "C"] = WeighedLink(("B", "C"), 900e6, 0.0001, OLD, held=True)
    assert held.settle((), links, now=0.0) == STANDING
    del links["A", "C"]
    only = held.settle(STANDING, links, now=1.0)
    assert only == (("A", "B"), ("B", "C"))
    links["A", "C"] = WeighedLink(("A", "C"), 1e6, 0.5, OLD)
    assert held.settle(only, links, now=2.0) == STANDING


def test_a_latency_tree_is_held_as_a_whole_while_it_connects_what_can_be() -> None:
    held = Hysteresis("latency")
    slow = {
        key: WeighedLink(key, 1e6, delay, OLD) for key, delay in zip(triangle(1, 1, 1), (0.1, 0.12, 0.09), strict=True)
    }
    assert held.settle(STANDING, slow, now=0.0) == STANDING
    assert held.poll_timeout() == HOLD_S
    assert held.settle(STANDING, slow, now=HOLD_S) == (("A", "B"), ("B", "C"))
    assert held.poll_timeout() is None


def test_a_latency_tree_gives_way_at_once_when_a_device_joins() -> None:
    held = Hysteresis("latency")
    slow = {
        key: WeighedLink(key, 1e6, delay, OLD) for key, delay in zip(triangle(1, 1, 1), (0.1, 0.12, 0.04), strict=True)
    }
    assert held.settle(STANDING, slow, now=0.0) == STANDING
    slow["C", "D"] = WeighedLink(("C", "D"), 1e6, 0.01, 1.0)
    edges = held.settle(STANDING, slow, now=1.0)
    assert ("C", "D") in edges
    assert len(edges) == 3


@given(st.randoms(use_true_random=False), st.sampled_from(["throughput", "latency"]))
def test_whatever_happens_the_tree_spans_and_uses_links_that_count(rng: random.Random, objective: str) -> None:
    held = Hysteresis(objective)
    names = "ABCDEFG"
    pairs = [(a, b) for a in names for b in names if a < b]
    standing: tuple[LinkKey, ...] = ()
    now = 0.0
    for _ in range(8):
        now += rng.choice([0.0, 0.05, 3.0, 6.0])
        links = {
            key: WeighedLink(key, rng.choice([1e6, 2e6, 9e6]), rng.choice([0.001, 0.05]), rng.uniform(0, now))
            for key in rng.sample(pairs, rng.randint(0, len(pairs)))
        }
        standing = held.settle(standing, links, now=now)
        graph: nx.Graph[str] = nx.Graph(list(links))
        tree: nx.Graph[str] = nx.Graph(list(standing))
        assert set(standing) <= set(links)
        assert not tree or nx.is_forest(tree)
        assert set(map(frozenset, nx.connected_components(tree))) == set(map(frozenset, nx.connected_components(graph)))
        due = held.poll_timeout()
        assert due is None or due > now


@pytest.mark.parametrize("order", list(itertools.permutations(triangle(50e6, 50e6, 45e6))))
@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_the_first_tree_does_not_depend_on_the_order_in_which_links_come_up(
    order: tuple[LinkKey, ...], objective: str
) -> None:
    values: dict[LinkKey, tuple[float, float]] = {
        ("A", "B"): (50e6, 0.010),
        ("A", "C"): (50e6, 0.010),
        ("B", "C"): (45e6, 0.0105),
    }
    held = Hysteresis(objective)
    edges: tuple[LinkKey, ...] = ()
    links: dict[LinkKey, WeighedLink] = {}
    for number, key in enumerate(order):
        now = 100.0 + 0.3 * number
        links[key] = WeighedLink(key, *values[key], since=now)
        edges = held.settle(edges, links, now=now)
    assert edges == STANDING
    for later in (1.0, 6.0, 60.0):
        assert held.settle(edges, links, now=100.0 + later) == STANDING


def test_the_margin_of_an_edge_begins_when_its_link_has_counted_for_the_hold_time() -> None:
    links = triangle(100e6, 100e6, 110e6, since=6.0)
    assert Hysteresis("throughput").settle(STANDING, links, now=6.0 + HOLD_S - 0.1) != STANDING
    assert Hysteresis("throughput").settle(STANDING, links, now=6.0 + HOLD_S) == STANDING
