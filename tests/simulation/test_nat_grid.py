"""Simulated devices behind NATs of every kind find each other as docs/nat-grid.md says, or say why they do not."""

import itertools

import pytest

from agent.core.status import NodeStatus
from lab.nat import Kind
from lab.scenario import Access, LinkFigures, Scenario
from lab.simulator import Simulation
from tests.harness.nat_grid import nat_grid

GRID = nat_grid()
SLOW = LinkFigures(rate_bps=50e6, delay_s=0.01)
PATIENCE_S = 30.0


def online(**kinds: Kind) -> Scenario:
    accesses = {device: Access(kind.value, SLOW) for device, kind in kinds.items()}
    return Scenario(name="online", devices=tuple(sorted(kinds)), links={}, internet=accesses)


def is_open(status: NodeStatus, peer: str) -> bool:
    return any(link.peer == peer and link.state == "open" for link in status.links)


def test_the_grid_is_the_same_from_both_sides() -> None:
    assert all(GRID[one, other] is GRID[other, one] for one, other in GRID)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(Kind, 2)))
@pytest.mark.parametrize("seed", [1, 2])
def test_two_devices_open_a_link_where_their_nats_allow_it(one: Kind, other: Kind, seed: int) -> None:
    with Simulation(online(A=one, B=other), seed=seed) as simulation:
        if GRID[one, other]:
            simulation.settle()
            stream = simulation.send_file("A", "files", "x.bin", bytes(200_000))
            simulation.run_until(lambda: simulation.verified(stream) == ["B"])
            return
        simulation.run_until(PATIENCE_S)
        for device, peer in (("A", "B"), ("B", "A")):
            status = simulation.node(device).status(now=simulation.now)
            assert not is_open(status, peer)
            (missing,) = status.missing
            assert missing.peer == peer
            assert "symmetric" in missing.reason


def test_the_graph_goes_round_where_two_devices_cannot_meet() -> None:
    with Simulation(online(A=Kind.SYMMETRIC, B=Kind.SYMMETRIC, C=Kind.OPEN, D=Kind.PORT_RESTRICTED)) as simulation:
        simulation.settle()
        stream = simulation.send_file("A", "files", "x.bin", bytes(200_000))
        simulation.run_until(lambda: simulation.verified(stream) == ["B", "C", "D"])
        assert simulation.network.crossings("A", "B").chunks == 0
