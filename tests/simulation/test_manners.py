"""The four manners (M9 to M12): what each asks of the server and what not, and a graph that changes in mid-stream."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

import lab
from common.datagrams import CHUNK_OVERHEAD_BYTES
from common.graph import short_epoch
from common.limits import USUAL_DATAGRAM_BYTES
from common.messages import ChannelSpec, QosFigures, QosReport
from lab.scenario import load_scenario
from lab.simulator import Simulation

SIX = load_scenario(Path(lab.__file__).parent / "scenarios" / "six.toml")
PIECE_BYTES = USUAL_DATAGRAM_BYTES - CHUNK_OVERHEAD_BYTES
ROUTINGS = ["query", "overflow", "subscribe", "embedded"]


def simulate(routing: str, **fields: object) -> Simulation:
    """Run the six devices with channels of one manner only, so that no other manner's queries are seen."""
    rules = {"routing": routing, **fields}
    files = ChannelSpec.model_validate({"name": "files", "kind": "file", **rules})
    messages = ChannelSpec.model_validate({"name": "messages", "kind": "message", **rules})
    return Simulation(replace(SIX, channels=(files, messages)))


def until_linked(simulation: Simulation) -> None:
    simulation.run_until(lambda: len(simulation.graph().components()) == 1, what="one tree over all devices")
    simulation.run_for(0.2)


def queries(simulation: Simulation) -> dict[str, int]:
    """Return how many queries each device made, of neighbours and of graphs together."""
    asked = {}
    for device in simulation.scenario.devices:
        requests = simulation.requests(device)
        asked[device] = requests.get("QueryNeighbours", 0) + requests.get("QueryGraph", 0)
    return asked


def scopes(simulation: Simulation) -> set[str]:
    return {simulation.node(device).control.subscribed or "none" for device in simulation.scenario.devices}


def send(simulation: Simulation, size_bytes: int) -> str:
    data = random.Random(9).randbytes(size_bytes)
    stream = simulation.send_file("A", "files", "f.bin", data)
    simulation.run_until(lambda: simulation.verified(stream) == list("BCDEF"), what="the file at every device")
    for device in "BCDEF":
        assert simulation.content(device, stream) == data
    return stream


def test_m9_query_asks_periodically_and_does_not_subscribe_to_the_graph() -> None:
    with simulate("query", query_interval_s=2.0) as simulation:
        until_linked(simulation)
        send(simulation, 20 * PIECE_BYTES)
        before = queries(simulation)
        simulation.run_for(20.0)
        after = queries(simulation)
        assert scopes(simulation) == {"roster"}
        for device in SIX.devices:
            # Every 2 s at first, up to four times as long while nothing changes; two channels of this manner.
            assert 2 * 2 <= after[device] - before[device] <= 2 * 11, device


def test_m9_query_learns_a_changed_graph_by_its_next_query() -> None:
    with simulate("query", query_interval_s=1.0) as simulation:
        until_linked(simulation)
        simulation.run_for(4.0)
        old = simulation.node("D").table.epoch
        simulation.network.cut(("A", "C"))
        simulation.run_for(8.0)
        assert simulation.graph().epoch > (old or 0)
        assert simulation.node("D").table.epoch == simulation.graph().epoch


def test_m10_overflow_asks_when_its_buffer_overflows_and_drops_nothing() -> None:
    with simulate("overflow", buffer_bytes=20 * USUAL_DATAGRAM_BYTES) as simulation:
        until_linked(simulation)
        assert queries(simulation) == dict.fromkeys(SIX.devices, 0)
        stream = send(simulation, 100 * PIECE_BYTES)
        asked = queries(simulation)
        assert scopes(simulation) == {"roster"}
        # 101 chunks in buffers of 20, and what is left over at the end of the stream.
        assert 5 <= asked["A"] <= 8
        for device in "BCD":
            assert asked[device] >= 2, device
        for link in SIX.links:
            assert simulation.network.crossings(*link, stream).duplicates == 0


def test_m10_overflow_flushes_a_small_message_on_its_timer() -> None:
    with simulate("overflow") as simulation:
        until_linked(simulation)
        simulation.publish("A", "messages", b"small")
        start = simulation.now
        simulation.run_until(lambda: all(simulation.messages(device) for device in "BCDEF"), what="the message")
        # Held back 50 ms at each of A, C and D, and a query of 4 ms each.
        assert 0.15 <= simulation.now - start <= 0.3


