"""What the benches compute from what they measured."""

import math

import pytest

from bench._common import median, outwards, path_rates, percentile, used_since
from lab.scenario import LinkFigures, Scenario

EDGES = (("A", "B"), ("A", "C"), ("B", "E"), ("C", "D"), ("D", "F"))
RATES = (100e6, 50e6, 20e6, 100e6, 60e6)
SIX = Scenario(
    name="six",
    devices=("A", "B", "C", "D", "E", "F"),
    links={edge: LinkFigures(rate) for edge, rate in zip(EDGES, RATES, strict=True)},
)


def test_the_edges_of_a_tree_lead_away_from_the_source() -> None:
    assert list(outwards(EDGES, "A")) == [("A", "B"), ("A", "C"), ("B", "E"), ("C", "D"), ("D", "F")]
    assert list(outwards(EDGES, "D")) == [("D", "C"), ("D", "F"), ("C", "A"), ("A", "B"), ("B", "E")]


def test_a_devices_rate_is_that_of_the_slowest_link_on_its_path() -> None:
    assert path_rates(SIX, EDGES, "A") == {"B": 100e6, "C": 50e6, "E": 20e6, "D": 50e6, "F": 50e6}


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 1.5), ([1.0, None, 2.0], None), ([0.0], 0.0)],
)
def test_a_median_with_a_run_that_failed_is_none(values: list[float | None], expected: float | None) -> None:
    assert median(values) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_a_process_that_is_new_has_used_all_that_it_used() -> None:
    assert used_since({"agent A": 1.5}, {"agent A": 1.75, "agent B": 0.5}) == {"agent A": 0.25, "agent B": 0.5}


def test_a_device_that_the_tree_does_not_reach_has_no_rate() -> None:
    assert "F" not in path_rates(SIX, EDGES[:-1], "A")
    assert math.inf not in path_rates(SIX, EDGES, "A").values()
