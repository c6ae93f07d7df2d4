"""A tree link dies in mid-transfer while the server is there: how soon data flows again, and what that costs.

How soon a dead link is noticed is the link's own affair, and measured in its tests; here times count from there.
"""

import random
import statistics
from pathlib import Path

import pytest

import lab
from agent.core.link import LinkState
from common.ids import DeviceId
from lab.progress import QuietWatcher
from lab.report import NEEDLESS_FLOOR, NEEDLESS_SHARE
from lab.scenario import load_scenario
from lab.simulated_run import run_simulation
from lab.simulator import Simulation
from tests.harness.flow import UNDER_WAY_S, Flow, behind, even_mesh, graph_at, noticed_at, replaceable
from tests.harness.seeds import seeds

DEVICES = 12
SOON_S = 0.1
"""From the new graph until data flows again: some round trips of 10 ms, and no timer of 200 ms."""
FILE = random.Random(4).randbytes(3_000_000)


def after_a_cut(seed: int, payload: bytes | None) -> tuple[Flow, list[float], list[float]]:
    """Cut a tree link under a stream.

    Returns:
        The stream; for each device behind the cut the seconds from its new graph, and from the moment that somebody
        noticed, until it held more.
    """
    simulation = Simulation(even_mesh(DEVICES, seed))
    with simulation:
        simulation.settle()
        source = simulation.scenario.devices[0]
        flow = Flow(simulation, source, payload).begin()
        flow.run(0.4)
        rng = random.Random(seed)
        edges = simulation.graph().trees[0].edges
        gone = rng.choice(replaceable(simulation, source))
        far = behind(edges, gone, source, simulation.scenario.devices)
        cut_at = simulation.now
        simulation.network.cut(gone)
        flow.run(3.0)
        noticed = noticed_at(simulation, cut_at)
        since_graph, since_noticed = [], []
        for device in far:
            again, graph = flow.again_at(device, cut_at + UNDER_WAY_S), graph_at(simulation, device, cut_at)
            assert again is not None, f"{device} got nothing more"
            assert graph is not None
            since_graph.append(again - graph)
            since_noticed.append(again - noticed)
        flow.drain()
        flow.until(flow.whole_at_all, what="all of it everywhere")
        flow.check()
        assert flow.first_crossings_twice() == 0
    return flow, since_graph, since_noticed


@pytest.mark.parametrize("group", [range(3), pytest.param(range(3, 6), marks=pytest.mark.soak)], ids=str)
def test_messages_flow_again_at_once_on_the_new_tree_at_every_device_behind_the_cut(group: range) -> None:
    since_graph: list[float] = []
    since_noticed: list[float] = []
    for seed in group:
        _, graph, noticed = after_a_cut(seed, None)
        since_graph += graph
        since_noticed += noticed
    assert max(since_graph) <= SOON_S
    assert statistics.median(since_noticed) <= 0.05
    assert max(since_noticed) <= 0.15


@pytest.mark.parametrize("group", [range(2), pytest.param(range(2, 4), marks=pytest.mark.soak)], ids=str)
def test_a_file_flows_again_at_once_and_hardly_anything_of_it_crosses_a_link_again(group: range) -> None:
    since_graph: list[float] = []
    for seed in group:
        flow, graph, _ = after_a_cut(seed, FILE)
        since_graph += graph
        chunks = len(FILE) // 1_000
        assert flow.needless() <= max(NEEDLESS_FLOOR, NEEDLESS_SHARE * chunks)
    assert max(since_graph) <= SOON_S


@pytest.mark.parametrize(
    ("routing", "within"), [("subscribe", 0.15), ("query", 2.0), ("overflow", 2.0), ("embedded", 2.0)]
)
def test_every_manner_mends(routing: str, within: float) -> None:
    """The others have no push: they ask once a link has changed, or somebody tells of a lost edge."""
    simulation = Simulation(even_mesh(DEVICES, 1, routing=routing))
    with simulation:
        simulation.run_for(3.0)
        source = simulation.scenario.devices[0]
        flow = Flow(simulation, source).begin()
        flow.run(1.0)
        edges = simulation.graph().trees[0].edges
        gone = replaceable(simulation, source)[0]
        far = behind(edges, gone, source, simulation.scenario.devices)
        cut_at = simulation.now
        simulation.network.cut(gone)
        flow.run(6.0)
        noticed = noticed_at(simulation, cut_at)
        for device in far:
            again = flow.again_at(device, cut_at + 0.3)
            assert again is not None
            assert again - noticed <= within
        flow.drain(3.0)
        flow.check()


