"""What the simulator promises about its own speed; it depends on the machine, so `make sim` alone holds it to that."""

import time
from pathlib import Path

import pytest

import lab
from lab.progress import QuietWatcher
from lab.random_mesh import random_mesh
from lab.scenario import load_scenario
from lab.simulated_run import run_simulation
from lab.simulator import Simulation

pytestmark = pytest.mark.soak


def test_100_idle_devices_run_faster_than_real_time() -> None:
    simulation = Simulation(random_mesh(100, seed=1))
    simulation.settle()
    began = time.perf_counter()
    simulation.run_for(20.0)
    assert time.perf_counter() - began < 20.0


def test_64_mib_over_six_devices_take_less_than_a_minute() -> None:
    six = load_scenario(Path(lab.__file__).parent / "scenarios" / "six.toml")
    began = time.perf_counter()
    report = run_simulation(
        six, data=bytes(64 << 20), name="zeros", source="A", seed=1, within=None, watcher=QuietWatcher()
    )
    assert report.ok
    assert time.perf_counter() - began < 60.0
