"""``arborcast-lab``: run a scenario and judge it by its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import stat
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Self

import typer
from rich.console import Console

from common.errors import ArborcastError, ConfigError
from common.ids import DeviceId
from lab.compose import ComposeSystem, check_compose
from lab.loopback import LoopbackSystem, refuse_link_happenings
from lab.loopback_run import Make, run_loopback
from lab.netns import EMULATOR_VARIABLE, NetnsSystem, check_netns
from lab.progress import LiveWatcher, QuietWatcher, Watcher
from lab.report import Report
from lab.scenario import Scenario, load_scenario
from lab.simulated_run import run_simulation
from lab.units import parse_size, show_size

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
MOST_BYTES: Final = 4 << 30
MADE_UP_NAME: Final = "lab.bin"
HOLD_LOOK_S: Final = 1.0
_MADE_UP_AT_ONCE: Final = 1 << 20

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Backend(StrEnum):
    """What carries the scenario."""

    SIM = "sim"
    LOOPBACK = "loopback"
    NETNS = "netns"
    COMPOSE = "compose"


@app.callback()
def lab() -> None:
    """Run a whole arborcast system on one host, from one scenario file."""


@app.command()
def run(
    scenario: Annotated[Path, typer.Option(help="Scenario file (TOML).")],
    file: Annotated[Path | None, typer.Option(help="File to send.")] = None,
    size: Annotated[str | None, typer.Option(help="Send that many random bytes instead, such as 64M.")] = None,
    source: Annotated[str | None, typer.Option(help="Device that sends; the scenario's first one by default.")] = None,
    backend: Annotated[
        Backend,
        typer.Option(
            help="sim: simulated time, one process; loopback: real processes and sockets; netns: the same in network"
            " namespaces, over links shaped to the scenario's figures (root); compose: the same in containers, with a"
            " network for each link."
        ),
    ] = Backend.LOOPBACK,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help='Write the report there too; "-" is standard output.')
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="All but sim: keep the system up afterwards, until Ctrl-C.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="sim: in place of the scenario's seed.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds for the transfer (simulated ones for sim).")
    ] = None,
    emulator: Annotated[
        Path | None,
        typer.Option(
            envvar=EMULATOR_VARIABLE, help="netns: program for links with delay or loss where the kernel has no netem."
        ),
    ] = None,
) -> None:
    """Send a file from one device to all others, and show who has it and what crossed each channel.

    Exits 0 only if every device verified the file's SHA-256 and no channel carried a chunk twice (repairs of what was
    lost are counted apart); 1 if not; 2 if something asked for cannot be used.
    """
    console = Console(stderr=str(json_file) == "-")
    try:
        order = _order(scenario, backend, source, seed, file, size, hold)
        make = _maker(backend, order, emulator)
        if json_file is not None and not json_file.parent.is_dir():
            raise ConfigError(f"--json: there is no folder {json_file.parent}")
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISUSED) from error
    try:
        with _Screen(console, json_file) as screen:
            if backend is Backend.SIM:
                report = _simulate(order, timeout, screen)
            else:
                report = _start(order, timeout, hold, screen, make)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (ArborcastError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from error
    raise typer.Exit(0 if report.ok else FAILED)


def main() -> None:
    """Run the command line."""
    app()


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for, checked.

    Attributes:
        file: What to send; None for made-up bytes.
        size_bytes: How many bytes to make up.
    """

    scenario: Scenario
    source: DeviceId
    seed: int
    file: Path | None
    size_bytes: int

    def made_up(self) -> bytes:
        """Return the made-up bytes."""
        rng = random.Random(self.seed)
        begins = range(0, self.size_bytes, _MADE_UP_AT_ONCE)
        return b"".join(rng.randbytes(min(_MADE_UP_AT_ONCE, self.size_bytes - begin)) for begin in begins)


