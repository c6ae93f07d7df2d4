"""The server is gone, and then a tree link dies: how soon other links serve, for how long, and at what cost."""

import random

import pytest

from agent.core.events import FileVerified, ReceiptsChanged
from common.ids import DeviceId, LinkKey
from lab.network import Network
from lab.simulator import Simulation
from tests.harness.flow import UNDER_WAY_S, Flow, behind, even_mesh, noticed_at, replaceable
from tests.harness.seeds import seeds

DEVICES = 10
BRIDGED_S = 0.25 + 0.45
"""From the moment that somebody notices: 250 ms until an edge counts as lost, and HAVE every 100 ms along some hops."""
FILE = random.Random(5).randbytes(3_000_000)


def without_server(seed: int, *, devices: int = DEVICES, rate_bps: float = 25e6) -> Simulation:
    """Return a mesh that has settled."""
    simulation = Simulation(even_mesh(devices, seed, rate_bps=rate_bps))
    simulation.settle()
    return simulation


def cut_under(flow: Flow, gone: LinkKey) -> list[DeviceId]:
    """Kill the server, let the stream flow on, and cut a link; return who is behind it."""
    simulation = flow.simulation
    edges = simulation.graph().trees[0].edges
    simulation.server.kill()
    flow.run(0.2)
    simulation.network.cut(gone)
    return behind(edges, gone, flow.source, simulation.scenario.devices)


def degraded(simulation: Simulation) -> list[DeviceId]:
    """Return the devices that know of a lost edge."""
    devices = simulation.scenario.devices
    return [
        device for device in devices if simulation.alive(device) and simulation.node(device).degraded.since is not None
    ]


def pulled(simulation: Simulation) -> int:
    return sum(simulation.node(device).degraded.chunks_pulled for device in simulation.scenario.devices)


def flooded(simulation: Simulation) -> int:
    return sum(simulation.node(device).degraded.messages_flooded for device in simulation.scenario.devices)


def pulled_over(network: Network, links: list[LinkKey], stream: str) -> int:
    return sum(network.crossings(*link, stream).pulled for link in links)


@pytest.mark.parametrize("seed", seeds(4))
def test_messages_pass_round_a_dead_link_while_the_server_is_gone_and_by_the_tree_when_it_is_back(seed: int) -> None:
    simulation = without_server(seed)
    with simulation:
        flow = Flow(simulation, simulation.scenario.devices[0]).begin()
        flow.run(0.3)
        gone = random.Random(seed).choice(replaceable(simulation, flow.source))
        far = cut_under(flow, gone)
        cut_at = simulation.now
        flow.run(3.0)
        noticed = noticed_at(simulation, cut_at)
        for device in far:
            again = flow.again_at(device, cut_at + UNDER_WAY_S)
            assert again is not None
            assert again - noticed <= BRIDGED_S
        assert degraded(simulation) == list(simulation.scenario.devices)
        assert flooded(simulation) > 0
        simulation.server.start()
        flow.until(lambda: degraded(simulation) == [], within=20.0, what="a graph without the dead link")
        flow.run(4.0)  # The server learns of the links one by one, and its tree changes with each.
        before = pulled_over(simulation.network, list(simulation.scenario.links), flow.stream)
        flow.run(1.0)
        links = list(simulation.scenario.links)
        assert pulled_over(simulation.network, links, flow.stream) == before, "the tree brings all again"
        flow.drain()
        flow.check()
        assert flow.first_crossings_twice() == 0
        assert pulled_over(simulation.network, links, flow.stream) <= 2 * len(flow.sent) * len(links)


@pytest.mark.parametrize("seed", seeds(4))
def test_a_file_passes_round_a_dead_link_each_range_pulled_from_one(seed: int) -> None:
    simulation = without_server(seed, rate_bps=10e6)
    with simulation:
        flow = Flow(simulation, simulation.scenario.devices[0], FILE).begin()
        flow.run(0.3)
        gone = random.Random(seed).choice(replaceable(simulation, flow.source))
        far = cut_under(flow, gone)
        cut_at = simulation.now
        flow.until(flow.whole_at_all, within=15.0, what="the file everywhere")
        noticed = noticed_at(simulation, cut_at)
        for device in far:
            again = flow.again_at(device, cut_at + UNDER_WAY_S)
            assert again is not None
            assert again - noticed <= BRIDGED_S
        flow.run(1.0)
        flow.check()
        chunks = len(FILE) // 1_000
        assert pulled(simulation) > 0
        assert flooded(simulation) == 0
        assert flow.needless() <= 0.02 * chunks + 32
        twice = sum(
            counters.repairs_received
            for device in simulation.scenario.devices
            for counters in simulation.node(device).peers.counters.values()
        )
        assert twice <= 0.1 * chunks, "two ways may begin to bring the same"
        assert flow.first_crossings_twice() == 0


