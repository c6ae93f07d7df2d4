"""The same seed gives the same run, event by event, in this process and in any other."""

import os
import subprocess
import sys

from lab.random_mesh import random_mesh
from lab.simulator import Simulation


def digest(seed: int) -> str:
    mesh = random_mesh(8, seed=11, loss=0.05, duplicate=0.02, reorder=0.05, jitter_s=0.003)
    simulation = Simulation(mesh, seed=seed)
    simulation.run_for(1.5)
    simulation.send_file("d000", "files", "payload.bin", bytes(30_000))
    simulation.run_for(1.5)
    simulation.kill("d003")
    simulation.server.kill()
    simulation.run_for(0.5)
    simulation.server.start()
    simulation.start("d003")
    simulation.run_for(2.0)
    return simulation.digest


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first = digest(1)
    assert digest(1) == first
    assert digest(2) != first


def test_the_order_of_pythons_sets_and_hashes_plays_no_part() -> None:
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('replay', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(module.digest(1))\n"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1]
