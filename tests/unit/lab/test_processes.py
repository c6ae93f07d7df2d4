import sys
from pathlib import Path

import pytest

from lab.processes import Child, ChildDied, cpu_seconds_of

READY = "import json, sys, time; open(sys.argv[-1], 'w').write(json.dumps({'url': 'x'})); print('up', flush=True); "


def child(folder: Path, code: str) -> Child:
    return Child("agent C", [sys.executable, "-c", code], folder / "c")


async def test_a_child_is_ready_when_it_says_so_and_stops_on_sigterm(tmp_path: Path) -> None:
    started = child(tmp_path, READY + "time.sleep(60)")
    await started.start()
    assert await started.ready(within=30) == {"url": "x"}
    started.check()
    running_before = started.running
    await started.stop(within=30)
    started.check()
    assert (running_before, started.running) == (True, False)


async def test_a_child_can_be_killed_and_started_again(tmp_path: Path) -> None:
    started = child(tmp_path, READY + "time.sleep(60)")
    await started.start()
    await started.ready(within=30)
    await started.kill()
    await started.kill()
    await started.start()
    await started.ready(within=30)
    await started.kill()


async def test_a_child_that_does_not_obey_is_killed(tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    started = child(tmp_path, deaf + READY + "time.sleep(60)")
    await started.start()
    await started.ready(within=30)
    await started.stop(within=0.1)
    assert not started.running


async def test_a_child_that_died_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    started = child(tmp_path, "print('the reason'); raise SystemExit(3)")
    await started.start()
    with pytest.raises(ChildDied, match=r"agent C ended with exit code 3; the end of its log:\n    the reason"):
        await started.ready(within=30)


async def test_a_child_that_died_of_a_signal_and_said_nothing_is_told(tmp_path: Path) -> None:
    started = child(tmp_path, "import os; os.kill(os.getpid(), 9)")
    await started.start()
    with pytest.raises(ChildDied, match="agent C ended by SIGKILL; its log is empty"):
        await started.ready(within=30)


async def test_a_child_that_is_not_ready_in_time_is_told(tmp_path: Path) -> None:
    started = child(tmp_path, "import time; time.sleep(60)")
    await started.start()
    with pytest.raises(ChildDied, match=r"agent C was not ready within 0\.1 s"):
        await started.ready(within=0.1)
    await started.kill()


async def test_a_childs_processor_time_is_known_while_it_runs(tmp_path: Path) -> None:
    started = child(tmp_path, "sum(range(2_000_000)); " + READY + "time.sleep(60)")
    pids = [started.pid]
    assert started.cpu_seconds() == 0.0
    await started.start()
    await started.ready(within=30)
    pids.append(started.pid)
    assert started.cpu_seconds() > 0.0
    await started.kill()
    pids.append(started.pid)
    assert started.cpu_seconds() == 0.0
    assert [pid is None for pid in pids] == [True, False, True]
    assert cpu_seconds_of(2**22 + 1) == 0.0
