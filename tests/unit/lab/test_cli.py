import asyncio
import io
import json
import os
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import lab
from common.errors import ConfigError, ConnectError
from lab.cli import app
from lab.compose import ComposeSystem
from lab.compose_engine import Engine
from lab.loopback_run import Make
from lab.netns import NetnsSystem
from lab.progress import QuietWatcher
from lab.report import Report
from lab.scenario import Scenario

SIX = str(Path(lab.__file__).parent / "scenarios" / "six.toml")
CUT = 'devices = ["A", "B"]\n[[links]]\nbetween = ["A", "B"]\nrate = "10M"\n[[events]]\nat = "1s"\ndo = "cut A-B"\n'


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["run", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_simulated_run_writes_the_json_and_exits_0(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    code, shown, _ = run("--scenario", SIX, "--size", "50K", "--backend", "sim", "--json", str(out))
    assert code == 0
    assert "ok: every device verified the hash" in shown
    report = json.loads(out.read_text())
    assert report["ok"] is True
    assert report["file_bytes"] == 51_200
    assert report["graph"]["edges"] == [["A", "B"], ["A", "C"], ["B", "E"], ["C", "D"], ["D", "F"]]
    assert list(report["devices"]) == ["B", "C", "D", "E", "F"]
    assert report["channels"]["B-C"] == {
        "chunks": 0,
        "bytes": 0,
        "duplicates": 0,
        "repairs": 0,
        "needless": 0,
        "unicast_bytes": 0,
    }


def test_another_device_can_be_the_source_and_the_json_can_go_to_standard_output(tmp_path: Path) -> None:
    file = tmp_path / "empty.bin"
    file.touch()
    code, shown, _ = run("--scenario", SIX, "--file", str(file), "--source", "F", "--backend", "sim", "--json", "-")
    assert code == 0
    report = json.loads(shown)
    assert (report["source"], report["file_bytes"], report["ok"]) == ("F", 0, True)


def test_a_device_that_never_gets_the_file_makes_the_exit_code_1(tmp_path: Path) -> None:
    scenario = tmp_path / "cut.toml"
    scenario.write_text(CUT.replace("1s", "0s"))
    code, shown, _ = run("--scenario", str(scenario), "--size", "1M", "--backend", "sim", "--timeout", "2")
    assert code == 1
    assert "FAILED: not verified at B" in shown
    assert "seed 1" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scenario", "none.toml", "--size", "1M"], "none.toml: cannot read the scenario"),
        (["--scenario", SIX], "say what to send"),
        (["--scenario", SIX, "--size", "1M", "--file", "x"], "say what to send"),
        (["--scenario", SIX, "--file", "/none/such"], "cannot read /none/such: No such file"),
        (["--scenario", SIX, "--file", "/"], "cannot read /: Is a directory"),
        (["--scenario", SIX, "--size", "big"], "--size: expected a size such as"),
        (["--scenario", SIX, "--size", "9G"], "--size: at most"),
        (["--scenario", SIX, "--size", "1M", "--source", "Z"], 'there is no "Z"'),
        (["--scenario", SIX, "--size", "1M", "--backend", "sim", "--hold"], "--hold keeps real processes up"),
        (["--scenario", SIX, "--size", "1M", "--backend", "boat"], "boat"),
        (["--scenario", SIX, "--size", "1M", "--json", "/none/such.json"], "--json: there is no folder /none"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence_with_exit_code_2(arguments: list[str], expected: str) -> None:
    code, _, told = run(*arguments)
    assert code == 2
    assert expected in " ".join(told.split())


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, _, told = run("--scenario", SIX, "--file", str(tmp_path / "pipe"))
    assert code == 2
    assert "is a pipe" in told


def test_a_mistake_in_the_scenario_is_told_with_its_line(tmp_path: Path) -> None:
    scenario = tmp_path / "wrong.toml"
    scenario.write_text('devices = ["A", "B"]\n[[links]]\nbetween = ["A", "B"]\nrate = 100\n')
    code, _, told = run("--scenario", str(scenario), "--size", "1M")
    assert code == 2
    assert told.startswith(f"{scenario}:4: expected rate as a text with its unit in quotes")


def test_loopback_refuses_to_cut_a_link(tmp_path: Path) -> None:
    scenario = tmp_path / "cut.toml"
    scenario.write_text(CUT)
    code, _, told = run("--scenario", str(scenario), "--size", "1M", "--backend", "loopback")
    assert code == 2
    assert 'cannot do "cut A-B"' in told
    assert "--backend sim" in told


def test_namespaces_are_refused_with_the_reason_where_they_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(scenario: Scenario, emulator: Path | None) -> None:
        raise ConfigError(f"{scenario.name} with {emulator}: not root")

    monkeypatch.setattr("lab.cli.check_netns", refuse)
    code, _, told = run("--scenario", SIX, "--size", "1K", "--backend", "netns", "--emulator", "program")
    assert (code, told.strip()) == (2, "six with program: not root")


def test_the_netns_backend_makes_a_system_with_the_emulator_that_was_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[object] = []

    async def sent(*_: object, **given: object) -> Report:
        made.append(given["make"])
        raise ConnectError("enough")

    monkeypatch.setattr("lab.cli.check_netns", lambda *_: ())
    monkeypatch.setattr("lab.cli.run_loopback", sent)
    code, _, _ = run("--scenario", SIX, "--size", "1K", "--backend", "netns", "--emulator", str(tmp_path))
    assert code == 1
    assert isinstance(made[0], partial)
    assert (made[0].func, made[0].keywords) == (NetnsSystem, {"emulator": tmp_path})


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (ConnectError("no graph spans all devices after 30 s"), 1, "no graph spans all devices"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "stopped"),
        (asyncio.CancelledError(), 130, "stopped"),
    ],
)
def test_a_loopback_run_that_breaks_off_says_why(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, told: str
) -> None:
    async def broken(*_: object, **given: object) -> Report:
        file = given["file"]
        assert isinstance(file, Path)
        assert file.stat().st_size == 1024
        raise raised

    monkeypatch.setattr("lab.cli.run_loopback", broken)
    found, _, said = run("--scenario", SIX, "--size", "1K", "--backend", "loopback")
    assert found == code
    assert told in said


def test_on_a_terminal_there_are_bars_and_then_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("lab.cli.Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    file = tmp_path / "given.bin"
    file.write_bytes(bytes(3000))
    code, _, _ = run("--scenario", SIX, "--file", str(file), "--backend", "sim")
    assert code == 0
    shown = screen.getvalue()
    assert "spans all 6 devices" in shown
    assert shown.index("━") < shown.index("SHA-256")


def test_a_host_that_cannot_run_containers_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, said = run("--scenario", SIX, "--size", "1K", "--backend", "compose")
    assert code == 2
    assert said == "the compose backend runs containers, and there is no program docker on the PATH\n"


def test_the_compose_backend_is_told_what_is_sent_and_by_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ComposeSystem] = []
    engine = Engine("docker", ())

    async def no_run(scenario: Scenario, *, folder: Path, make: Make, **_: object) -> Report:
        system = make(scenario, folder, QuietWatcher())
        assert isinstance(system, ComposeSystem)
        made.append(system)
        raise ConnectError("enough")

    monkeypatch.setattr(engine, "sweep", list)
    monkeypatch.setattr(engine, "subnets", list)
    monkeypatch.setattr("lab.cli.check_compose", lambda _: engine)
    monkeypatch.setattr("lab.cli.run_loopback", no_run)
    file = tmp_path / "model.bin"
    file.touch()
    code, _, said = run("--scenario", SIX, "--file", str(file), "--source", "D", "--backend", "compose")
    assert (code, said) == (1, "enough\n")
    assert made[0].engine is engine
    assert made[0]._sent == {"D": file}
