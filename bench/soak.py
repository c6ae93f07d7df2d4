"""Six agents under random events, with files and messages flowing: nothing lost, nothing twice, and memory flat.

The worked example's six devices in namespaces, for ten minutes. Every few seconds, in an order that follows from the
seed, a link is cut, restored or gets worse, an agent or the server is killed or started again; A alone is spared, for
it sends. At the end everything is made whole, and each device must have got every message once, and every file with its
hash. A process's memory is flat if what it holds at the end is not much more than what it held once it had warmed up.
What fails is told, and the exit code is 1. Without netem or a link emulator links have no delay and lose nothing.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._common import (
    EmulatorOption,
    answer,
    command,
    machine,
    made_up,
    one_sentence,
    over_namespaces,
    say,
    send_file,
    sha256,
)
from bench._flow import CHANNEL, Flow
from common.errors import ConfigError
from common.ids import DeviceId, LinkKey
from common.messages import ChannelSpec
from lab.happenings import Happening, Verb
from lab.loopback_run import COUNTED
from lab.netns import NetnsSystem, check_netns
from lab.scenario import Scenario, load_scenario

SIX: Final = Path(__file__).parents[1] / "lab" / "scenarios" / "six.toml"
SOURCE: Final = "A"
PAUSE_S: Final = (2.0, 6.0)
"""Between two events."""
MOST_CUT: Final = 2
MOST_DEAD: Final = 2
FILE_EVERY_S: Final = 15.0
FILE_BYTES: Final = (200_000, 6_000_000)
RETENTION_S: Final = 90.0
"""How long messages are kept for those who come late: less than a quarter of the run, so that memory can be flat."""
MOST_HARM_S: Final = 30.0
"""What was cut or killed so long ago is made whole next, before messages are lost that it waits for."""
MEMORY_EVERY_S: Final = 2.0
WHOLE_S: Final = 120.0
"""Seconds at the end in which everything has to be everywhere."""
FLAT_SHARE: Final = 1.15
FLAT_MIB: Final = 8.0
"""By both together a process's memory may grow from its second quarter to its last: caches fill, and buffers too."""
LEAST_LOOKS: Final = 30
"""A process that was seen less often was still warming up."""
LOOK_S: Final = 0.2


def soak(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long.")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="What happens when follows from it; drawn by default.")] = None,
    per_second: Annotated[float, typer.Option(min=1.0, help="Messages a second.")] = 50.0,
    emulator: EmulatorOption = None,
) -> None:
    """Let everything happen to six agents, and print one JSON object."""
    seed = time.time_ns() % 1_000_000 if seed is None else seed
    say(f"seed {seed}")
    with one_sentence():
        scenario, weather = _scenario(emulator)
        order = _Order(60.0 * minutes, seed, per_second, weather)
        figures = over_namespaces(scenario, order.run, emulator=emulator)
    answer({"bench": "soak", "seed": seed, "minutes": minutes, "weather": weather, "machine": machine()} | figures)
    if not figures["ok"]:
        raise typer.Exit(1)


def _scenario(emulator: Path | None) -> tuple[Scenario, bool]:
    """Return the six devices, and whether their links can delay and lose frames here."""
    messages = ChannelSpec(name=CHANNEL, kind="message", retention_s=RETENTION_S)
    six = replace(load_scenario(SIX), name="soak", datagram_bytes=1472, channels=(messages,))
    try:
        check_netns(six, emulator)
    except ConfigError:
        calm = {link: replace(figures, delay_s=0.0) for link, figures in six.links.items()}
        check_netns(replace(six, links=calm), emulator)
        return replace(six, links=calm), False
    return six, True


@dataclass(frozen=True, slots=True)
class _Order:
    seconds: float
    seed: int
    per_second: float
    weather: bool

    async def run(self, system: NetnsSystem, folder: Path) -> dict[str, Any]:
        """Let it all happen over a running system."""
        flow = Flow(system, SOURCE, per_second=self.per_second, message_bytes=200)
        events = _Events(system, flow, random.Random(f"events:{self.seed}"), self.weather)
        files = _Files(system, folder / "sent", random.Random(f"files:{self.seed}"))
        memory = _Memory(system)
        await flow.start()
        until = time.monotonic() + self.seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(events.until(until))
            tasks.create_task(files.until(until))
            tasks.create_task(memory.until(until))
        await events.whole()
        late = await files.wait(WHOLE_S)
        missing = await flow.end(within=WHOLE_S)
        wrong = await files.wrong()
        grown = memory.grown()
        statuses = {device: await system.status(device) for device in system.scenario.devices}
        figures = {
            "events": dict(events.done),
            "published": flow.published,
            "missed": sum(missing.values()),
            "missed_by": missing,
            "repeated": sum(flow.repeated().values()),
            "files": len(files.sent),
            "files_missing": late,
            "files_wrong": wrong,
            "chunks": _chunks(statuses),
            "drops": _drops(statuses),
            "memory_mib": memory.summary(),
            "memory_grown": grown,
        }
        return {"ok": not (missing or flow.repeated() or late or wrong or grown)} | figures


