"""The lab on real sockets: one server process and six agent processes on loopback."""

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

import lab
from common.datagrams import CHUNK_OVERHEAD_BYTES
from common.ids import DeviceId
from lab.happenings import Happening, Verb
from lab.loopback import LoopbackSystem
from lab.loopback_run import LoopbackRun
from lab.progress import QuietWatcher
from lab.report import Report
from lab.scenario import load_scenario

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(120)]

FILE = Path(lab.__file__).parent / "scenarios" / "six.toml"
SIX = load_scenario(FILE)
TREE = (("A", "B"), ("A", "C"), ("B", "E"), ("C", "D"), ("D", "F"))
PIECES = 50


def made_up(folder: Path, size_bytes: int) -> Path:
    file = folder / "payload.bin"
    file.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    return file


async def send_while(
    folder: Path, size_bytes: int, disturb: Callable[[LoopbackSystem, LoopbackRun], Awaitable[None]]
) -> Report:
    """Send a file from A, and disturb the system meanwhile."""
    watcher = QuietWatcher()
    file = made_up(folder, size_bytes)
    system = LoopbackSystem(SIX, folder / "lab", watcher)
    try:
        await system.start()
        await system.span()
        run = LoopbackRun(system, file=file, source="A", within=60.0, watcher=watcher)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(run.run())
            tasks.create_task(disturb(system, run))  # type: ignore[arg-type]
        return running.result()
    finally:
        await system.stop()


async def in_the_middle(system: LoopbackSystem, run: LoopbackRun, device: DeviceId) -> None:
    """Wait until a device holds some of the file, and make sure that it has not got all of it."""
    async with asyncio.timeout(30):
        while True:
            stream = await system.ask_agent(device, f"/streams/{run.stream}") if run.stream else None
            if stream is not None and stream["held_bytes"] > 0:
                assert stream["state"] == "receiving", "the file is too small for this test"
                return
            await asyncio.sleep(0.01)


def test_the_worked_example_crosses_each_tree_link_once_in_real_processes(tmp_path: Path) -> None:
    file = made_up(tmp_path, PIECES * (SIX.datagram_bytes - CHUNK_OVERHEAD_BYTES))
    out = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lab",
            "run",
            "--scenario",
            FILE,
            "--file",
            file,
            "--json",
            out,
            "--backend",
            "loopback",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["graph"]["edges"] == [list(edge) for edge in TREE]
    assert all(device["sha256_ok"] for device in report["devices"].values())
    for a, b in TREE:
        channel = report["channels"][f"{a}-{b}"]
        assert channel["chunks"] == PIECES + 1, "each piece and the closing record once"
        assert channel["duplicates"] == 0
    assert report["channels"]["B-C"]["chunks"] == 0
    copies = {
        a + b: round(report["channels"][f"{a}-{b}"]["unicast_bytes"] / report["channels"][f"{a}-{b}"]["bytes"])
        for a, b in TREE
    }
    assert copies == {"AB": 2, "AC": 3, "BE": 1, "CD": 2, "DF": 1}


async def test_a_relay_is_killed_in_the_middle_and_resumes_from_its_disk(tmp_path: Path) -> None:
    async def disturb(system: LoopbackSystem, run: LoopbackRun) -> None:
        await in_the_middle(system, run, "C")
        await run.happen(Happening(0.0, Verb.KILL, device="C"))
        await run.happen(Happening(0.0, Verb.START, device="C"))

    report = await send_while(tmp_path, 24_000_000, disturb)
    assert all(outcome.sha256_ok for outcome in report.devices.values()), report
    assert report.trouble == []


async def test_the_server_is_killed_in_the_middle_and_comes_back_with_rising_epochs(tmp_path: Path) -> None:
    epochs: list[int] = []

    async def disturb(system: LoopbackSystem, run: LoopbackRun) -> None:
        graph = await system.graph()
        assert graph is not None
        epochs.append(graph.epoch)
        await in_the_middle(system, run, "C")
        await system.happen(Happening(0.0, Verb.KILL))
        assert await system.graph() is None
        await system.happen(Happening(0.0, Verb.START))
        epochs.append((await system.span()).epoch)

    report = await send_while(tmp_path, 24_000_000, disturb)
    assert all(outcome.sha256_ok for outcome in report.devices.values()), report
    assert report.trouble == []
    assert epochs == sorted(epochs)


async def test_a_process_that_dies_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    async def disturb(system: LoopbackSystem, run: LoopbackRun) -> None:
        await in_the_middle(system, run, "C")
        system.send_signal("C", signal.SIGABRT)

    report = await send_while(tmp_path, 24_000_000, disturb)
    assert not report.ok
    assert report.trouble[0].startswith("agent C ended by SIGABRT")


def test_hold_keeps_the_system_up_and_the_printed_curl_line_gets_the_graph(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "lab",
        "run",
        "--scenario",
        str(FILE),
        "--size",
        "10K",
        "--backend",
        "loopback",
        "--hold",
    ]
    held = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    shown = ""
    try:
        assert held.stdout is not None
        for line in held.stdout:
            shown += line
            if "until Ctrl-C" in line:
                break
        url = re.search(r"http://127\.0\.0\.1:\d+/v1/groups/lab/graph", shown)
        token = re.search(r"admin token +(\S+)", shown)
        assert url is not None, shown
        assert token is not None, shown
        assert f'curl -s -H "Authorization: Bearer $(cat {token[1]})" {url[0]}' in shown
        headers = {"Authorization": f"Bearer {Path(token[1]).read_text().strip()}"}
        assert httpx.get(url[0], headers=headers).json()["devices"] == list(SIX.devices)
    finally:
        held.send_signal(signal.SIGINT)
        held.wait(timeout=30)
        held.stdout.close()  # type: ignore[union-attr]
    assert held.returncode == 130
