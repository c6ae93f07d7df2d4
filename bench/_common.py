"""What the benches share: systems in namespaces, medians, and the one JSON object at the end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import httpx
import typer

from common.errors import ArborcastError, ConfigError, ConnectError
from common.ids import DeviceId, LinkKey, link_key
from lab.loopback import LoopbackSystem
from lab.netns import EMULATOR_VARIABLE, NetnsSystem
from lab.progress import QuietWatcher
from lab.scenario import Scenario
from lab.simulated_run import CHANNEL
from lab.units import parse_size

SCENARIOS: Final = Path(__file__).parent / "scenarios"

FOLDER_S: Final = 0.003
"""How often a folder is looked into for a file: the resolution of a transfer's time."""

EmulatorOption = Annotated[
    Path | None,
    typer.Option(envvar=EMULATOR_VARIABLE, help="Program for links with delay or loss where the kernel has no netem."),
]

_R = TypeVar("_R")
_S = TypeVar("_S", bound=LoopbackSystem)


def over_namespaces(
    scenario: Scenario,
    use: Callable[[NetnsSystem, Path], Awaitable[_R]],
    *,
    emulator: Path | None,
    shaped: bool = True,
) -> _R:
    """Start a scenario in namespaces, use it once its graph spans all devices, and take it down.

    Args:
        scenario: What to start.
        use: Gets the system and its folder.
        emulator: The program for links with delay or loss where the kernel has no netem.
        shaped: Whether the links get their rates.

    Returns:
        What ``use`` returned.

    Raises:
        ArborcastError: The system did not come up.
    """
    return _used(lambda folder: NetnsSystem(scenario, folder, QuietWatcher(), emulator=emulator, shaped=shaped), use)


def over_loopback(scenario: Scenario, use: Callable[[LoopbackSystem, Path], Awaitable[_R]]) -> _R:
    """Start a scenario on the loopback interface, use it once its graph spans all devices, and take it down.

    Args:
        scenario: What to start.
        use: Gets the system and its folder.

    Returns:
        What ``use`` returned.

    Raises:
        ArborcastError: The system did not come up.
    """
    return _used(lambda folder: LoopbackSystem(scenario, folder, QuietWatcher()), use)


def _used(make: Callable[[Path], _S], use: Callable[[_S, Path], Awaitable[_R]]) -> _R:
    async def session(folder: Path) -> _R:
        system = make(folder / "lab")
        try:
            await system.start()
            await system.span()
            return await use(system, folder)
        finally:
            await system.stop()

    with tempfile.TemporaryDirectory(prefix="arborcast-bench-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(session(Path(folder)))


def used_since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the processor seconds that each process used between two looks."""
    return {name: round(seconds - before.get(name, 0.0), 3) for name, seconds in after.items()}


def size_bytes(text: str) -> int:
    """Read a size option.

    Raises:
        ConfigError: It is no size.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"--size: expected {error}") from error


def made_up(file: Path, size: int) -> Path:
    """Fill a file with random bytes."""
    step = 1 << 20
    with file.open("wb") as opened:
        for begin in range(0, size, step):
            opened.write(os.urandom(min(step, size - begin)))
    return file


def sparse(file: Path, size: int) -> Path:
    """Make a file of zeros that takes no room; on its way it is encrypted, and so no smaller than any other."""
    with file.open("wb") as opened:
        opened.truncate(size)
    return file


async def send_file(system: LoopbackSystem, source: DeviceId, file: Path) -> str:
    """Leave a file to the source's agent and return its stream's id in hex.

    Raises:
        ConnectError: The agent does not take it.
    """
    body = {"path": str(file), "channel": CHANNEL, "wait": "none"}
    try:
        answered = await system.client(source).post("/streams/file", json=body)
        answered.raise_for_status()
    except httpx.HTTPError as error:
        raise ConnectError(f"agent {source} does not take the file: {error!r}") from error
    return str(json.loads(answered.text.splitlines()[0])["stream"])


async def deliver(system: LoopbackSystem, source: DeviceId, file: Path, *, within: float) -> dict[DeviceId, float]:
    """Send a file to all other devices and look at nothing but their folders meanwhile.

    Args:
        system: Its graph spans all devices.
        source: Who sends.
        file: What.
        within: Seconds before giving up.

    Returns:
        Seconds from the hand-over until each device had renamed it, hash verified.

    Raises:
        ArborcastError: A process ended, the time ran out, or what a device has is not the file.
    """
    waiting = {device: system.received(device) / file.name for device in system.scenario.devices if device != source}
    copies, done = dict(waiting), dict[DeviceId, float]()
    began = time.monotonic()
    stream = await send_file(system, source, file)
    while waiting:
        await asyncio.sleep(FOLDER_S)
        now = time.monotonic()
        for device in [device for device, copy in waiting.items() if copy.exists()]:
            del waiting[device]
            done[device] = round(now - began, 4)
        if now - began > within:
            # Or it would go on beside whatever is measured next.
            await system.client(source).delete(f"/streams/{stream}")
            raise ConnectError(f"{', '.join(waiting)} had not got the file after {within:g} s")
        system.check()
    wanted = await asyncio.to_thread(sha256, file)
    for device, copy in copies.items():
        if await asyncio.to_thread(sha256, copy) != wanted:
            raise ConnectError(f"what {device} has is not the file")
    return done


def sha256(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def path_rates(scenario: Scenario, edges: Sequence[LinkKey], source: DeviceId) -> dict[DeviceId, float]:
    """Return the slowest rate on the tree's path from the source to each device, in bits per second."""
    rates = {source: math.inf}
    for parent, child in outwards(edges, source):
        rates[child] = min(rates[parent], scenario.links[link_key(parent, child)].rate_bps)
    del rates[source]
    return rates


def outwards(edges: Sequence[LinkKey], source: DeviceId) -> Iterator[tuple[DeviceId, DeviceId]]:
    """Yield the edges of a tree as (nearer, farther), those near the source first."""
    reached, left = [source], list(edges)
    for near in reached:
        for edge in [edge for edge in left if near in edge]:
            left.remove(edge)
            far = edge[1] if edge[0] == near else edge[0]
            reached.append(far)
            yield near, far


def median(values: Iterable[float | None]) -> float | None:
    """Return the median; None if a value is missing, for a run that failed has none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return round(statistics.median(known), 6) if found and len(known) == len(found) else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def machine() -> dict[str, Any]:
    """Describe where the figures come from; a load above 0 before the start is noise in them."""
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def say(sentence: str) -> None:
    """Tell on standard error what goes on."""
    print(sentence, file=sys.stderr, flush=True)


def answer(figures: Mapping[str, Any]) -> None:
    """Print the one JSON object."""
    print(json.dumps(figures, indent=2))


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what cannot be done into one sentence on standard error and exit code 2, or 1 for what failed."""
    try:
        yield
    except ConfigError as error:
        say(str(error))
        raise typer.Exit(2) from error
    except ArborcastError as error:
        say(str(error))
        raise typer.Exit(1) from error


def command(function: Callable[..., None]) -> None:
    """Run a bench's command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(function)
    app()
