import sys

import pytest

from lab.emulator import Emulator
from lab.processes import ChildDied

READY = "import sys, time; print('READY', flush=True); "


def emulator(code: str) -> Emulator:
    return Emulator("emulator A-B", [sys.executable, "-c", code])


async def test_an_emulator_is_started_once_it_says_ready_and_ends_by_sigterm() -> None:
    started = emulator(READY + "time.sleep(60)")
    assert started.cpu_seconds() == 0.0
    await started.start()
    started.check()
    assert started.cpu_seconds() >= 0.0
    await started.stop()
    await started.stop()
    started.check()


async def test_an_emulator_that_does_not_obey_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.emulator.STOP_S", 0.05)
    started = emulator("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(60)")
    await started.start()
    await started.stop()


async def test_an_emulator_that_cannot_do_it_is_told_with_its_last_words() -> None:
    refused = emulator("print('no tun here')")
    with pytest.raises(ChildDied, match="emulator A-B cannot be started: no tun here"):
        await refused.start()
    await refused.stop()
    silent = emulator("")
    with pytest.raises(ChildDied, match="it ended"):
        await silent.start()
    await silent.stop()
    with pytest.raises(ChildDied, match="cannot be started"):
        await Emulator("emulator A-B", ["./no-such-program"]).start()


async def test_an_emulator_that_ends_by_itself_is_noticed() -> None:
    brief = emulator(READY + "raise SystemExit(4)")
    await brief.start()
    assert brief._process is not None
    await brief._process.wait()
    with pytest.raises(ChildDied, match="exit code 4"):
        brief.check()
    assert brief.cpu_seconds() == 0.0
    await brief.stop()


async def test_what_an_emulator_is_told_arrives_at_its_standard_input() -> None:
    told = emulator(READY + "print(sys.stdin.readline(), end=''); raise SystemExit(4)")
    with pytest.raises(ChildDied, match="does not run"):
        await told.tell(["ab loss=5"])
    await told.start()
    await told.tell(["ab loss=5,delay=40", "ba loss=0"])
    assert told._process is not None
    assert told._process.stdout is not None
    assert await told._process.stdout.readline() == b"ab loss=5,delay=40\n"
    await told._process.wait()
    with pytest.raises(ChildDied, match="exit code 4"):
        await told.tell(["ab loss=5"])
    await told.stop()


async def test_an_emulator_that_closed_its_standard_input_takes_nothing() -> None:
    deaf = emulator("import os; os.close(0); " + READY + "time.sleep(60)")
    await deaf.start()

    async def insist() -> None:
        for _ in range(1000):
            await deaf.tell(["ab loss=5"])

    with pytest.raises(ChildDied, match="emulator A-B takes nothing"):
        await insist()
    await deaf.stop()
