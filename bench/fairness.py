"""Our hop beside one TCP flow on one shaped link: the share of the link that is ours, by payload that arrived."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._common import (
    EmulatorOption,
    answer,
    command,
    machine,
    median,
    one_sentence,
    over_namespaces,
    say,
    send_file,
    sparse,
    used_since,
)
from common.errors import ConfigError, ConnectError
from lab.netns import NetnsSystem, check_netns
from lab.scenario import LinkFigures, Scenario
from lab.units import parse_rate, parse_seconds

SENDER: Final = "A"
RECEIVER: Final = "B"
TCP_PORT: Final = 5001
FILE_BYTES: Final = 64 << 30
READ_S: Final = 5.0
BOTH: Final = "both"
MEDIANS: Final = ("share", "our_mbit_s", "tcp_mbit_s")


def fairness(
    rate: Annotated[str, typer.Option(help="The link's rate.")] = "50M",
    rtt: Annotated[str, typer.Option(help="Its round trip when nothing waits.")] = "20ms",
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to compare.")] = 20.0,
    settle: Annotated[float, typer.Option(min=0.0, help="Seconds before, in which both are under way.")] = 5.0,
    control: Annotated[str, typer.Option(help="The TCP flow's congestion control.")] = "cubic",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each case.")] = 5,
    alone: Annotated[bool, typer.Option(help="Measure either flow alone as well.")] = True,
    emulator: EmulatorOption = None,
) -> None:
    """Send a file and a TCP flow over one link at once, several times, and print one JSON object."""
    with one_sentence():
        scenario = _link(rate, rtt)
        check_netns(scenario, emulator)
        figures: dict[str, Any] = {
            "bench": "fairness",
            "rate_bps": scenario.figures(SENDER, RECEIVER).rate_bps,
            "buffer_bytes": scenario.figures(SENDER, RECEIVER).queue_bytes,
            "control": control,
            "machine": machine(),
        }
        for case in (BOTH, "ours", "tcp") if alone else (BOTH,):
            order = _Order(case, seconds, settle, control)
            done = []
            for number in range(1, runs + 1):
                run = over_namespaces(scenario, order.measure, emulator=emulator)
                say(f"{case} {number}/{runs}: " + ", ".join(f"{key} {run[key]}" for key in MEDIANS))
                done.append(run)
            figures[case] = {"median": {key: median(run[key] for run in done) for key in MEDIANS}, "runs": done}
    answer(figures)


def _link(rate: str, rtt: str) -> Scenario:
    """Return two devices and a link that buffers one bandwidth-delay product."""
    try:
        rate_bps, rtt_s = parse_rate(rate), parse_seconds(rtt)
    except ValueError as error:
        raise ConfigError(f"expected {error}") from error
    link = LinkFigures(rate_bps, delay_s=rtt_s / 2, queue_bytes=int(rate_bps * rtt_s / 8))
    return Scenario(name="pair", devices=(SENDER, RECEIVER), links={(SENDER, RECEIVER): link}, datagram_bytes=1472)


@dataclass(frozen=True, slots=True)
class _Order:
    """One run: ``both`` flows at once, or one of them alone."""

    case: str
    seconds: float
    settle: float
    control: str

    async def measure(self, system: NetnsSystem, folder: Path) -> dict[str, Any]:
        """Let the flows run, and count what arrives in the time that counts."""
        stream = ""
        async with contextlib.AsyncExitStack() as stack:
            tcp = await stack.enter_async_context(_tcp_flow(system, self.control)) if self.case != "ours" else None
            if self.case != "tcp":
                stream = await send_file(system, SENDER, sparse(folder / "load.bin", FILE_BYTES))
            await asyncio.sleep(self.settle)
            cpu = system.cpu_seconds()
            first = await self._look(system, tcp)
            await asyncio.sleep(self.seconds)
            last = await self._look(system, tcp)
            cpu_s = used_since(cpu, system.cpu_seconds())
            status = await system.status(SENDER)
        if stream:
            await system.client(SENDER).delete(f"/streams/{stream}")
        ours, theirs = (
            8e-6 * (last[flow][1] - first[flow][1]) / (last[flow][0] - first[flow][0]) for flow in ("ours", "tcp")
        )
        rtt_s = status["links"][0]["rtt_s"] if status else None
        return {
            "share": round(ours / (ours + theirs), 4),
            "our_mbit_s": round(ours, 2),
            "tcp_mbit_s": round(theirs, 2),
            "our_rtt_ms": rtt_s and round(1e3 * rtt_s, 1),
            "cpu_s": cpu_s,
        }

    async def _look(self, system: NetnsSystem, tcp: _Count | None) -> dict[str, tuple[float, int]]:
        status = await system.status(RECEIVER)
        now = asyncio.get_running_loop().time()
        held = sum(int(stream["held_bytes"]) for stream in status["streams"]) if status else 0
        return {"ours": (now, held), "tcp": (tcp.at, tcp.bytes) if tcp else (now, 0)}


@dataclass(slots=True)
class _Count:
    """What the TCP receiver said last."""

    at: float = 0.0
    bytes: int = 0


@contextlib.asynccontextmanager
async def _tcp_flow(system: NetnsSystem, control: str) -> AsyncIterator[_Count]:
    """Run one TCP flow from the sender's namespace to the receiver's."""
    address = system.plan.address(RECEIVER, SENDER)
    count = _Count()
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(_inside(system, RECEIVER, "receive", address, str(TCP_PORT)))
        await _line(receiver)
        sender = await stack.enter_async_context(_inside(system, SENDER, "send", address, str(TCP_PORT), control))
        await _line(receiver)
        counting = asyncio.create_task(_follow(receiver, count))
        try:
            yield count
            if sender.returncode is not None or counting.done():
                raise ConnectError(f"the TCP flow ended with exit code {sender.returncode}")
        finally:
            counting.cancel()


@contextlib.asynccontextmanager
async def _inside(system: NetnsSystem, device: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command_line = system.plan.inside(system.plan.namespace(device), [sys.executable, "-m", "bench._tcp", *arguments])
    process = await asyncio.create_subprocess_exec(*command_line, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(READ_S):
        line = await process.stdout.readline()
    if not line:
        raise ConnectError("the TCP flow ended")
    return dict(json.loads(line))


async def _follow(process: asyncio.subprocess.Process, count: _Count) -> None:
    while True:
        said = await _line(process)
        count.at, count.bytes = said["at"], said["bytes"]


if __name__ == "__main__":
    command(fairness)
