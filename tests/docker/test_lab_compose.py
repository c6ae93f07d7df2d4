"""The lab's compose backend in real containers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.composed import ROOT, call, in_namespace, why_not

REASON = why_not()
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.timeout(600)]

SCENARIO = """
devices = ["A", "B", "C"]
[scenario]
name = "chain"
[[links]]
between = ["A", "B"]
rate = "100M"
mtu = 4000
[[links]]
between = ["B", "C"]
rate = "50M"
"""
EVENTS = """
[[links]]
between = ["A", "C"]
rate = "40M"
[[events]]
at = "0.5s"
do = "cut A-B"
[[events]]
at = "3s"
do = "restore A-B"
[[events]]
at = "3.5s"
do = "kill C"
[[events]]
at = "4s"
do = "start C"
"""


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Make the images, which costs nothing where they are up to date."""
    call(["make", "images"], within=500)


def test_a_scenario_runs_in_containers_and_leaves_nothing(tmp_path: Path) -> None:
    scenario, out = tmp_path / "chain.toml", tmp_path / "report.json"
    scenario.write_text(SCENARIO + EVENTS)
    command = [sys.executable, "-m", "lab", "run", "--scenario", str(scenario), "--size", "8M", "--backend", "compose"]
    done = subprocess.run(
        in_namespace([*command, "--json", str(out)]), cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert (report["backend"], report["ok"]) == ("compose", True)
    assert all(device["sha256_ok"] for device in report["devices"].values())
    assert [event["event"] for event in report["events"]] == ["cut A-B", "restore A-B", "kill C", "start C"]
    assert report["events"][0]["detected_s"] is not None
    assert "arborcast-lab-" not in call(["docker", "ps", "--all", "--format", "{{.Names}}"])
    assert "arborcast-lab-" not in call(["docker", "network", "ls", "--format", "{{.Name}}"])