@pytest.mark.parametrize("seed", seeds(2))
def test_streams_that_begin_in_the_meantime_reach_everybody_and_their_receipts_come_back(seed: int) -> None:
    simulation = without_server(seed)
    with simulation:
        source = simulation.scenario.devices[0]
        gone = random.Random(seed).choice(replaceable(simulation, source))
        simulation.server.kill()
        simulation.network.cut(gone)
        simulation.run_until(lambda: degraded(simulation) == list(simulation.scenario.devices), what="all know of it")
        began = simulation.now
        flow = Flow(simulation, source, FILE).begin()
        flow.until(flow.whole_at_all, within=10.0, what="the file everywhere")
        flow.check()
        assert simulation.now - began <= 6.0
        flow.run(1.5)
        receipts = simulation.events(source, ReceiptsChanged)[-1].receipts
        assert {receipts[device].state for device in simulation.scenario.devices[1:]} == {"verified"}
        large = random.Random(seed).randbytes(300_000)
        other = simulation.scenario.devices[-1]
        simulation.publish(other, "messages", b"small")
        simulation.publish(other, "messages", large)
        simulation.run_for(3.0)
        for device in simulation.scenario.devices:
            assert simulation.messages(device) == ([] if device == other else [b"small", large])


@pytest.mark.parametrize("seed", seeds(3))
def test_an_edge_that_is_back_ends_it_and_nothing_comes_twice(seed: int) -> None:
    simulation = without_server(seed)
    with simulation:
        flow = Flow(simulation, simulation.scenario.devices[0]).begin()
        flow.run(0.3)
        gone = random.Random(seed).choice(replaceable(simulation, flow.source))
        cut_under(flow, gone)
        flow.run(random.Random(seed).choice((1.5, 3.0, 8.0)))
        simulation.network.restore(gone)
        flow.until(lambda: degraded(simulation) == [], within=8.0, what="the edge back")
        flow.run(1.0)
        flow.drain()
        flow.check()
        assert flow.first_crossings_twice() == 0


@pytest.mark.parametrize("seed", seeds(3))
def test_two_links_die_and_a_relay_restarts_from_its_disk_while_the_server_is_gone(seed: int) -> None:
    simulation = without_server(seed, rate_bps=10e6)
    with simulation:
        rng = random.Random(seed)
        devices, links = simulation.scenario.devices, list(simulation.scenario.links)
        flow = Flow(simulation, devices[0], FILE).begin()
        flow.run(0.3)
        first = rng.choice(replaceable(simulation, flow.source))
        rest = [link for link in links if link != first]
        second = rng.choice([link for link in rest if not behind(rest, link, flow.source, devices)])
        cut_under(flow, first)
        simulation.network.cut(second)
        flow.run(0.5)
        victim = rng.choice(devices[1:])
        simulation.kill(victim)
        flow.run(1.0)
        simulation.start(victim)
        flow.until(flow.whole_at_all, within=20.0, what="the file everywhere")
        flow.check()
        assert all(len(simulation.events(device, FileVerified)) == 1 for device in devices[1:])
        simulation.server.start()
        flow.until(lambda: degraded(simulation) == [], within=20.0, what="a graph without the dead links")


def test_a_mesh_that_fell_apart_while_the_server_is_gone_heals_without_it() -> None:
    simulation = without_server(3, devices=8)
    with simulation:
        devices = simulation.scenario.devices
        across = [link for link in simulation.scenario.links if len(set(link) & set(devices[:4])) == 1]
        flow = Flow(simulation, devices[0]).begin()
        flow.run(0.3)
        simulation.server.kill()
        for link in across:
            simulation.network.cut(link)
        flow.run(8.0)
        assert all(len(simulation.messages(device)) < len(flow.sent) - 700 for device in devices[4:])
        for link in across:
            simulation.network.restore(link)
        flow.run(8.0)
        flow.drain(2.0)
        flow.check()
        assert degraded(simulation) == []


def test_a_server_that_is_back_before_the_link_is_missed_costs_nothing() -> None:
    simulation = without_server(1)
    with simulation:
        flow = Flow(simulation, simulation.scenario.devices[0]).begin()
        flow.run(0.3)
        simulation.server.kill()
        flow.run(1.0)
        simulation.server.start()
        flow.run(2.0)
        assert flooded(simulation) == pulled(simulation) == 0
        flow.drain()
        flow.check()