class _Events:
    """Draws what happens next of what can happen."""

    def __init__(self, system: NetnsSystem, flow: Flow, rng: random.Random, weather: bool) -> None:
        self.done: Counter[str] = Counter()
        self._system = system
        self._flow = flow
        self._rng = rng
        self._weather = weather
        self._cut: dict[LinkKey, float] = {}
        self._worse: dict[LinkKey, float] = {}
        self._dead: dict[DeviceId, float] = {}
        self._server_dead: float | None = None
        self._passed = 0.0  # The pauses so far, and no clock: what is drawn follows from the seed alone.

    async def until(self, end: float) -> None:
        """Let something happen every few seconds until a time."""
        while (pause := self._rng.uniform(*PAUSE_S)) < end - time.monotonic():
            await asyncio.sleep(pause)
            self._passed += pause
            self._system.check()
            await self._happen(self._draw())

    async def whole(self) -> None:
        """Start and restore everything."""
        if self._server_dead is not None:
            await self._happen(Happening(0.0, Verb.START))
        for link in sorted({*self._cut, *self._worse}):
            await self._happen(Happening(0.0, Verb.RESTORE, link=link))
        for device in sorted(self._dead):
            await self._happen(Happening(0.0, Verb.START, device=device))

    def _draw(self) -> Happening:
        links = list(self._system.scenario.links)
        devices = [device for device in self._system.scenario.devices if device != SOURCE]
        before = self._passed - MOST_HARM_S
        due = [Happening(0.0, Verb.RESTORE, link=link) for link, at in self._cut.items() if at < before]
        due += [Happening(0.0, Verb.START, device=device) for device, at in self._dead.items() if at < before]
        if self._server_dead is not None and self._server_dead < before:
            due.append(Happening(0.0, Verb.START))
        if due:
            return due[0]
        can = [Happening(0.0, Verb.RESTORE, link=link) for link in sorted({*self._cut, *self._worse})]
        can += [Happening(0.0, Verb.START, device=device) for device in sorted(self._dead)]
        if len(self._cut) < MOST_CUT:
            can.append(Happening(0.0, Verb.CUT, link=self._rng.choice([x for x in links if x not in self._cut])))
        if len(self._dead) < MOST_DEAD:
            alive = [device for device in devices if device not in self._dead]
            can.append(Happening(0.0, Verb.KILL, device=self._rng.choice(alive)))
        can.append(Happening(0.0, Verb.DEGRADE, link=self._rng.choice(links), figures=self._figures()))
        can.append(Happening(0.0, Verb.KILL if self._server_dead is None else Verb.START))
        return self._rng.choice(can)

    def _figures(self) -> dict[str, float]:
        """Draw how a link gets worse."""
        if not self._weather or self._rng.random() < 0.5:
            return {"rate_bps": round(self._rng.uniform(5e6, 50e6), -5)}
        return {"loss": round(self._rng.uniform(0.0, 0.05), 3), "delay_s": round(self._rng.uniform(0.001, 0.05), 3)}

    async def _happen(self, happening: Happening) -> None:
        say(f"{happening}")
        await self._system.happen(happening)
        if happening.verb is Verb.START and happening.device is not None:
            await self._flow.follow(happening.device)
        self.note(happening)

    def note(self, happening: Happening) -> None:
        """Take down what is cut, worse and dead now."""
        self.done[happening.verb.value + ("" if happening.link or happening.device else " server")] += 1
        link, device = happening.link, happening.device
        match happening.verb:
            case Verb.CUT if link is not None:
                self._cut[link] = self._passed
            case Verb.DEGRADE if link is not None:
                self._worse[link] = self._passed
            case Verb.RESTORE if link is not None:
                self._cut.pop(link, None)
                self._worse.pop(link, None)
            case Verb.KILL if device is not None:
                self._dead[device] = self._passed
            case Verb.START if device is not None:
                del self._dead[device]
            case _:
                self._server_dead = self._passed if happening.verb is Verb.KILL else None


