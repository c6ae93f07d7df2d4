"""A slow branch of the tree does not slow a fast one (issue 3): each next hop is served at its own pace."""

import random

import pytest

from agent.core.events import FileVerified, MessageReceived
from common.ids import LinkKey
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

FAST = LinkFigures(100e6)
SLOW = LinkFigures(20e6)
MOST_SLOWER = 1.05
SIZE_BYTES = 3 << 20
MESSAGES = 150
MESSAGE_BYTES = 10_000
EVERY_S = 0.001
"""A message of that size so often: 80 Mbit/s, four times what the slow branch takes."""

TREES: dict[str, dict[LinkKey, LinkFigures]] = {
    "at the source": {("A", "B"): FAST, ("A", "C"): SLOW},
    "at a relay": {("A", "R"): FAST, ("B", "R"): FAST, ("C", "R"): SLOW},
}


def scenario(tree: str, *, slow: bool) -> Scenario:
    """Return a tree with both branches, or with the fast one alone."""
    links = {link: figures for link, figures in TREES[tree].items() if slow or figures is FAST}
    return Scenario(f"branches {tree}", tuple(sorted({device for link in links for device in link})), links)


def file_seconds(tree: str, *, slow: bool) -> float:
    """Return how long the device at the end of the fast branch takes for a file."""
    with Simulation(scenario(tree, slow=slow)) as simulation:
        simulation.settle()
        began = simulation.now
        stream = simulation.send_file("A", "files", "payload.bin", random.Random(1).randbytes(SIZE_BYTES))
        others = [device for device in simulation.scenario.devices if device != "A"]
        simulation.run_until(lambda: simulation.verified(stream) == others, what="the file at every device")
        return next(at for at, event in simulation.timed_events("B") if isinstance(event, FileVerified)) - began


def message_seconds(tree: str, *, slow: bool) -> float:
    """Return how long the device at the end of the fast branch takes for a burst of messages."""
    spoken = [number.to_bytes(2, "big") * (MESSAGE_BYTES // 2) for number in range(MESSAGES)]
    with Simulation(scenario(tree, slow=slow)) as simulation:
        simulation.settle()
        began = simulation.now
        for message in spoken:
            simulation.publish("A", "messages", message)
            simulation.run_for(EVERY_S)
        for device in simulation.scenario.devices[1:]:
            simulation.run_until(lambda: len(simulation.messages(device)) == MESSAGES, what=f"all at {device}")  # noqa: B023
            assert simulation.messages(device) == spoken
        return [at for at, event in simulation.timed_events("B") if isinstance(event, MessageReceived)][-1] - began


@pytest.mark.parametrize("tree", TREES)
def test_a_slow_branch_does_not_slow_a_file_on_a_fast_one(tree: str) -> None:
    alone, beside = file_seconds(tree, slow=False), file_seconds(tree, slow=True)
    assert alone < 1.2 * 8 * SIZE_BYTES / FAST.rate_bps
    assert beside <= MOST_SLOWER * alone


@pytest.mark.parametrize("tree", TREES)
def test_a_slow_branch_does_not_slow_messages_on_a_fast_one(tree: str) -> None:
    alone, beside = message_seconds(tree, slow=False), message_seconds(tree, slow=True)
    assert alone < 1.2 * MESSAGES * EVERY_S
    assert beside <= MOST_SLOWER * alone
