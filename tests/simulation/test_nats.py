"""What NATs do to links that stand: they forget, and they begin anew."""

import pytest

from agent.core.events import LinkChanged
from lab.happenings import Happening, Verb
from lab.nat import Kind
from lab.scenario import Access, Scenario
from lab.simulator import Simulation


def online(**kinds: Kind) -> Scenario:
    accesses = {device: Access(kind.value) for device, kind in kinds.items()}
    return Scenario(name="online", devices=tuple(sorted(kinds)), links={}, internet=accesses)


def test_an_idle_link_outlives_what_its_nats_remember() -> None:
    """A NAT forgets after 120 s without a datagram; probes go at least every second."""
    with Simulation(online(A=Kind.PORT_RESTRICTED, B=Kind.PORT_RESTRICTED), seed=5) as simulation:
        simulation.settle()
        began = simulation.now
        simulation.run_for(400.0)
        changes = [at for at, event in simulation.timed_events("A") if isinstance(event, LinkChanged) and at > began]
        assert changes == []


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.OPEN])
@pytest.mark.parametrize("peer", [Kind.OPEN, Kind.ADDRESS_RESTRICTED])
def test_a_nat_that_begins_anew_interrupts_a_link_for_less_than_a_second(kind: Kind, peer: Kind) -> None:
    with Simulation(online(A=peer, B=kind), seed=6) as simulation:
        simulation.settle()
        simulation.publish("A", "messages", b"before")
        simulation.run_until(lambda: simulation.messages("B") == [b"before"])
        simulation.network.internet.rebind("B")
        began = simulation.now
        simulation.publish("A", "messages", b"after")
        simulation.run_until(lambda: simulation.messages("B") == [b"before", b"after"], within=5.0)
        assert simulation.now - began < 1.0


def test_a_port_that_a_nat_took_away_is_told_and_found_again() -> None:
    with Simulation(online(A=Kind.PORT_RESTRICTED, B=Kind.PORT_RESTRICTED), seed=7) as simulation:
        simulation.settle()
        before = simulation.node("A").peers.links["B"].addresses
        simulation.network.internet.rebind("B")
        simulation.run_until(lambda: simulation.node("A").peers.links["B"].addresses != before, within=60.0)
        simulation.run_until(lambda: simulation.node("A").peers.usable() == ("B",), within=30.0)


def test_a_killed_device_behind_a_nat_comes_back() -> None:
    with Simulation(online(A=Kind.SYMMETRIC, B=Kind.ADDRESS_RESTRICTED, C=Kind.OPEN), seed=8) as simulation:
        simulation.settle()
        simulation.happen(Happening(0.0, Verb.KILL, device="B"))
        simulation.run_for(10.0)
        simulation.happen(Happening(0.0, Verb.START, device="B"))
        simulation.run_until(lambda: simulation.node("B").peers.usable() == ("A", "C"), within=30.0)