def test_m10_overflow_of_a_delay_sensitive_service_flushes_sooner() -> None:
    with simulate("overflow", delay_sensitive=True) as simulation:
        until_linked(simulation)
        simulation.publish("A", "messages", b"small")
        start = simulation.now
        simulation.run_until(lambda: all(simulation.messages(device) for device in "BCDEF"), what="the message")
        assert simulation.now - start <= 0.1


def test_m11_subscribe_subscribes_once_and_makes_no_query() -> None:
    with simulate("subscribe") as simulation:
        until_linked(simulation)
        send(simulation, 50 * PIECE_BYTES)
        simulation.network.cut(("A", "C"))
        simulation.run_for(3.0)
        assert queries(simulation) == dict.fromkeys(SIX.devices, 0)
        assert scopes(simulation) == {"graph"}
        for device in SIX.devices:
            assert simulation.node(device).table.epoch == simulation.graph().epoch


def test_m12_embedded_asks_at_the_source_alone() -> None:
    with simulate("embedded") as simulation:
        until_linked(simulation)
        stream = send(simulation, 50 * PIECE_BYTES)
        asked = queries(simulation)
        assert asked["A"] >= 1
        assert {device: asked[device] for device in "BCDEF"} == dict.fromkeys("BCDEF", 0)
        assert scopes(simulation) == {"roster"}
        for device in "BCDEF":
            node = simulation.node(device)
            assert node.table.epoch is None, "an embedded graph never becomes the agent's graph"
            entry = next(entry for entry in node.streams.by_short.values() if entry.stream.opening.hex == stream)
            assert entry.stream.graphs.epoch == simulation.graph().epoch


@pytest.mark.parametrize("routing", ROUTINGS)
def test_messages_1_and_2_travel_under_the_first_graph_and_3_to_50_under_the_second(routing: str) -> None:
    with simulate(routing, query_interval_s=1.0) as simulation:
        until_linked(simulation)
        for number in (1, 2):
            simulation.publish("A", "messages", f"piece {number}".encode())
        simulation.run_until(lambda: all(len(simulation.messages(device)) == 2 for device in "BCDEF"), what="1 and 2")
        first = simulation.graph()
        change_the_graph(simulation)
        simulation.run_until(lambda: knows_newest(simulation, routing), what="the second graph")
        second = simulation.graph()
        stream = ""
        for number in range(3, 51):
            stream, _ = simulation.publish("A", "messages", f"piece {number}".encode())
            simulation.run_for(0.002)
        simulation.run_until(lambda: all(len(simulation.messages(device)) == 50 for device in "BCDEF"), what="3 to 50")
        simulation.run_for(2.0)
        expected = [f"piece {number}".encode() for number in range(1, 51)]
        for device in "BCDEF":
            assert simulation.messages(device) == expected
        assert ("A", "C") in first.trees[0].edges
        assert ("B", "C") in second.trees[0].edges
        assert ("A", "C") not in second.trees[0].edges
        for link in SIX.links:
            crossings = simulation.network.crossings(*link, stream)
            expected_numbers = [1, 2] if link in first.trees[0].edges else []
            expected_numbers += list(range(3, 51)) if link in second.trees[0].edges else []
            assert crossings.numbers() == expected_numbers, link
            assert crossings.duplicates == 0, link
            epochs = {number: crossings.epochs[number] for number in crossings.numbers()}
            assert epochs == {
                number: short_epoch((first if number < 3 else second).epoch) for number in expected_numbers
            }, link


def change_the_graph(simulation: Simulation) -> None:
    """Let both ends of A-C report that it got slower than B-C; the link itself stays as it is."""
    group = simulation.server.group
    assert group is not None
    figures = QosFigures(bandwidth_bps=1e6, delay_s=0.002, jitter_s=0.0, loss=0.0)
    for device, peer in (("A", "C"), ("C", "A")):
        declared = simulation.node(device).config.declared
        assert isinstance(declared, dict)
        declared[peer] = replace(declared[peer], rate_bps=1e6)
        group.report(device, QosReport(links={peer: figures}), now=simulation.now, wall=simulation.server.wall)


def knows_newest(simulation: Simulation, routing: str) -> bool:
    graph = simulation.graph()
    if ("A", "C") in graph.trees[0].edges:
        return False
    devices = "A" if routing == "embedded" else simulation.scenario.devices
    if routing == "overflow":
        return True
    return all(simulation.node(device).table.epoch == graph.epoch for device in devices)
