"""The systemd units: what they start exists, and systemd finds nothing wrong with them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import agent.cli
import server.cli
from tests.unit.host.test_config_commands import run

ROOT = Path(__file__).parents[2]
UNITS = {"arborcast-agent": (agent.cli.app, "agent"), "arborcast-server": (server.cli.app, "run")}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_with_flags_that_there_are(name: str) -> None:
    app, command = UNITS[name]
    (line,) = re.findall(
        r"^ExecStart=(.+)$", (ROOT / "deploy" / "systemd" / f"{name}.service").read_text(), re.MULTILINE
    )
    words = line.split()
    assert words[:2] == [f"/usr/local/bin/{name.removesuffix('-agent')}", command]
    usage = re.sub(r"\x1b\[[0-9;]*m", "", run(app, command, "--help"))
    assert all(word in usage for word in words if word.startswith("--"))


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / f"{name}.service"
    text = (ROOT / "deploy" / "systemd" / unit.name).read_text()
    unit.write_text(text.replace(f"/usr/local/bin/{name.removesuffix('-agent')}", sys.executable))
    found = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    # Of other units of the host it may have things to say.
    assert (found.returncode, name in found.stderr) == (0, False), found.stderr
