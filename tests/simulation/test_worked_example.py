"""The worked example of the method: six devices, B-C the worst of the triangle, A sends 50 pieces (M6, M7, M8)."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

import lab
from common.datagrams import CHUNK_OVERHEAD_BYTES
from common.limits import USUAL_DATAGRAM_BYTES
from common.messages import ChannelSpec
from lab.scenario import Scenario, load_scenario
from lab.simulator import Simulation

SIX = load_scenario(Path(lab.__file__).parent / "scenarios" / "six.toml")
TREE = (("A", "B"), ("A", "C"), ("B", "E"), ("C", "D"), ("D", "F"))
PIECES = 50
PAYLOAD = random.Random(50).randbytes(PIECES * (USUAL_DATAGRAM_BYTES - CHUNK_OVERHEAD_BYTES))


def send_50_pieces(scenario: Scenario) -> tuple[Simulation, str]:
    simulation = Simulation(scenario)
    with simulation:
        simulation.settle()
        stream = simulation.send_file("A", "files", "pieces.bin", PAYLOAD)
        simulation.run_until(lambda: simulation.verified(stream) == list("BCDEF"), what="the file at every device")
        simulation.run_for(1.0)
    return simulation, stream


def times_on(simulation: Simulation, stream: str, a: str, b: str) -> list[int]:
    crossings = simulation.network.crossings(a, b, stream)
    return [crossings.times(number) for number in range(1, PIECES + 1)]


def assert_each_piece_crossed_each_tree_link_once(simulation: Simulation, stream: str) -> None:
    for a, b in TREE:
        assert times_on(simulation, stream, a, b) == [1] * PIECES, f"{a}-{b}"
        assert simulation.network.crossings(a, b, stream).repairs == 0, f"{a}-{b}"
    assert simulation.network.crossings("B", "C", stream).numbers() == []
    for device in "BCDEF":
        assert simulation.content(device, stream) == PAYLOAD


def test_the_graph_leaves_out_the_worst_link_of_the_triangle() -> None:
    simulation = Simulation(SIX)
    simulation.settle()
    assert simulation.graph().trees[0].edges == TREE


def test_each_piece_crosses_each_tree_link_exactly_once_and_a_c_carries_no_copy_for_d_or_f() -> None:
    simulation, stream = send_50_pieces(SIX)
    assert_each_piece_crossed_each_tree_link_once(simulation, stream)
    # Separate copies for C, D and F would carry each piece over A-C three times.
    assert sum(times_on(simulation, stream, "A", "C")) == PIECES


def test_m6_the_source_may_subscribe_to_its_own_neighbours() -> None:
    simulation, stream = send_50_pieces(replace(SIX, scopes=dict.fromkeys(SIX.devices, "neighbours")))
    assert_each_piece_crossed_each_tree_link_once(simulation, stream)


@pytest.mark.parametrize("routing", ["query", "overflow", "subscribe", "embedded"])
def test_m6_the_source_may_learn_its_next_hops_in_each_manner(routing: str) -> None:
    channel = ChannelSpec.model_validate({"name": "files", "kind": "file", "routing": routing})
    simulation, stream = send_50_pieces(replace(SIX, channels=(channel,)))
    assert_each_piece_crossed_each_tree_link_once(simulation, stream)


def test_m7_the_service_may_be_named_by_the_socket() -> None:
    channel = ChannelSpec(name="files", kind="file", sockets="per-channel")
    simulation, stream = send_50_pieces(replace(SIX, channels=(channel,)))
    assert_each_piece_crossed_each_tree_link_once(simulation, stream)


def test_m7_a_channel_that_is_not_distributed_reaches_the_neighbours_and_goes_no_further() -> None:
    channel = ChannelSpec(name="near", kind="message", distribute=False)
    simulation = Simulation(replace(SIX, channels=(channel,)))
    with simulation:
        simulation.settle()
        stream, _ = simulation.publish("A", "near", b"only next door")
        simulation.run_for(3.0)
        assert [device for device in "BCDEF" if simulation.messages(device)] == ["B", "C"]
        assert simulation.network.crossings("C", "D", stream).chunks == 0


def test_every_device_can_be_the_source_and_all_at_once() -> None:
    simulation = Simulation(SIX)
    with simulation:
        simulation.settle()
        files = {device: random.Random(device).randbytes(20_000) for device in SIX.devices}
        streams = {
            device: simulation.send_file(device, "files", f"{device}.bin", data) for device, data in files.items()
        }
        for device, stream in streams.items():
            others = [other for other in SIX.devices if other != device]
            simulation.run_until(lambda: simulation.verified(stream) == others, what=f"the file of {device}")  # noqa: B023
            for a, b in TREE:
                assert simulation.network.crossings(a, b, stream).duplicates == 0
            assert simulation.network.crossings("B", "C", stream).chunks == 0
