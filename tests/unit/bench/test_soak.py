from pathlib import Path

import pytest

from bench.soak import FLAT_MIB, FLAT_SHARE, LEAST_LOOKS, _Memory
from lab.netns import NetnsSystem
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Memory:
    monkeypatch.setattr("lab.netns.check_host", lambda: None)
    links = {("A", "B"): LinkFigures(delay_s=0.0)}
    return _Memory(NetnsSystem(Scenario(name="pair", devices=("A", "B"), links=links), tmp_path, QuietWatcher()))


def test_memory_that_grows_all_the_time_is_told_and_a_warm_up_is_not(memory: _Memory) -> None:
    memory.held["leak", 1] = [80.0 + look for look in range(2 * LEAST_LOOKS)]
    memory.held["warm", 2] = [40.0, 60.0, 75.0, *[80.0] * 2 * LEAST_LOOKS]
    memory.held["young", 3] = [40.0 + 10 * look for look in range(LEAST_LOOKS - 1)]
    edge = 80.0 * FLAT_SHARE + FLAT_MIB
    memory.held["edge", 4] = [80.0] * LEAST_LOOKS + [edge] * LEAST_LOOKS
    assert list(memory.grown()) == ["leak (1)"]


def test_the_summary_is_of_the_longest_life_of_each_name(memory: _Memory) -> None:
    memory.held["agent B", 1] = [50.0, 70.0, 60.0]
    memory.held["agent B", 2] = [90.0]
    assert memory.summary() == {"agent B": {"first": 50.0, "median": 60.0, "last": 60.0, "most": 70.0}}
