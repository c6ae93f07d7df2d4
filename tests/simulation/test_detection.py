"""How soon a dead link is noticed where data crosses it, and that bad weather is not taken for death."""

import pytest

from agent.core.events import LinkChanged
from lab.happenings import Happening, Verb
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

DETECTED_S = 0.3
"""Design section 11: a tree link that is cut is seen within so many seconds."""


def pair(**figures: float) -> Scenario:
    return Scenario("pair", ("A", "B"), {("A", "B"): LinkFigures(rate_bps=20e6, **figures)})  # type: ignore[arg-type]


def suspects(simulation: Simulation, device: str, since: float) -> list[float]:
    return [
        at - since
        for at, event in simulation.timed_events(device)
        if isinstance(event, LinkChanged) and event.state == "suspect" and at >= since
    ]


def talk(simulation: Simulation, seconds: float, every: float = 0.1) -> None:
    end = simulation.now + seconds
    while simulation.now < end:
        simulation.publish("A", "messages", b"x" * 200)
        simulation.run_for(every)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weather", [{"delay_s": 0.001}, {"delay_s": 0.05, "jitter_s": 0.02}, {"loss": 0.02}])
def test_a_cut_link_that_carries_messages_is_noticed_at_both_ends_within_300_ms(
    seed: int, weather: dict[str, float]
) -> None:
    simulation = Simulation(pair(**weather), seed=seed)
    with simulation:
        simulation.settle()
        talk(simulation, 2.0 + 0.013 * seed)
        cut = simulation.now
        simulation.happen(Happening(0.0, Verb.CUT, link=("A", "B")))
        talk(simulation, 1.0)
        delay = weather.get("delay_s", 0.001) + weather.get("jitter_s", 0.0)
        for device in ("A", "B"):
            found = suspects(simulation, device, cut)
            assert found, device
            # What was under way when the link was cut still arrives.
            assert found[0] <= DETECTED_S + delay


def test_a_file_under_way_is_no_reason_to_notice_later() -> None:
    simulation = Simulation(pair(delay_s=0.005), seed=3)
    with simulation:
        simulation.settle()
        simulation.send_file("A", "files", "f.bin", bytes(20_000_000))
        simulation.run_for(2.0)
        cut = simulation.now
        simulation.happen(Happening(0.0, Verb.CUT, link=("A", "B")))
        simulation.run_for(1.0)
        for device in ("A", "B"):
            # A full queue of 50 ms drains after the cut.
            assert suspects(simulation, device, cut)[0] <= DETECTED_S + 0.055


@pytest.mark.parametrize("weather", [{"loss": 0.1}, {"loss": 0.05, "jitter_s": 0.05, "reorder": 0.05}])
def test_loss_and_jitter_are_not_taken_for_a_dead_link(weather: dict[str, float]) -> None:
    simulation = Simulation(pair(delay_s=0.02, **weather), seed=11)
    with simulation:
        simulation.settle()
        began = simulation.now
        talk(simulation, 60.0)
        assert len(suspects(simulation, "A", began) + suspects(simulation, "B", began)) <= 1
