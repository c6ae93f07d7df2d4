"""Devices, links and the server fail and come back in mid-stream; every chunk arrives once all the same."""

import random
from dataclasses import replace

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from agent.core.events import MessageGap
from lab.happenings import Happening, Verb
from lab.random_mesh import random_mesh
from lab.scenario import Scenario
from lab.simulator import Simulation

MESSAGES = [f"message {number}".encode() for number in range(12)]
WORSE = {"rate_bps": 5e6, "loss": 0.05, "delay_s": 0.05}
# An example costs about 50 ms; shrinking one costs minutes and says little more than its seed does.
EXAMPLES = min(settings().max_examples, 100)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

SHARES = st.sampled_from([0.0, 0.02, 0.05])
MOMENTS = st.floats(min_value=0.0, max_value=0.4)
SPANS = st.sampled_from([0.05, 0.3, 1.0, 4.0])


@st.composite
def meshes_in_trouble(draw: st.DrawFn) -> Scenario:
    """Draw a mesh and what happens to its links, devices and server; everything is mended in the end."""
    mesh = random_mesh(
        draw(st.integers(min_value=2, max_value=7)),
        seed=draw(st.integers(min_value=0, max_value=10**6)),
        degree=draw(st.sampled_from([2.0, 3.0, 4.0])),
        loss=draw(SHARES),
        duplicate=draw(SHARES),
        reorder=draw(SHARES),
        jitter_s=draw(st.sampled_from([0.0, 0.005])),
    )
    happenings: list[Happening] = []
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        begin = draw(MOMENTS)
        end = begin + draw(SPANS)
        link = draw(st.sampled_from(sorted(mesh.links)))
        device = draw(st.sampled_from(mesh.devices[1:]))
        happenings += draw(
            st.sampled_from(
                [
                    (Happening(begin, Verb.CUT, link=link), Happening(end, Verb.RESTORE, link=link)),
                    (Happening(begin, Verb.DEGRADE, link=link, figures=WORSE), Happening(end, Verb.RESTORE, link=link)),
                    (Happening(begin, Verb.KILL, device=device), Happening(end, Verb.START, device=device)),
                    (Happening(begin, Verb.KILL), Happening(end, Verb.START)),
                ]
            )
        )
    return replace(mesh, happenings=tuple(sorted(happenings, key=lambda happening: happening.at)))


@settings(max_examples=EXAMPLES, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=meshes_in_trouble(), size_bytes=st.sampled_from([0, 1, 1160, 30_000, 150_000]))
def test_files_and_messages_arrive_once_whatever_fails_and_comes_back(scenario: Scenario, size_bytes: int) -> None:
    note(str([f"{happening.at:.3f} {happening}" for happening in scenario.happenings]))
    payload = random.Random(scenario.seed).randbytes(size_bytes)
    source, *receivers = scenario.devices
    killed = [happening.device for happening in scenario.happenings]
    listeners = [device for device in receivers if device not in killed]
    simulation = Simulation(scenario)
    with simulation:
        simulation.settle()
        simulation.begin_happenings()
        stream = simulation.send_file(source, "files", "payload.bin", payload)
        for message in MESSAGES:
            simulation.publish(source, "messages", message)
            simulation.run_for(0.03)
        simulation.run_until(lambda: simulation.verified(stream) == receivers, what="the file at every device")
        simulation.run_until(
            lambda: all(len(simulation.messages(device)) >= len(MESSAGES) for device in listeners),
            what="the messages at every device",
        )
        simulation.run_for(1.0)
        for device in receivers:
            assert simulation.content(device, stream) == payload
        for device in listeners:
            assert simulation.messages(device) == MESSAGES, "once and in order"
            assert simulation.events(device, MessageGap) == []
        assert sum(simulation.network.crossings(*link).duplicates for link in scenario.links) == 0
