from pathlib import Path

import pytest

from bench._flow import Flow, Follower
from lab.loopback import LoopbackSystem
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario

SCENARIO = Scenario(name="trio", devices=("A", "B", "C"), links={("A", "B"): LinkFigures(), ("B", "C"): LinkFigures()})


def follower(*arrivals: tuple[float, int]) -> Follower:
    return Follower(Path("unused"), arrivals=list(arrivals))


def test_the_largest_gap_is_that_of_the_time_asked_for() -> None:
    made = follower((1.0, 0), (3.0, 1), (3.1, 2), (4.0, 3), (4.1, 4))
    assert made.largest_gap(3.05, 4.05) == pytest.approx(0.9)
    assert made.largest_gap(2.0, 4.0) == pytest.approx(2.0)
    assert made.largest_gap(5.0, 6.0) is None
    assert (made.last, follower().last) == (4, -1)


def test_what_is_missing_and_what_came_twice_is_counted_by_device(tmp_path: Path) -> None:
    flow = Flow(LoopbackSystem(SCENARIO, tmp_path, QuietWatcher()), "A", per_second=1.0, message_bytes=20)
    flow.published = 3
    flow.followers["B"] = [follower((0.0, 0), (0.1, 1)), follower((1.0, 1), (1.1, 2))]
    flow.followers["C"] = [follower((0.0, 0), (0.1, 0), (0.2, 1))]
    assert flow.missing() == {"C": 1}
    assert flow.repeated() == {"C": 1}, "to two runs of one device the same message came once each"
    assert flow.reached("BC", 1)
    assert not flow.reached("BC", 2)
