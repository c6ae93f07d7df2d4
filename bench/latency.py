"""Messages of 200 bytes over the chain A-B-C-D: from the publisher's call at A to the receiver's read at D.

Publisher and receivers are threads of this process that speak to the agents' local API as the command line does: a
publisher's kept connection, and an open answer for each receiver. A payload carries the monotonic clock of this host.
After the run some messages go as a request each, for what such a call takes.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from agent.publisher import Publisher
from bench._common import (
    EmulatorOption,
    answer,
    command,
    machine,
    median,
    one_sentence,
    over_namespaces,
    percentile,
    say,
    send_file,
    sparse,
    used_since,
)
from common.errors import ConfigError, ConnectError
from lab.loopback import SOCKET
from lab.netns import NetnsSystem, check_netns
from lab.scenario import LinkFigures, Scenario
from lab.units import parse_rate

HOPS: Final = ("A", "B", "C", "D")
STAMP: Final = struct.Struct("!QI")
READ_BYTES: Final = 1 << 16
SILENCE_S: Final = 10.0
SETTLE_S: Final = 1.0
CALLS_S: Final = 2.0
CHANNEL: Final = "messages"
FILE_BYTES: Final = 1 << 30
MEDIANS: Final = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "lost")


class Mode(StrEnum):
    """What the links do meanwhile."""

    IDLE = "idle"
    LOSSY = "lossy"
    LOADED = "loaded"


@dataclass(slots=True)
class _Receiver:
    """Follows a channel at one agent in a thread of its own.

    Attributes:
        latencies: Seconds by the publisher's count.
    """

    path: Path
    latencies: dict[int, float] = field(default_factory=dict)
    following: threading.Event = field(default_factory=threading.Event)
    _socket: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX))
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow, and wait until the agent says that it has begun."""
        self._socket.connect(str(self.path))
        self._socket.sendall(f"GET /messages?channel={CHANNEL} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        if not self.following.wait(SILENCE_S):
            raise ConnectError(f"the agent at {self.path} does not let its messages be followed")

    def stop(self) -> None:
        """End."""
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def _follow(self) -> None:
        rest = b""
        while part := self._socket.recv(READ_BYTES):
            now = time.monotonic_ns()
            # Lines of JSON within HTTP chunks; the lines of the framing do not begin with a brace.
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    self._take(json.loads(line), now)

    def _take(self, entry: dict[str, Any], now: int) -> None:
        if entry["event"] == "message":
            sent, number = STAMP.unpack_from(base64.b64decode(entry["payload"]))
            self.latencies[number] = (now - sent) / 1e9
        elif entry["event"] == "following":
            self.following.set()


def latency(
    mode: Annotated[
        list[Mode] | None,
        typer.Option(
            help="idle: unshaped; lossy: 20 ms and 1 % loss; loaded: a file saturates the links. Default all."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each mode.")] = 5,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to publish in each run.")] = 10.0,
    per_second: Annotated[float, typer.Option(min=1.0, help="Messages a second.")] = 100.0,
    message_bytes: Annotated[int, typer.Option(min=STAMP.size, help="Bytes of a message.")] = 200,
    rate: Annotated[str, typer.Option(help="The links' rate for lossy and loaded.")] = "50M",
    each_hop: Annotated[bool, typer.Option("--each-hop", help="Receive at B and C as well.")] = False,
    emulator: EmulatorOption = None,
) -> None:
    """Measure messages over three hops, several times, and print one JSON object."""
    figures: dict[str, Any] = {
        "bench": "latency",
        "hops": len(HOPS) - 1,
        "message_bytes": message_bytes,
        "per_second": per_second,
        "machine": machine(),
        "modes": {},
    }
    with one_sentence():
        for each in mode or list(Mode):
            scenario = _chain(each, rate)
            try:
                check_netns(scenario, emulator)
            except ConfigError as error:
                if mode:
                    raise
                figures["modes"][each.value] = {"skipped": str(error)}
                say(f"{each}: skipped: {error}")
                continue
            order = _Order(each, seconds, per_second, message_bytes, HOPS[1:] if each_hop else HOPS[-1:])
            done = []
            for number in range(1, runs + 1):
                run = over_namespaces(scenario, order.measure, emulator=emulator, shaped=each is not Mode.IDLE)
                say(f"{each} {number}/{runs}: " + ", ".join(f"{key} {run[key]}" for key in MEDIANS))
                done.append(run)
            medians = {key: median(run[key] for run in done) for key in MEDIANS}
            figures["modes"][each.value] = {"median": medians, "runs": done}
        figures["loaded_over_idle"] = _added(figures["modes"])
    answer(figures)


def _added(modes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the milliseconds that the file adds; None where one of the two was not measured."""
    idle, loaded = (modes.get(mode, {}).get("median", {}) for mode in (Mode.IDLE, Mode.LOADED))
    known = {key: (idle.get(key), loaded.get(key)) for key in ("p50_ms", "p99_ms")}
    return {key: None if a is None or b is None else round(b - a, 3) for key, (a, b) in known.items()}


def _chain(mode: Mode, rate: str) -> Scenario:
    try:
        rate_bps = parse_rate(rate)
    except ValueError as error:
        raise ConfigError(f"--rate: expected {error}") from error
    lossy = mode is Mode.LOSSY
    link = LinkFigures(rate_bps, delay_s=0.02 if lossy else 0.0, loss=0.01 if lossy else 0.0)
    links = dict.fromkeys(itertools.pairwise(HOPS), link)
    return Scenario(name=f"chain-{mode}", devices=HOPS, links=links, datagram_bytes=1472)


@dataclass(frozen=True, slots=True)
class _Order:
    """One run."""

    mode: Mode
    seconds: float
    per_second: float
    message_bytes: int
    receivers: tuple[str, ...]

    async def measure(self, system: NetnsSystem, folder: Path) -> dict[str, Any]:
        """Publish and receive over a running system."""
        receivers = {device: _Receiver(system.folder / device / SOCKET) for device in self.receivers}
        for receiver in receivers.values():
            await asyncio.to_thread(receiver.start)
        stream = (
            await send_file(system, HOPS[0], sparse(folder / "load.bin", FILE_BYTES))
            if self.mode is Mode.LOADED
            else ""
        )
        await asyncio.sleep(SETTLE_S)
        before = system.cpu_seconds()
        path = system.folder / HOPS[0] / SOCKET
        answered = await asyncio.to_thread(self._publish, path)
        cpu_s = used_since(before, system.cpu_seconds())
        held = await system.ask_agent(HOPS[-1], f"/streams/{stream}") if stream else None
        await asyncio.sleep(SETTLE_S)
        latencies = {device: list(each.latencies.values()) for device, each in receivers.items()}
        if stream:
            await system.client(HOPS[0]).delete(f"/streams/{stream}")
        for receiver in receivers.values():
            await asyncio.to_thread(receiver.stop)
        calls = await asyncio.to_thread(self._call, path)
        last = latencies[HOPS[-1]]
        return {
            **_percentiles(last),
            "published": len(answered),
            "lost": len(answered) - len(last),
            "publish_p50_ms": round(1e3 * percentile(answered, 0.5), 3),
            "publish_call_p50_ms": round(1e3 * percentile(calls, 0.5), 3),
            "at": {device: _percentiles(each) for device, each in latencies.items()},
            "file_mbit_s": held and round(8 * held["held_bytes"] / 1e6 / (self.seconds + SETTLE_S), 1),
            "cpu_s": cpu_s,
        }

    def _publish(self, path: Path) -> list[float]:
        """Publish at an even pace on a kept connection; return the seconds until each answer."""
        padding = bytes(self.message_bytes - STAMP.size)
        answered = []
        with Publisher(path, CHANNEL) as publisher:
            for number, due in enumerate(self._times(self.seconds)):
                time.sleep(max(0.0, due - time.monotonic()))
                sent = time.monotonic_ns()
                publisher.publish(STAMP.pack(sent, number) + padding)
                answered.append((time.monotonic_ns() - sent) / 1e9)
        return answered

    def _call(self, path: Path) -> list[float]:
        """Publish at the same pace with a request for each message; return the seconds of each call."""
        head = (
            f"POST /messages?channel={CHANNEL} HTTP/1.1\r\nHost: agent\r\nContent-Length: {self.message_bytes}\r\n\r\n"
        )
        request = head.encode() + bytes(self.message_bytes)
        calls = []
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(SILENCE_S)
            caller.connect(str(path))
            for due in self._times(CALLS_S):
                time.sleep(max(0.0, due - time.monotonic()))
                began = time.monotonic()
                caller.sendall(request)
                said = _answer_of(caller)
                if not said.startswith(b"HTTP/1.1 201"):
                    raise ConnectError(f"the agent refused a message: {said[:200]!r}")
                calls.append(time.monotonic() - began)
        return calls

    def _times(self, seconds: float) -> Iterator[float]:
        began = time.monotonic()
        return (began + number / self.per_second for number in range(math.ceil(seconds * self.per_second)))


def _answer_of(caller: socket.socket) -> bytes:
    """Read one answer: its body is one object of JSON without another in it."""
    said = b""
    while not said.endswith(b"}"):
        part = caller.recv(READ_BYTES)
        if not part:
            break
        said += part
    return said


def _percentiles(latencies: list[float]) -> dict[str, float | None]:
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    if not latencies:
        return dict.fromkeys(shares)
    return {key: round(1e3 * percentile(latencies, share), 3) for key, share in shares.items()}


if __name__ == "__main__":
    command(latency)
