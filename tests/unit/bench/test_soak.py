import random
from pathlib import Path

import pytest

from bench._flow import Flow
from bench.soak import (
    FLAT_MIB,
    FLAT_SHARE,
    LEAST_LOOKS,
    MOST_CUT,
    MOST_DEAD,
    MOST_HARM_S,
    SOURCE,
    _Events,
    _Memory,
)
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


def test_what_happens_follows_from_the_seed_and_no_harm_lasts_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.netns.check_host", lambda: None)
    links = {pair: LinkFigures(delay_s=0.0) for pair in (("A", "B"), ("A", "C"), ("B", "C"), ("C", "D"))}
    scenario = Scenario(name="soak", devices=("A", "B", "C", "D"), links=links)
    system = NetnsSystem(scenario, tmp_path, QuietWatcher())
    flow = Flow(system, SOURCE, per_second=1.0, message_bytes=20)

    def drawn() -> list[str]:
        events = _Events(system, flow, random.Random("seed"), weather=True)
        found = []
        for _ in range(400):
            events._passed += 4.0
            happening = events._draw()
            assert happening.device != SOURCE
            events.note(happening)
            assert len(events._cut) <= MOST_CUT
            assert len(events._dead) <= MOST_DEAD
            harm = [*events._cut.values(), *events._dead.values(), events._server_dead or events._passed]
            # One event at a time makes whole what is due.
            assert events._passed - min(harm) <= MOST_HARM_S + 4.0 * (MOST_CUT + MOST_DEAD + 1)
            found.append(str(happening))
        return found

    first = drawn()
    assert first == drawn()
    assert {text.split()[0] for text in first} == {"cut", "restore", "degrade", "kill", "start"}
    assert {"kill server", "start server"} <= set(first)
