import itertools
import random

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import LinkKey
from common.limits import HOLD_S
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
    better = triangle(100e6, 90e6, 200e6)
    assert held.settle(STANDING, better, now=10.0) == STANDING
    assert held.poll_timeout() == 10.0 + HOLD_S
    assert held.settle(STANDING, better, now=10.0 + HOLD_S - 0.1) == STANDING
    assert held.settle(STANDING, better, now=10.0 + HOLD_S) == (("A", "B"), ("B", "C"))
    assert held.poll_timeout() is None


def test_the_hold_time_starts_again_after_a_break() -> None:
    held = Hysteresis("throughput")
    held.settle(STANDING, triangle(100e6, 90e6, 200e6), now=0.0)
    held.settle(STANDING, triangle(100e6, 90e6, 90e6), now=3.0)
    assert held.poll_timeout() is None
    assert held.settle(STANDING, triangle(100e6, 90e6, 200e6), now=4.0) == STANDING
    assert held.poll_timeout() == 4.0 + HOLD_S


def test_a_lost_link_is_replaced_at_once() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 10e6)
    del links["A", "C"]
    assert held.settle(STANDING, links, now=0.0) == (("A", "B"), ("B", "C"))
    assert held.poll_timeout() is None


def test_a_lost_link_is_replaced_at_once_while_another_edge_is_held() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 200e6)
    links["C", "D"] = WeighedLink(("C", "D"), 1e6, 0.01, OLD)
    links["B", "D"] = WeighedLink(("B", "D"), 1e6, 0.01, OLD)
    standing = (*STANDING, ("C", "D"))
    assert held.settle(standing, links, now=0.0) == standing
    del links["C", "D"]
    assert held.settle(standing, links, now=1.0) == (("A", "B"), ("A", "C"), ("B", "D"))
    assert held.poll_timeout() == HOLD_S


def test_a_link_that_joins_a_new_device_comes_at_once() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 200e6)
    links["C", "D"] = WeighedLink(("C", "D"), 1e3, 0.01, 0.0)
    assert held.settle(STANDING, links, now=0.0) == (("A", "B"), ("A", "C"), ("C", "D"))


def test_an_edge_whose_link_is_young_is_not_held() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 200e6, since=6.0)
    assert held.settle(STANDING, links, now=6.0 + HOLD_S - 0.1) == (("A", "B"), ("B", "C"))


def test_a_held_edge_matures_while_another_waits_on() -> None:
    held = Hysteresis("throughput")
    links = triangle(100e6, 90e6, 200e6)
    for key in (("C", "D"), ("D", "E")):
        links[key] = WeighedLink(key, 50e6, 0.01, OLD)
    links["C", "E"] = WeighedLink(("C", "E"), 10e6, 0.01, OLD)
    standing = (*STANDING, ("C", "D"), ("D", "E"))
    held.settle(standing, links, now=0.0)
    links["C", "E"] = WeighedLink(("C", "E"), 100e6, 0.01, OLD)
    assert held.settle(standing, links, now=2.0) == standing
    assert held.poll_timeout() == HOLD_S
    after = held.settle(standing, links, now=HOLD_S)
    assert after == (("A", "B"), ("B", "C"), ("C", "D"), ("D", "E"))
    assert held.poll_timeout() == 2.0 + HOLD_S
    assert held.settle(after, links, now=2.0 + HOLD_S) == (("A", "B"), ("B", "C"), ("C", "D"), ("C", "E"))


def test_a_latency_tree_is_held_as_a_whole_while_it_connects_what_can_be() -> None:
    held = Hysteresis("latency")
    slow = {
        key: WeighedLink(key, 1e6, delay, OLD) for key, delay in zip(triangle(1, 1, 1), (0.1, 0.2, 0.01), strict=True)
    }
    assert held.settle(STANDING, slow, now=0.0) == STANDING
    assert held.poll_timeout() == HOLD_S
    assert held.settle(STANDING, slow, now=HOLD_S) == (("A", "B"), ("B", "C"))
    assert held.poll_timeout() is None


def test_a_latency_tree_gives_way_at_once_when_a_device_joins() -> None:
    held = Hysteresis("latency")
    slow = {
        key: WeighedLink(key, 1e6, delay, OLD) for key, delay in zip(triangle(1, 1, 1), (0.1, 0.2, 0.01), strict=True)
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