@pytest.mark.parametrize("seed", seeds(3))
def test_a_relay_that_is_killed_is_gone_round_and_goes_on_from_its_disk_when_it_is_back(seed: int) -> None:
    simulation = Simulation(even_mesh(DEVICES, seed))
    with simulation:
        simulation.settle()
        devices = simulation.scenario.devices
        source = devices[0]
        flow = Flow(simulation, source, FILE).begin()
        flow.run(0.3)
        tree, links = simulation.graph().trees[0].edges, simulation.scenario.links

        def left(device: DeviceId) -> list[DeviceId]:
            others = [other for other in devices if other != device]
            rest = [link for link in links if device not in link]
            return behind(rest, ("", ""), source, others)

        relays = [device for device in devices[1:] if sum(device in edge for edge in tree) > 1 and not left(device)]
        victim = random.Random(seed).choice(relays)
        killed_at = simulation.now
        simulation.kill(victim)
        flow.run(2.0)
        noticed = noticed_at(simulation, killed_at)
        for device in devices[1:]:
            if device != victim and device in behind(tree, _upstream(tree, victim, source), source, devices):
                again = flow.again_at(device, killed_at + UNDER_WAY_S)
                assert again is None or again - noticed <= 0.3 or device in simulation.verified(flow.stream)
        held = sum(stop - start for start, stop in simulation.stores(victim).streams[flow.stream].held())
        simulation.start(victim)
        flow.until(flow.whole_at_all, what="all of it everywhere")
        flow.check()
        assert held > 0
        assert flow.needless() <= max(NEEDLESS_FLOOR, NEEDLESS_SHARE * len(FILE) // 1_000)


def _upstream(edges: tuple[tuple[DeviceId, DeviceId], ...], device: DeviceId, source: DeviceId) -> tuple[str, str]:
    """Return the edge by which a device hangs on the source's side of a tree."""
    return next(edge for edge in edges if device in edge and device in behind(edges, edge, source, [device]))


def test_a_link_that_is_cut_for_five_seconds_and_comes_back_brings_nothing_twice() -> None:
    for seed in range(2):
        simulation = Simulation(even_mesh(8, seed, rate_bps=4e6))
        with simulation:
            simulation.settle()
            source = simulation.scenario.devices[0]
            flow = Flow(simulation, source, FILE).begin()
            flow.run(0.3)
            gone = replaceable(simulation, source)[0]
            simulation.network.cut(gone)
            flow.run(5.0)
            simulation.network.restore(gone)
            assert not flow.whole_at_all()
            flow.until(flow.whole_at_all, within=20.0)
            flow.run(1.0)
            flow.check()
            assert simulation.node(gone[0]).peers.links[gone[1]].state is LinkState.OPEN
            assert flow.needless() <= max(NEEDLESS_FLOOR, NEEDLESS_SHARE * len(FILE) // 1_000)
            assert flow.first_crossings_twice() == 0


@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0])
def test_a_tree_link_that_is_silent_for_a_while_and_nothing_can_replace_takes_up_where_it_was(seconds: float) -> None:
    simulation = Simulation(even_mesh(2, 1))
    with simulation:
        simulation.settle()
        flow = Flow(simulation, simulation.scenario.devices[0]).begin()
        flow.run(0.5)
        (link,) = simulation.scenario.links
        simulation.network.cut(link)
        flow.run(seconds)
        simulation.network.restore(link)
        restored_at = simulation.now
        flow.run(2.0)
        flow.drain()
        flow.check()
        again = flow.again_at(simulation.scenario.devices[1], restored_at)
        assert again is not None
        assert again - restored_at <= 0.6, "a sign of life, and a round trip"


@pytest.mark.parametrize("seed", seeds(3))
def test_two_tree_links_are_cut_at_once(seed: int) -> None:
    simulation = Simulation(even_mesh(DEVICES, seed))
    with simulation:
        simulation.settle()
        source = simulation.scenario.devices[0]
        flow = Flow(simulation, source).begin()
        flow.run(0.3)
        links = list(simulation.scenario.links)
        pairs = [
            (one, other)
            for one in replaceable(simulation, source)
            for other in replaceable(simulation, source)
            if one < other
            and not behind([link for link in links if link != other], one, source, simulation.scenario.devices)
        ]
        cut_at = simulation.now
        for link in random.Random(seed).choice(pairs):
            simulation.network.cut(link)
        flow.run(4.0)
        flow.drain()
        flow.check()
        noticed = noticed_at(simulation, cut_at)
        for device in simulation.scenario.devices[1:]:
            again = flow.again_at(device, cut_at + UNDER_WAY_S)
            assert again is not None
            assert again - noticed <= 1.0


@pytest.mark.parametrize("seed", seeds(3))
def test_each_part_of_a_mesh_that_fell_apart_goes_on_and_gets_what_it_missed_when_it_heals(seed: int) -> None:
    simulation = Simulation(even_mesh(8, seed))
    with simulation:
        simulation.settle()
        devices = simulation.scenario.devices
        flows = [Flow(simulation, devices[0]).begin()]
        near, far = devices[:4], devices[4:]
        across = [link for link in simulation.scenario.links if len(set(link) & set(near)) == 1]
        flow = flows[0]
        flow.run(0.3)
        for link in across:
            simulation.network.cut(link)
        simulation.publish(far[0], "messages", b"from the other part")
        flow.run(4.0)
        simulation.publish(far[-1], "messages", b"later from the other part")
        flow.run(4.0)
        for link in across:
            simulation.network.restore(link)
        flow.run(3.0)
        flow.drain(3.0)
        for device in devices:
            got = simulation.messages(device)
            assert [each for each in got if each.startswith(b"message ")] == (flow.sent if device != devices[0] else [])
            others = sorted(each for each in got if not each.startswith(b"message "))
            expected = [b"from the other part"] * (device != far[0]) + [b"later from the other part"] * (
                device != far[-1]
            )
            assert others == expected


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 22))
def test_the_scenario_of_all_troubles_wastes_nothing(seed: int) -> None:
    scenario = load_scenario(Path(lab.__file__).parent / "scenarios" / "trouble.toml")
    payload = random.Random(seed).randbytes(16 << 20)
    report = run_simulation(
        scenario, data=payload, name="payload", source="A", seed=seed, within=None, watcher=QuietWatcher()
    )
    assert report.wasteful == []
    assert report.ok
