"""Every byte arrives once at every application, over meshes that lose, reorder and duplicate."""

import random

import pytest

from agent.core.events import MessageGap, MessageReceived
from lab.random_mesh import random_mesh
from lab.scenario import Scenario
from lab.simulator import Simulation

MESSAGES = [f"message {number}".encode() for number in range(20)]


def send_over(scenario: Scenario, size_bytes: int) -> None:
    payload = random.Random(scenario.seed).randbytes(size_bytes)
    simulation = Simulation(scenario)
    with simulation:
        simulation.settle()
        source, speaker = scenario.devices[0], scenario.devices[-1]
        receivers = list(scenario.devices[1:])
        stream = simulation.send_file(source, "files", "payload.bin", payload)
        for message in MESSAGES:
            simulation.publish(speaker, "messages", message)
            simulation.run_for(0.01)
        simulation.run_until(lambda: simulation.verified(stream) == receivers, what="the file at every device")
        listeners = list(scenario.devices[:-1])
        simulation.run_until(
            lambda: all(len(simulation.messages(device)) >= len(MESSAGES) for device in listeners),
            what="the messages at every device",
        )
        simulation.run_for(1.0)
        for device in receivers:
            assert simulation.content(device, stream) == payload
        for device in listeners:
            assert simulation.messages(device) == MESSAGES, "once and in order"
            assert all(event.source == speaker for event in simulation.events(device, MessageReceived))
            assert simulation.events(device, MessageGap) == [], "missed = 0"
        assert sum(simulation.network.crossings(a, b, stream).duplicates for a, b in scenario.links) == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_12_devices_miss_nothing_with_up_to_5_percent_loss_reordering_and_duplication(seed: int) -> None:
    send_over(random_mesh(12, seed=seed, loss=0.05, duplicate=0.02, reorder=0.05, jitter_s=0.005), 60_000)


def test_12_devices_miss_nothing_where_nothing_is_lost() -> None:
    send_over(random_mesh(12, seed=4), 60_000)


def test_100_devices_miss_nothing_with_up_to_5_percent_loss_reordering_and_duplication() -> None:
    send_over(random_mesh(100, seed=5, loss=0.05, duplicate=0.02, reorder=0.05, jitter_s=0.005), 12_000)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_12_devices_miss_nothing_with_many_seeds(seed: int) -> None:
    send_over(random_mesh(12, seed=seed, loss=0.05, duplicate=0.02, reorder=0.05, jitter_s=0.005), 300_000)
