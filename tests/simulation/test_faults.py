"""What may fail in the middle of a transfer (design section 11), in simulated time."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

import lab
from lab.happenings import parse_happening
from lab.scenario import load_scenario
from lab.simulator import Simulation

SIX = load_scenario(Path(lab.__file__).parent / "scenarios" / "six.toml")
PAYLOAD = random.Random(2).randbytes(2_000_000)


def send_while(*happenings: tuple[float, str]) -> tuple[Simulation, str]:
    """Send a file that takes 0.17 s at the least, and let things happen meanwhile."""
    happening = tuple(parse_happening(at, text, SIX.devices, tuple(SIX.links)) for at, text in happenings)
    simulation = Simulation(replace(SIX, happenings=happening))
    with simulation:
        simulation.settle()
        simulation.begin_happenings()
        stream = simulation.send_file("A", "files", "payload.bin", PAYLOAD)
        simulation.run_until(lambda: simulation.verified(stream) == list("BCDEF"), what="the file at every device")
        for device in "BCDEF":
            assert simulation.content(device, stream) == PAYLOAD
    return simulation, stream


def test_a_relay_is_killed_and_comes_back_and_resumes_from_its_disk() -> None:
    simulation, stream = send_while((0.08, "kill C"), (0.5, "start C"))
    into_c = [simulation.network.crossings(*link, stream) for link in (("A", "C"), ("B", "C"))]
    pieces = len(simulation.network.crossings("A", "B", stream).numbers())
    sent_again = sum(crossings.chunks + crossings.repairs for crossings in into_c) - pieces
    assert sent_again < pieces / 4, "C goes on where it was, and does not begin anew"


def test_the_server_is_killed_and_comes_back_and_the_epochs_go_on() -> None:
    simulation, _ = send_while((0.05, "kill server"))
    simulation.server.start()
    simulation.settle()
    before = simulation.graph()
    simulation.network.cut(("A", "C"))
    simulation.run_until(lambda: simulation.graph().trees != before.trees, what="a tree without A-C")
    assert simulation.graph().epoch > before.epoch


def test_a_tree_link_is_cut_and_the_data_flows_on_the_new_tree() -> None:
    simulation, stream = send_while((0.08, "cut A-C"))
    assert ("B", "C") in simulation.graph().trees[0].edges
    crossings = simulation.network.crossings("B", "C", stream)
    assert crossings.chunks + crossings.pulled > 0


@pytest.mark.parametrize(
    "what", ["degrade A-C loss=5% delay=20ms jitter=10ms", "degrade C-D reorder=20% duplicate=10%"]
)
def test_a_tree_link_gets_worse(what: str) -> None:
    send_while((0.05, what), (1.0, "restore " + what.split()[1]))


def test_a_source_is_killed_and_comes_back_and_sends_the_rest() -> None:
    simulation = Simulation(SIX)
    with simulation:
        simulation.settle()
        stream = simulation.send_file("A", "files", "payload.bin", PAYLOAD)
        simulation.run_for(0.08)
        simulation.kill("A")
        simulation.run_for(1.0)
        assert simulation.verified(stream) == []
        simulation.start("A")
        simulation.run_until(lambda: simulation.verified(stream) == list("BCDEF"), what="the file at every device")