@dataclass(slots=True)
class _Files:
    """Sends files of random sizes, and looks for them everywhere."""

    system: NetnsSystem
    folder: Path
    rng: random.Random
    sent: list[Path] = field(default_factory=list)

    async def until(self, end: float) -> None:
        """Send one file after the other until a time."""
        self.folder.mkdir()
        while time.monotonic() + FILE_EVERY_S < end:
            file = self.folder / f"file-{len(self.sent):03}.bin"
            await asyncio.to_thread(made_up, file, self.rng.randrange(*FILE_BYTES))
            await send_file(self.system, SOURCE, file)
            self.sent.append(file)
            await asyncio.sleep(FILE_EVERY_S)

    async def wait(self, within: float) -> list[str]:
        """Wait until every file is everywhere.

        Returns:
            What is not there after all, as ``device/file``.
        """
        until = time.monotonic() + within
        while (late := self._late()) and time.monotonic() < until:
            self.system.check()
            await asyncio.sleep(LOOK_S)
        return late

    async def wrong(self) -> list[str]:
        """Return which copies are there and are not the file, as ``device/file``."""
        found = []
        for file in self.sent:
            wanted = await asyncio.to_thread(sha256, file)
            for device, copy in self._copies(file).items():
                if copy.exists() and await asyncio.to_thread(sha256, copy) != wanted:
                    found.append(f"{device}/{file.name}")
        return found

    def _late(self) -> list[str]:
        return [
            f"{device}/{file.name}"
            for file in self.sent
            for device, copy in self._copies(file).items()
            if not copy.exists()
        ]

    def _copies(self, file: Path) -> dict[DeviceId, Path]:
        devices = (device for device in self.system.scenario.devices if device != SOURCE)
        return {device: self.system.received(device) / file.name for device in devices}


@dataclass(slots=True)
class _Memory:
    """What each process holds from time to time; a process that is started again is another one."""

    system: NetnsSystem
    held: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    async def until(self, end: float) -> None:
        """Look every few seconds until a time."""
        while time.monotonic() < end:
            for name, pid in self.system.pids().items():
                mib = _rss_mib(pid)
                if mib is not None:
                    self.held.setdefault((name, pid), []).append(mib)
            await asyncio.sleep(MEMORY_EVERY_S)

    def grown(self) -> dict[str, dict[str, float]]:
        """Return the processes that hold clearly more in their last quarter than in their second one."""
        found = {}
        for (name, pid), held in self.held.items():
            if len(held) < LEAST_LOOKS:
                continue
            quarter = len(held) // 4
            warm, last = statistics.median(held[quarter : 2 * quarter]), statistics.median(held[-quarter:])
            if last > FLAT_SHARE * warm + FLAT_MIB:
                found[f"{name} ({pid})"] = {"second_quarter": round(warm, 1), "last_quarter": round(last, 1)}
        return found

    def summary(self) -> dict[str, dict[str, float]]:
        """Return what the longest-lived process of each name held."""
        longest: dict[str, list[float]] = {}
        for (name, _), held in self.held.items():
            longest[name] = max(longest.get(name, []), held, key=len)
        return {
            name: {"first": held[0], "median": round(statistics.median(held), 1), "last": held[-1], "most": max(held)}
            for name, held in sorted(longest.items())
        }


def _rss_mib(pid: int) -> float | None:
    """Return a process's resident memory; None if it has just ended.

    Source: proc(5), VmRSS of /proc/PID/status.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS")), None)


def _chunks(statuses: Mapping[DeviceId, Mapping[str, Any] | None]) -> dict[str, int]:
    """Add up what the agents counted since they were started last."""
    links = [link for status in statuses.values() if status for link in status["links"]]
    return {name: sum(int(link[name]) for link in links) for name in COUNTED}


def _drops(statuses: Mapping[DeviceId, Mapping[str, Any] | None]) -> dict[str, int]:
    drops: Counter[str] = Counter()
    for status in statuses.values():
        drops.update(status["drops"] if status else {})
    return dict(sorted(drops.items()))


if __name__ == "__main__":
    command(soak)
