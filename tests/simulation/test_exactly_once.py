"""Every byte and every message once at every application, whatever the mesh, its faults and its graphs do midway."""

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from agent.core.events import MessageGap, MessageReceived
from common.ids import DeviceId, LinkKey, link_key
from common.messages import QosFigures, QosReport
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

HORIZON_S = 8.0
"""Longer than the 5 s for which the server wants a better link to stay better before it changes the tree."""
MESSAGES = 24
# An example is a whole system for eight simulated seconds, about 0.5 s of this machine: the profiles' own numbers of
# examples would take minutes.
EXAMPLES = min(settings().max_examples, 25)


@dataclass(frozen=True)
class Change:
    """Something that happens to a link in mid-stream."""

    at: float
    verb: str
    link: LinkKey


@dataclass(frozen=True)
class Plan:
    """One run."""

    scenario: Scenario
    changes: tuple[Change, ...]
    sources: tuple[DeviceId, ...]
    size_bytes: int

    @property
    def cuts(self) -> bool:
        return any(change.verb == "cut" for change in self.changes)


@st.composite
def meshes(draw: st.DrawFn) -> Scenario:
    """Draw a connected partial mesh; each link draws its own faults."""
    names = [f"d{index}" for index in range(draw(st.integers(3, 7)))]
    pairs = {link_key(names[index], names[draw(st.integers(0, index - 1))]) for index in range(1, len(names))}
    others = [link_key(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    pairs |= draw(st.sets(st.sampled_from(others), max_size=len(names)))
    loss, duplicate, reorder = (draw(st.sampled_from((0.0, 0.02, 0.1))) for _ in range(3))
    jitter_s = draw(st.sampled_from((0.0, 0.003, 0.02)))
    links = {
        pair: LinkFigures(
            rate_bps=draw(st.sampled_from((1e6, 2e6, 5e6))),
            delay_s=draw(st.sampled_from((0.001, 0.01, 0.04))),
            jitter_s=jitter_s,
            loss=loss,
            duplicate=duplicate,
            reorder=reorder,
        )
        for pair in sorted(pairs)
    }
    return Scenario(name="mesh", devices=tuple(names), links=links, seed=draw(st.integers(0, 2**32)))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a mesh, what happens to it, and who speaks."""
    scenario = draw(meshes())
    change = st.builds(
        Change,
        st.floats(0.0, HORIZON_S - 2.0),
        st.sampled_from(("cut", "restore", "degrade")),
        st.sampled_from(sorted(scenario.links)),
    )
    changes = draw(st.lists(change, max_size=6))
    sources = draw(st.lists(st.sampled_from(scenario.devices), min_size=1, max_size=3, unique=True))
    return Plan(
        scenario,
        tuple(sorted(changes, key=lambda change: change.at)),
        tuple(sources),
        draw(st.sampled_from((0, 1, 1160, 40_000, 120_000))),
    )


def change_link(simulation: Simulation, change: Change) -> None:
    """Let a change happen; a degraded link is reported by both ends, or the server would keep its tree."""
    if change.verb == "cut":
        simulation.network.cut(change.link)
    elif change.verb == "restore":
        simulation.network.restore(change.link)
    else:
        simulation.network.degrade(change.link, rate_bps=2e5)
        group = simulation.server.group
        assert group is not None
        for device, peer in (change.link, change.link[::-1]):
            declared = simulation.node(device).config.declared
            assert isinstance(declared, dict)
            declared[peer] = replace(declared[peer], rate_bps=2e5)
            figures = QosFigures(bandwidth_bps=2e5, delay_s=0.01, jitter_s=0.0, loss=0.0)
            group.report(device, QosReport(links={peer: figures}), now=simulation.now, wall=simulation.server.wall)


def play(plan: Plan, simulation: Simulation) -> tuple[dict[DeviceId, str], dict[DeviceId, list[bytes]]]:
    """Send a file and messages from every source while the links change; in the end every link is whole again."""
    begin = simulation.now
    changes = list(plan.changes)
    files: dict[DeviceId, str] = {}
    spoken: dict[DeviceId, list[bytes]] = {source: [] for source in plan.sources}
    for number in range(MESSAGES):
        at = begin + number * HORIZON_S / MESSAGES
        while changes and begin + changes[0].at <= at:
            simulation.run_until(begin + changes[0].at)
            change_link(simulation, changes.pop(0))
        simulation.run_until(at)
        for index, source in enumerate(plan.sources):
            if number == 4 * index:
                files[source] = simulation.send_file(source, "files", "payload.bin", content(plan, source))
            spoken[source].append(f"{source} {number} ".encode() * (1 + 150 * (number % 5 == 0)))
            simulation.publish(source, "messages", spoken[source][-1])
    for link in plan.scenario.links:
        simulation.network.restore(link)
    return files, spoken


def content(plan: Plan, source: DeviceId) -> bytes:
    return random.Random(f"{plan.scenario.seed}:{source}").randbytes(plan.size_bytes)


def heard(simulation: Simulation, device: DeviceId, source: DeviceId) -> list[bytes]:
    return [event.payload for event in simulation.events(device, MessageReceived) if event.source == source]


def check(plan: Plan, simulation: Simulation) -> None:
    simulation.settle()
    files, spoken = play(plan, simulation)
    devices = plan.scenario.devices
    for source, stream in files.items():
        others = [device for device in devices if device != source]
        simulation.run_until(lambda: simulation.verified(stream) == others, what=f"the file of {source}")  # noqa: B023
        for device in others:
            assert simulation.content(device, stream) == content(plan, source)
        for source, messages in spoken.items():
            for device in devices:
                if device != source:
                    simulation.run_until(
                        lambda: len(heard(simulation, device, source)) >= len(messages),  # noqa: B023
                        what=f"the messages of {source} at {device}",
                    )
    simulation.run_for(1.0)
    for source, messages in spoken.items():
        for device in devices:
            expected = [] if device == source else messages
            assert heard(simulation, device, source) == expected, f"once, and in the order of {source}"
            assert simulation.events(device, MessageGap) == []
    if not plan.cuts:
        # Repeats and what was pulled are counted apart: they make up for loss and for a tree that changed.
        crossings = [simulation.network.crossings(a, b) for a, b in plan.scenario.links]
        assert sum(crossing.duplicates for crossing in crossings) == 0, "a link carried a first crossing twice"


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(plan=plans())
def test_every_byte_and_message_arrives_once_whatever_the_network_and_the_graph_do(plan: Plan) -> None:
    note(str(plan))
    with Simulation(plan.scenario) as simulation:
        check(plan, simulation)
