import pytest

from agent.core.events import OpenSocket
from common.errors import LocalProtocolError
from common.messages import ChannelSpec
from lab.device import MOST_ALARMS_AT_ONCE
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

PAIR = Scenario(name="pair", devices=("A", "B"), links={("A", "B"): LinkFigures()})


def test_a_dead_device_does_nothing_and_keeps_its_disk() -> None:
    simulation = Simulation(PAIR)
    simulation.settle()
    stream = simulation.send_file("A", "files", "x", b"1234")
    simulation.run_until(lambda: simulation.verified(stream) == ["B"])
    simulation.kill("B")
    simulation.kill("B")
    assert not simulation.alive("B")
    with pytest.raises(LocalProtocolError, match="device B is not running"):
        simulation.publish("B", "messages", b"x")
    simulation.run_for(1.0)
    assert simulation.content("B", stream) == b"1234"


def test_a_device_started_twice_is_started_once() -> None:
    simulation = Simulation(PAIR)
    node = simulation.node("A")
    simulation.start("A")
    assert simulation.node("A") is node
    simulation.settle()


def test_a_device_counts_what_its_node_asks_of_the_server() -> None:
    simulation = Simulation(PAIR)
    simulation.settle()
    assert simulation.requests("A")["Subscribe"] == 1
    assert simulation.requests("A")["AdjacencyReport"] >= 1


def test_a_socket_that_the_node_asks_for_is_opened() -> None:
    channel = ChannelSpec(name="own", kind="message", sockets="per-channel")
    simulation = Simulation(Scenario(name="pair", devices=PAIR.devices, links=PAIR.links, channels=(channel,)))
    simulation.settle()
    simulation.run_for(1.0)
    assert simulation.events("A", OpenSocket) == [OpenSocket("own", "B")]
    simulation.publish("A", "own", b"hello")
    simulation.run_until(lambda: simulation.messages("B") == [b"hello"])


def test_a_timer_that_stands_still_is_an_error_and_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(PAIR)
    node = simulation.node("A")
    monkeypatch.setattr(node, "poll_timeout", lambda: 0.5)
    with pytest.raises(LocalProtocolError, match=r"the timer of A stands still at 0\.5 s"):
        simulation.run_until(1.0)
    assert MOST_ALARMS_AT_ONCE >= 1000
