"""The lab in network namespaces: shaped links for real, and nothing left of them afterwards."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import ConfigError
from lab.netns_host import NAMESPACES, check_host, run, started_at, sweep

BYTES = 500_000
RATE_BPS = 10e6
CHAIN = """
devices = ["A", "B", "C"]

[scenario]
name = "chain"
datagram_bytes = 1472

[[links]]
between = ["A", "B"]
rate = "50M"
delay = "0ms"

[[links]]
between = ["B", "C"]
rate = "10M"
delay = "0ms"
"""

CUT = """
devices = ["A", "B", "C"]

[scenario]
name = "cut"
datagram_bytes = 1472

[[links]]
between = ["A", "B"]
rate = "30M"
delay = "0ms"

[[links]]
between = ["A", "C"]
rate = "20M"
delay = "0ms"

[[links]]
between = ["B", "C"]
rate = "15M"
delay = "0ms"

[[events]]
at = "500ms"
do = "cut A-B"
"""


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    try:
        check_host()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the chain to its end and keep it up."""
    (tmp_path / "chain.toml").write_text(CHAIN)
    command = [sys.executable, "-m", "lab", "run", "--scenario", str(tmp_path / "chain.toml"), "--size", str(BYTES)]
    command += ["--backend", "netns", "--json", str(tmp_path / "report.json"), "--hold"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def namespaces_of(pid: int) -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob(f"arborcast-{pid}.*"))


def routes(namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(["ip", "-n", namespace, "-j", "route", "show"]))
    return found


@pytest.mark.timeout(90)
def test_a_file_goes_over_shaped_links_alone_and_nothing_is_left(held: subprocess.Popen[str], tmp_path: Path) -> None:
    assert held.stdout is not None
    shown = ""
    for line in held.stdout:
        shown += line
        if "until Ctrl-C" in line:
            break
    assert held.poll() is None, shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"], shown
    assert report["backend"] == "netns"
    for channel, near in (("A-B", "A"), ("B-C", "B")):
        sent = report["channels"][channel]["ethernet_bytes"]
        assert BYTES < sent[near] < 1.2 * BYTES
        assert sum(sent.values()) - sent[near] < 0.2 * BYTES
    # The bucket lets a little through ahead of the rate.
    assert report["devices"]["C"]["seconds"] > 0.95 * 8 * BYTES / RATE_BPS
    namespaces = namespaces_of(held.pid)
    assert [name.rpartition("-")[2] for name in namespaces] == ["A", "B", "C", "server"]
    for name in namespaces[:3]:
        assert all(route["dst"].endswith("/30") for route in routes(name)), "no way but to a link's other end"
    url = next(line.split()[1] for line in shown.splitlines() if line.startswith("server"))
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{url}/healthz").is_success
    held.send_signal(signal.SIGINT)
    held.wait(timeout=30)
    assert held.returncode == 130
    assert namespaces_of(held.pid) == []
    assert not any(link["ifname"].startswith(f"arbl{held.pid}x") for link in json.loads(run(["ip", "-j", "link"])))


@pytest.mark.timeout(120)
def test_a_cut_link_is_found_by_silence_and_the_data_goes_round(tmp_path: Path) -> None:
    (tmp_path / "cut.toml").write_text(CUT)
    command = [sys.executable, "-m", "lab", "run", "--scenario", str(tmp_path / "cut.toml"), "--size", "6M"]
    command += ["--backend", "netns", "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"], done.stdout
    (cut,) = report["events"]
    assert (cut["event"], cut["cut_off"]) == ("cut A-B", ["B"])
    assert cut["detected_s"] is not None, done.stdout
    assert cut["recovered_s"] >= cut["detected_s"], done.stdout
    assert report["graph"]["edges"] == [["A", "C"], ["B", "C"]]


async def test_what_a_killed_run_left_is_swept_away_with_its_processes() -> None:
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    left = f"arborcast-{dead.pid}.{started_at(os.getpid())}.1-A"
    run(["ip", "netns", "add", left])
    command = ["ip", "netns", "exec", left, sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    sleeper = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert sleeper.stdout is not None
    await sleeper.stdout.readline()
    assert left in sweep()
    assert await sleeper.wait() == -signal.SIGKILL
    assert not (NAMESPACES / left).exists()