class _Screen:
    """Bars while it goes on, where there is a terminal; then the table and the JSON."""

    def __init__(self, console: Console, json_file: Path | None) -> None:
        self._stack = contextlib.ExitStack()
        self._json_file = json_file
        self.console = console
        self.watcher: Watcher = QuietWatcher()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.watcher = self._stack.enter_context(LiveWatcher(self.console))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def finish(self, report: Report) -> None:
        """Take the bars away and show how it ended."""
        self._stack.close()
        report.show(self.console)
        if self._json_file is None:
            return
        text = json.dumps(report.as_json(), indent=2) + "\n"
        if str(self._json_file) == "-":
            sys.stdout.write(text)
        else:
            self._json_file.write_text(text, encoding="utf-8")


def _order(
    scenario_file: Path,
    backend: Backend,
    source: str | None,
    seed: int | None,
    file: Path | None,
    size: str | None,
    hold: bool,
) -> _Order:
    scenario = load_scenario(scenario_file)
    if hold and backend is Backend.SIM:
        raise ConfigError("--hold keeps real processes up; there are none with --backend sim")
    if backend is Backend.LOOPBACK:
        refuse_link_happenings(scenario)
    if source is not None and source not in scenario.devices:
        known = ", ".join(scenario.devices)
        raise ConfigError(f'--source: the scenario has the devices {known}; there is no "{source}"')
    if (file is None) == (size is None):
        raise ConfigError("say what to send: either --file F or --size N")
    if file is not None:
        _check_readable(file)
    return _Order(
        scenario=scenario,
        source=source or scenario.devices[0],
        seed=scenario.seed if seed is None else seed,
        file=file,
        size_bytes=0 if size is None else _size(size),
    )


def _maker(backend: Backend, order: _Order, emulator: Path | None) -> Callable[[Path], Make]:
    """Return what makes a system of real processes that a file is sent through, if this host can."""
    if backend is Backend.NETNS:
        check_netns(order.scenario, emulator)
        return lambda _: partial(NetnsSystem, emulator=emulator)
    if backend is Backend.COMPOSE:
        engine = check_compose(order.scenario)
        return lambda file: partial(ComposeSystem, file=file, source=order.source, engine=engine)
    return lambda _: LoopbackSystem


def _check_readable(file: Path) -> None:
    try:
        if stat.S_ISFIFO(file.stat().st_mode):
            raise ConfigError(f"--file: {file} is a pipe; only a regular file has a size and can be resumed")
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise ConfigError(f"--file: cannot read {file}: {error.strerror}") from error


def _size(size: str) -> int:
    try:
        size_bytes = parse_size(size)
    except ValueError as error:
        raise ConfigError(f"--size: expected {error}") from error
    if size_bytes > MOST_BYTES:
        raise ConfigError(f"--size: at most {show_size(MOST_BYTES)} are made up in memory; use --file for more")
    return size_bytes


def _simulate(order: _Order, within: float | None, screen: _Screen) -> Report:
    report = run_simulation(
        order.scenario,
        data=order.made_up() if order.file is None else order.file.read_bytes(),
        name=MADE_UP_NAME if order.file is None else order.file.name,
        source=order.source,
        seed=order.seed,
        within=within,
        watcher=screen.watcher,
    )
    screen.finish(report)
    return report


def _start(order: _Order, within: float | None, hold: bool, screen: _Screen, make: Callable[[Path], Make]) -> Report:
    """Run in real processes; SIGTERM ends the run as Ctrl-C does, so that no process is left over."""

    async def ending(system: LoopbackSystem, report: Report) -> None:
        screen.finish(report)
        if hold:
            await _hold(system, screen.console)

    async def session(folder: Path) -> Report:
        file = order.file
        if file is None:
            file = folder / MADE_UP_NAME
            file.write_bytes(order.made_up())
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run_loopback(
            order.scenario,
            folder=folder,
            file=file,
            source=order.source,
            within=within,
            watcher=screen.watcher,
            after=ending,
            make=make(file),
        )

    with tempfile.TemporaryDirectory(prefix="arborcast-lab-", ignore_cleanup_errors=True) as folder:
        try:
            return asyncio.run(session(Path(folder)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _hold(system: LoopbackSystem, console: Console) -> None:
    lines = (
        "",
        f"server       {system.url}",
        f"admin token  {system.admin_token_file}",
        f"graph        {system.graph_command}",
        "The system stays up until Ctrl-C.",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    while True:
        system.check()
        await asyncio.sleep(HOLD_LOOK_S)
