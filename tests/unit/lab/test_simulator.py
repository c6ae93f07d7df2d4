import pytest

from agent.core.events import StreamCancelled
from common.errors import LocalProtocolError, RefusedError
from common.messages import ChannelSpec
from lab.happenings import Happening, Verb
from lab.scenario import Access, LinkFigures, Scenario
from lab.simulator import Simulation, SimulationTimeout, channels_of, subscribes

LINE = Scenario(
    name="line",
    devices=("A", "B", "C"),
    links={("A", "B"): LinkFigures(), ("B", "C"): LinkFigures(rate_bps=10e6)},
    seed=5,
)


def test_the_graph_spans_all_devices_after_settling() -> None:
    simulation = Simulation(LINE)
    simulation.settle()
    assert simulation.graph().components() == (("A", "B", "C"),)
    assert {simulation.node(device).status(now=simulation.now).epoch for device in "ABC"} == {simulation.graph().epoch}


def test_time_passes_to_a_time_for_a_span_or_until_a_question_is_true() -> None:
    simulation = Simulation(LINE)
    simulation.run_until(0.25)
    assert simulation.now == 0.25
    simulation.run_for(0.25)
    assert simulation.now == 0.5
    simulation.run_until(lambda: simulation.now > 0.6)
    assert 0.6 < simulation.now < 0.62


def test_what_does_not_come_about_is_told_with_the_seed() -> None:
    simulation = Simulation(LINE, seed=99)
    with pytest.raises(SimulationTimeout, match=r"rain was not reached within 0\.1 s; scenario line, seed 99"):
        simulation.run_until(lambda: False, within=0.1, what="rain")


def test_an_error_inside_the_block_names_the_seed() -> None:
    with pytest.raises(ZeroDivisionError) as caught, Simulation(LINE):
        raise ZeroDivisionError
    assert caught.value.__notes__ == ["scenario line, seed 5, simulated second 0.000000"]


def test_messages_and_files_arrive_and_can_be_taken_back() -> None:
    simulation = Simulation(LINE)
    simulation.settle()
    simulation.put_channel(ChannelSpec(name="chat", kind="message"))
    simulation.run_for(0.1)
    simulation.publish("C", "chat", b"hello")
    stream = simulation.send_file("A", "files", "large.bin", bytes(10_000_000))
    simulation.run_for(0.3)
    assert simulation.messages("A") == [b"hello"]
    assert simulation.timed_events("A")
    assert simulation.verified(stream) == []
    assert 0 < len(simulation.content("B", stream)) < 10_000_000
    simulation.cancel("A", stream)
    simulation.run_until(lambda: bool(simulation.events("C", StreamCancelled)))


def test_a_refusal_of_the_node_reaches_the_caller() -> None:
    simulation = Simulation(LINE)
    simulation.settle()
    with pytest.raises(RefusedError):
        simulation.send_file("A", "nowhere", "x", b"")


def with_happenings(*happenings: Happening) -> Simulation:
    simulation = Simulation(Scenario(name="line", devices=LINE.devices, links=LINE.links, happenings=happenings))
    simulation.run_until(1.0)
    simulation.begin_happenings()
    return simulation


def test_happenings_come_to_links_at_their_times() -> None:
    link = ("A", "B")
    simulation = with_happenings(
        Happening(1.0, Verb.DEGRADE, link=link, figures={"loss": 1.0}),
        Happening(2.0, Verb.RESTORE, link=link),
        Happening(5.0, Verb.CUT, link=link),
    )
    simulation.run_for(1.0)
    assert simulation.network.lost("A", "B") == 0
    simulation.run_for(1.0)
    lost = simulation.network.lost("A", "B")
    assert lost > 0
    simulation.run_for(2.0)
    assert simulation.network.lost("A", "B") == lost
    simulation.run_until(lambda: simulation.graph().components() == (("A",), ("B", "C")), what="a graph without A-B")
    assert simulation.now > 6.0


def test_happenings_come_to_devices_and_the_server_at_their_times() -> None:
    simulation = with_happenings(
        Happening(1.0, Verb.KILL, device="C"),
        Happening(1.1, Verb.KILL),
        Happening(1.2, Verb.START, device="C"),
        Happening(1.3, Verb.START),
    )
    simulation.run_for(1.15)
    with pytest.raises(LocalProtocolError, match="device C is not running"):
        simulation.node("C")
    with pytest.raises(LocalProtocolError, match="the server is not running"):
        simulation.graph()
    with pytest.raises(SimulationTimeout):
        simulation.settle(within=0.01)
    simulation.run_for(0.2)
    assert simulation.alive("C")
    simulation.settle()


def test_devices_that_only_ask_need_not_know_the_graph_to_be_settled() -> None:
    asking = tuple(
        ChannelSpec.model_validate({"name": name, "kind": kind, "routing": "query"})
        for name, kind in (("files", "file"), ("messages", "message"))
    )
    scenario = Scenario(name="l", devices=LINE.devices, links=LINE.links, channels=asking)
    assert subscribes(LINE)
    assert not subscribes(scenario)
    simulation = Simulation(scenario)
    simulation.settle()
    stream = simulation.send_file("A", "files", "x", b"x")
    simulation.run_until(lambda: simulation.verified(stream) == ["B", "C"])


def test_the_file_channel_follows_the_scenarios_objective_unless_the_scenario_says_more() -> None:
    assert channels_of(LINE) == ()
    chat, files = ChannelSpec(name="chat", kind="message"), ChannelSpec(name="files", kind="file", routing="query")
    latency = Scenario(name="l", devices=LINE.devices, links=LINE.links, objective="latency", channels=(chat,))
    assert [(channel.name, channel.objective) for channel in channels_of(latency)] == [
        ("files", "latency"),
        ("chat", "throughput"),
    ]
    told = Scenario(name="l", devices=LINE.devices, links=LINE.links, objective="latency", channels=(files,))
    assert channels_of(told) == (files,)


def test_devices_on_the_internet_join_over_open_addresses_and_a_nat_in_front_of_one() -> None:
    internet = {"A": Access("open"), "B": Access("symmetric")}
    scenario = Scenario(name="online", devices=("A", "B"), links={}, internet=internet)
    with Simulation(scenario) as simulation:
        simulation.settle()
        stream = simulation.send_file("A", "files", "x.bin", bytes(50_000))
        simulation.run_until(lambda: simulation.verified(stream) == ["B"])
        assert simulation.network.crossings("A", "B", stream).chunks > 0
        assert simulation.network.crossings("A", "B", stream).needless == 0
