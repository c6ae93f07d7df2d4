"""Everything at once, for as long as `make sim` may take: manners, sockets, scopes, several sources, faults."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from agent.core.events import MessageGap
from common.ids import DeviceId
from common.messages import ChannelSpec
from lab.happenings import Happening, Verb
from lab.random_mesh import random_mesh
from lab.scenario import Scenario
from lab.simulator import Simulation

pytestmark = pytest.mark.soak

MANNERS = ("query", "overflow", "subscribe", "embedded")
SIZES = (0, 1, 5000, 200_000, 1_000_000)
WORSE: Mapping[str, float] = {"rate_bps": 5e6, "loss": 0.05, "delay_s": 0.05}
MESSAGES = 30


def draw_channel(rng: random.Random, name: str, kind: str) -> ChannelSpec:
    return ChannelSpec.model_validate(
        {
            "name": name,
            "kind": kind,
            "routing": rng.choice(MANNERS),
            "sockets": rng.choice(("shared", "per-channel")),
            "objective": rng.choice(("throughput", "latency")),
            "delay_sensitive": rng.random() < 0.3,
            "query_interval_s": 1.0,
        }
    )


def draw_happenings(rng: random.Random, mesh: Scenario) -> tuple[Happening, ...]:
    """Draw faults, each of which is mended in the end."""
    happenings: list[Happening] = []
    for _ in range(rng.randint(0, 3)):
        begin = 1.5 * rng.random()
        end = begin + rng.choice((0.1, 0.5, 2.0, 6.0))
        link, device = rng.choice(list(mesh.links)), rng.choice(mesh.devices)
        happenings += rng.choice(
            (
                (Happening(begin, Verb.CUT, link=link), Happening(end, Verb.RESTORE, link=link)),
                (Happening(begin, Verb.DEGRADE, link=link, figures=WORSE), Happening(end, Verb.RESTORE, link=link)),
                (Happening(begin, Verb.KILL, device=device), Happening(end, Verb.START, device=device)),
                (Happening(begin, Verb.KILL), Happening(end, Verb.START)),
            )
        )
    return tuple(sorted(happenings, key=lambda happening: happening.at))


def draw_scenario(rng: random.Random, seed: int) -> Scenario:
    mesh = random_mesh(
        rng.randint(2, 10),
        seed=seed,
        degree=rng.choice((2.0, 3.0, 4.0)),
        loss=rng.choice((0.0, 0.02, 0.05)),
        duplicate=rng.choice((0.0, 0.05)),
        reorder=rng.choice((0.0, 0.05)),
        jitter_s=rng.choice((0.0, 0.005)),
    )
    return replace(
        mesh,
        channels=(draw_channel(rng, "files", "file"), draw_channel(rng, "messages", "message")),
        scopes={device: "neighbours" for device in mesh.devices if rng.random() < 0.4},
        happenings=draw_happenings(rng, mesh),
    )


def send_files(rng: random.Random, simulation: Simulation) -> dict[str, tuple[DeviceId, bytes]]:
    devices = simulation.scenario.devices
    files = {}
    for source in rng.sample(devices, rng.randint(1, min(3, len(devices)))):
        data = rng.randbytes(rng.choice(SIZES))
        files[simulation.send_file(source, "files", "payload.bin", data)] = (source, data)
    return files


@pytest.mark.parametrize("seed", range(300))
def test_nothing_is_missed_or_repeated_whatever_the_seed_draws(seed: int) -> None:
    rng = random.Random(f"soak:{seed}")
    scenario = draw_scenario(rng, seed)
    killed = [happening.device for happening in scenario.happenings]
    steady = [device for device in scenario.devices if device not in killed]
    spoken = [f"{number}.".encode() * rng.choice((1, 1, 1, 3000)) for number in range(MESSAGES)]
    with Simulation(scenario, seed=seed) as simulation:
        simulation.settle()
        simulation.begin_happenings()
        files = send_files(rng, simulation)
        for message in spoken:
            if steady:
                simulation.publish(steady[0], "messages", message)
            simulation.run_for(rng.choice((0.0, 0.01, 0.1)))
        for stream, (source, data) in files.items():
            others = [device for device in scenario.devices if device != source]
            simulation.run_until(lambda: simulation.verified(stream) == others, what=f"the file of {source}")  # noqa: B023
            assert all(simulation.content(device, stream) == data for device in others)
        simulation.run_until(
            lambda: all(len(simulation.messages(device)) >= MESSAGES for device in steady[1:]), what="all messages"
        )
        simulation.run_for(1.0)
        for device in steady[1:]:
            assert simulation.messages(device) == spoken, "once and in order"
            assert simulation.events(device, MessageGap) == []
        if all(channel.routing != "overflow" for channel in scenario.channels):
            # What was buffered goes by the answer's epoch, so with overflow a tree that changes may bring it twice.
            assert sum(simulation.network.crossings(*link).duplicates for link in scenario.links) == 0
